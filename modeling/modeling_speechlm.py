"""SpeechLM: one model that hears 16 kHz sound and reads phone units, exact to Microsoft's original.

waveform -> convolutional frames -> Speech Transformer -> Shared Transformer -> hidden states
                                           unit ids -> unit embedding ^

`SpeechLMModel` is the tower, `SpeechLMForCTC` the recogniser; pre-training is in modeling_speechlm_pretraining.py.
Layer by layer facts: arXiv 2209.15329 and microsoft/SpeechT5 (SpeechLM/).

Shapes: B batch, S samples, T frames or units, D hidden, N letters, C classes.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.hubert.modeling_hubert import HubertFeatureProjection, HubertPositionalConvEmbedding
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention_speechlm import SpeechLMAttention, SpeechLMLayer, SpeechLMRelativePositions
from .configuration_speechlm import SpeechLMConfig
from .front_end_speechlm import SpeechLMFeatureEncoder, clips_at_start, frame_mask
from .loading_unibrivl import CheckedLoading
from .outputs_speechlm import SpeechLMModelOutput
from .packing_speechlm import are_short, each_clip


class SpeechLMEncoder(nn.Module):
    """The Speech Transformer: convolutional positions, then relative-position layers."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.pos_conv_embed = HubertPositionalConvEmbedding(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.relative_positions = SpeechLMRelativePositions(config)
        self.relative_positions.pe_k.init_rule = 0.02
        self.layers = nn.ModuleList([SpeechLMLayer(config) for _ in range(config.num_speech_layers)])
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                module.init_rule = "normal"
        self.gradient_checkpointing = False

    def forward(self, hidden_states_BTD, mask_BT=None, **kwargs):
        lengths = clip_frames(mask_BT, self.config)
        width = hidden_states_BTD.shape[1]
        if lengths is None or are_short(lengths) or min(lengths) == width:  # padded with zeros, as at a clip's own end
            hidden_states_BTD = hidden_states_BTD + self.pos_conv_embed(hidden_states_BTD)
        else:
            hidden_states_BTD = hidden_states_BTD + each_clip(self.pos_conv_embed, hidden_states_BTD, lengths, width)
        if not self.config.do_stable_layer_norm:
            hidden_states_BTD = self.layer_norm(hidden_states_BTD)
        hidden_states_BTD = run_layers(self, self.dropout(hidden_states_BTD), mask_BT, **kwargs)
        return self.layer_norm(hidden_states_BTD) if self.config.do_stable_layer_norm else hidden_states_BTD


class SpeechLMSharedEncoder(nn.Module):
    """The Shared Transformer: learned absolute positions of the real frames or units, then the same kind of layers."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        # row 0 is never used, row 1 belongs to padding, the first real frame has row 2 (fairseq's numbering)
        self.position_embeddings = nn.Embedding(config.max_source_positions + 2, config.hidden_size, padding_idx=1)
        self.embedding_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.relative_positions = SpeechLMRelativePositions(config)
        self.relative_positions.pe_k.init_rule = 1.0
        self.layers = nn.ModuleList([SpeechLMLayer(config) for _ in range(config.num_shared_layers)])
        for layer in self.layers:
            for linear in (layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj):
                linear.init_rule = "xavier_input"
            layer.attention.out_proj.init_rule = "xavier_output"
        if config.do_stable_layer_norm:
            self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False

    def forward(self, inputs_BTD, mask_BT=None, **kwargs):
        """Returns the last hidden states and the states before the first layer."""
        last_row = self.position_embeddings.num_embeddings - 1
        if mask_BT is None:
            positions = torch.arange(2, inputs_BTD.shape[1] + 2, device=inputs_BTD.device).clamp_(max=last_row)[None]
        else:
            positions = ((mask_BT.cumsum(1) * mask_BT) + 1).clamp_(max=last_row)
            inputs_BTD = inputs_BTD * mask_BT[..., None]
        states_BTD = self.embedding_layer_norm(inputs_BTD + self.position_embeddings(positions))
        states_BTD = self.dropout(states_BTD)
        if mask_BT is not None:
            states_BTD = states_BTD * mask_BT[..., None]
        hidden_states_BTD = run_layers(self, states_BTD, mask_BT, **kwargs)
        if self.config.do_stable_layer_norm:
            hidden_states_BTD = self.layer_norm(hidden_states_BTD)
        return hidden_states_BTD, states_BTD


def run_layers(encoder, hidden_states_BTD, mask_BT, **kwargs):
    lengths = clip_frames(mask_BT, encoder.config)
    padding_BT = ~mask_BT if mask_BT is not None and lengths is None else None
    if lengths is not None and min(lengths) == hidden_states_BTD.shape[1]:  # nothing is padded
        lengths = None
    table_Rd = encoder.relative_positions.pe_k.weight
    for layer in encoder.layers:
        if encoder.training and encoder.config.layerdrop > 0 and torch.rand(()) < encoder.config.layerdrop:
            continue
        hidden_states_BTD = layer(hidden_states_BTD, table_Rd, padding_BT, lengths, **kwargs)
    return hidden_states_BTD


def clip_frames(mask_BT, config) -> list[int] | None:
    """Frames of each clip where clips are run at their own length; None where the batch runs padded and masked.

    At their own length: without gradients on a CPU, with padding_mode "exact", the padding at the end, and sdpa. Real
    frames are the same to rounding.
    """
    if mask_BT is None or mask_BT.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    if config.padding_mode != "exact" or config._attn_implementation != "sdpa":
        return None
    lengths_B = mask_BT.sum(1)
    at_the_end = bool((mask_BT == (torch.arange(mask_BT.shape[1]) < lengths_B[:, None])).all())
    return lengths_B.tolist() if at_the_end and lengths_B.min() > 0 else None


class SpeechLMCTCHead(nn.Module):
    """Letters from Shared states. The kernel of 2 with padding 1 makes T + 1 frames of T; the first T count."""

    def __init__(self, config):
        super().__init__()
        self.conv = nn.Conv1d(config.hidden_size, config.hidden_size, kernel_size=2, padding=1, bias=False)
        self.dropout = nn.Dropout(config.ctc_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = ACT2FN[config.hidden_act]
        self.classifier = nn.Linear(config.hidden_size, config.ctc_vocab_size)

    def forward(self, hidden_states_BTD):
        hidden_states = self.dropout(self.conv(hidden_states_BTD.transpose(1, 2)).transpose(1, 2))
        return self.classifier(self.activation(self.layer_norm(hidden_states)))


def ctc_loss(logits_BTC, frames_B, labels_BN, config, reduction: str = "sum"):
    """CTC with the blank of the config; labels that are negative or the pad id end nothing and count nothing."""
    real_BN = (labels_BN >= 0) & (labels_BN != config.pad_token_id)
    if (labels_BN >= logits_BTC.shape[-1]).any() or (labels_BN == config.ctc_blank_token_id).any():
        raise ValueError(
            f"letter labels must be below {logits_BTC.shape[-1]} and not {config.ctc_blank_token_id}, the blank; "
            "pad them with -100"
        )
    log_probs_TBC = logits_BTC.float().log_softmax(-1).transpose(0, 1)
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's CTC is not deterministic
        return nn.functional.ctc_loss(
            log_probs_TBC,
            labels_BN[real_BN],
            frames_B,
            real_BN.sum(1),
            blank=config.ctc_blank_token_id,
            reduction=reduction,
            zero_infinity=True,
        )


class SpeechLMPreTrainedModel(CheckedLoading):
    config: SpeechLMConfig
    base_model_prefix = "speechlm"
    main_input_name = "input_values"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["SpeechLMLayer", "SpeechLMFeatureEncoder"]
    _supports_sdpa = True
    accepts_loss_kwargs = False  # our losses do not divide by num_items_in_batch: the Trainer has to average
    _supports_flash_attn = False  # the relative term is a float mask
    _supports_flex_attn = False
    _can_record_outputs = {"hidden_states": SpeechLMLayer, "attentions": SpeechLMAttention}

    @torch.no_grad()
    def _init_weights(self, module):
        """The distributions of a freshly built original, measured. transformers visits leaves only, so a leaf that
        starts otherwise than its kind does carries `init_rule`, set where it is built."""
        rule = getattr(module, "init_rule", None)
        if isinstance(module, nn.Linear):
            init_linear(module, rule)
        elif isinstance(module, nn.Conv1d) and hasattr(module, "parametrizations"):
            init_weight_normed(module)
        elif isinstance(module, nn.Conv1d):
            init.kaiming_normal_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=module.embedding_dim**-0.5 if rule is None else rule)
            if module.padding_idx is not None and not getattr(module.weight, "_is_hf_initialized", False):
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.ParameterList):
            for parameter in module:
                init.uniform_(parameter, 0.0, 1.0)
        elif isinstance(module, SpeechLMModel):
            init.uniform_(module.masked_spec_embed, 0.0, 1.0)


def init_linear(linear, rule):
    """torch's own default; "normal" in the Speech Transformer; Xavier for the Shared Transformer's attention."""
    bound = 1 / math.sqrt(linear.in_features)
    if rule == "normal":
        init.normal_(linear.weight, std=0.02)
    elif rule in ("xavier_input", "xavier_output"):
        init.xavier_uniform_(linear.weight, gain=1 / math.sqrt(2) if rule == "xavier_input" else 1.0)
    else:
        init.uniform_(linear.weight, -bound, bound)
    if rule in ("normal", "xavier_output"):
        init.zeros_(linear.bias)
    else:
        init.uniform_(linear.bias, -bound, bound)


def init_weight_normed(conv):
    """The positional convolution: directions normal, gains their norms, so that the kernel starts as drawn."""
    weight = conv.parametrizations.weight
    init.normal_(weight.original1, std=math.sqrt(4 / (conv.kernel_size[0] * conv.out_channels)))
    init.copy_(weight.original0, weight.original1.float().norm(dim=(0, 1), keepdim=True))
    init.zeros_(conv.bias)


class SpeechLMModel(SpeechLMPreTrainedModel):
    """The tower: sound and/or unit ids in, hidden states of the Shared Transformer and of every layer out."""

    def __init__(self, config: SpeechLMConfig):
        super().__init__(config)
        self.feature_extractor = SpeechLMFeatureEncoder(config)
        self.feature_projection = HubertFeatureProjection(config)
        self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size))
        self.encoder = SpeechLMEncoder(config)
        self.unit_embeddings = None
        if config.use_unit_embeddings:
            self.unit_embeddings = nn.Embedding(config.unit_vocab_size, config.hidden_size, config.pad_token_id)
        self.shared_encoder = SpeechLMSharedEncoder(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.unit_embeddings

    def set_input_embeddings(self, value):
        self.unit_embeddings = value

    def freeze_feature_encoder(self):
        self.feature_extractor._freeze_parameters()

    def embed_units(self, input_ids_BT):
        if self.unit_embeddings is None:
            raise ValueError(
                "this model has no unit table (it came from a 'cleaned' SpeechLM file), so it hears sound and cannot "
                "read unit ids. Convert the full pre-training checkpoint to use text"
            )
        return self.unit_embeddings(input_ids_BT)

    def encode_speech(self, input_values_BS, attention_mask_BS=None, mask_time_indices_BT=None, frames=None, **kwargs):
        """Sound up to the Speech Transformer's output; `frames` cuts the sound where its labels end.

        Returns the convolutional frames, the projected frames, the Speech Transformer's output and the frame mask.
        """
        if input_values_BS.dim() != 2:
            raise ValueError(f"input_values must be (batch, samples), got {tuple(input_values_BS.shape)}")
        if input_values_BS.shape[1] < self.config.frame_field:
            raise ValueError(
                f"{input_values_BS.shape[1]} samples are fewer than one frame needs ({self.config.frame_field}). "
                "SpeechLMFeatureExtractor pads such clips to one frame"
            )
        if attention_mask_BS is not None and attention_mask_BS.shape != input_values_BS.shape:
            raise ValueError(
                f"attention_mask {tuple(attention_mask_BS.shape)} must have the shape of input_values "
                f"{tuple(input_values_BS.shape)}: one number a sample"
            )
        lengths = None
        if attention_mask_BS is not None and self.config.padding_mode == "exact":
            input_values_BS, attention_mask_BS, lengths = clips_at_start(
                input_values_BS, attention_mask_BS, self.config
            )
        extracted_BTC = self.feature_extractor(input_values_BS, lengths)
        if self.training and self.config.feature_grad_mult != 1.0:
            scale = self.config.feature_grad_mult
            extracted_BTC = scale * extracted_BTC + (1 - scale) * extracted_BTC.detach()
        extracted_BTC = extracted_BTC[:, :frames]
        projected_BTD = self.feature_projection(extracted_BTC)
        mask_BT = None
        if mask_time_indices_BT is not None:
            projected_BTD = torch.where(
                mask_time_indices_BT[..., None], self.masked_spec_embed.to(projected_BTD.dtype), projected_BTD
            )
        if attention_mask_BS is not None:
            mask_BT = frame_mask(attention_mask_BS, extracted_BTC.shape[1], self.config)
            projected_BTD = projected_BTD * mask_BT[..., None]
        return extracted_BTC, projected_BTD, self.encoder(projected_BTD, mask_BT, **kwargs), mask_BT

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        swap_indices: torch.Tensor | None = None,
        predict_units: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SpeechLMModelOutput:
        """
        Args:
            input_values (`torch.FloatTensor`, *optional*): (B, S), mono 16 kHz sound from the feature extractor.
            attention_mask (`torch.Tensor`, *optional*): (B, S), 1 on real samples; for units alone (B, T).
            input_ids (`torch.LongTensor`, *optional*): (B, T), unit ids from `SpeechLMPhoneTokenizer` or a quantiser.
                With sound they are encoded beside it and returned as `unit_output`.
            mask_time_indices (`torch.BoolTensor`, *optional*): (B, T), frames to replace by the mask vector.
            swap_indices (`torch.BoolTensor`, *optional*): (B, T), frames to replace by the embedding of their unit
                between the two transformers; `input_ids` then holds one unit per frame, the pad id on padding.
            predict_units (`Callable`, *optional*): gives the units to swap in from the Speech Transformer's output,
                for sound without labels.
        """
        if input_values is None and input_ids is None:
            raise ValueError("pass input_values (sound), input_ids (units), or both")
        if swap_indices is not None and (input_values is None or input_ids is None):
            raise ValueError("swap_indices needs input_values and input_ids with one unit per frame")
        if input_values is None:
            return self._encode_units(input_ids, attention_mask, mask_time_indices, **kwargs)

        frames = None if swap_indices is None else swap_indices.shape[1]
        extracted_BTC, projected_BTD, speech_BTD, mask_BT = self.encode_speech(
            input_values, attention_mask, mask_time_indices, frames, **kwargs
        )
        shared_BTD, unit_output = speech_BTD, None
        if swap_indices is not None:
            units_BT = input_ids if predict_units is None else predict_units(speech_BTD)
            shared_BTD = torch.where(swap_indices[..., None], self.embed_units(units_BT).to(speech_BTD), speech_BTD)
            mask_BT = input_ids != self.config.pad_token_id
        last_hidden_BTD, shared_input_BTD = self.shared_encoder(shared_BTD, mask_BT, **kwargs)
        if input_ids is not None and swap_indices is None:
            unit_output = self(input_ids=input_ids, **kwargs)
        return SpeechLMModelOutput(
            last_hidden_state=last_hidden_BTD,
            frame_mask=None if mask_BT is None else mask_BT.long(),
            extract_features=extracted_BTC,
            projected_features=projected_BTD,
            speech_hidden_state=speech_BTD,
            shared_input=shared_input_BTD,
            unit_output=unit_output,
        )

    def _encode_units(self, input_ids_BT, attention_mask_BT, mask_time_indices_BT, **kwargs):
        mask_BT = input_ids_BT != self.config.pad_token_id
        if attention_mask_BT is not None:
            mask_BT = mask_BT & attention_mask_BT.bool()
        embeds_BTD = self.embed_units(input_ids_BT)
        if mask_time_indices_BT is not None:
            embeds_BTD = torch.where(mask_time_indices_BT[..., None], self.masked_spec_embed, embeds_BTD)
        last_hidden_BTD, shared_input_BTD = self.shared_encoder(embeds_BTD, mask_BT, **kwargs)
        return SpeechLMModelOutput(
            last_hidden_state=last_hidden_BTD, frame_mask=mask_BT.long(), shared_input=shared_input_BTD
        )


class SpeechLMForCTC(SpeechLMPreTrainedModel):
    """Letters from sound (or units): the Shared Transformer under a CTC head."""

    def __init__(self, config: SpeechLMConfig):
        super().__init__(config)
        self.speechlm = SpeechLMModel(config)
        self.ctc_head = SpeechLMCTCHead(config)
        self.post_init()

    def freeze_feature_encoder(self):
        self.speechlm.freeze_feature_encoder()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutput:
        """`labels` (B, N) are letter ids padded with -100. The loss is the mean over the batch of CTC per letter."""
        if input_values is not None and input_ids is not None:
            raise ValueError("SpeechLMForCTC transcribes sound or units: pass input_values or input_ids, not both")
        states = self.speechlm(input_values, attention_mask, input_ids, return_dict=True, **kwargs)
        logits = self.ctc_head(states.last_hidden_state)[:, : states.last_hidden_state.shape[1]]
        loss = None
        if labels is not None:
            frames_B = torch.full((len(logits),), logits.shape[1], dtype=torch.long, device=logits.device)
            if states.frame_mask is not None:
                frames_B = states.frame_mask.sum(1)
            loss = ctc_loss(logits, frames_B, labels, self.config, reduction="mean")
        return CausalLMOutput(
            loss=loss, logits=logits, hidden_states=states.hidden_states, attentions=states.attentions
        )


__all__ = ["SpeechLMCTCHead", "SpeechLMForCTC", "SpeechLMModel", "SpeechLMPreTrainedModel"]
