"""Audio captioning: the language tower's frames become a prefix for a causal language model, which goes on in words.

The sound is cut into ten equal stretches; the mean of each becomes a vector of the language model's width (ClipCap's
prefix, made of frames instead of one pooled vector). The loss is on the caption alone.

Shapes: B batch, T frames, E features, P prefix, N caption tokens, V vocabulary, W the language model's width.
"""

import copy

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_unibrivl import UniBriVLConfig
from .modeling_unibrivl import UniBriVLAudioModel, UniBriVLPreTrainedModel
from .towers_unibrivl import load_audio_tower

IGNORED = -100  # torch's label that cross-entropy skips
# of the config: what a captioner may decide about a language tower that is there already
OWN_FIELDS = ("prefix_length", "freeze_audio_model", "freeze_audio_tower", "freeze_decoder")


def resample_frames(frames_BTE: torch.Tensor, mask_BT: torch.Tensor | None, steps: int) -> torch.Tensor:
    """Each clip's real frames as `steps` means over equal stretches, (B, steps, E); short clips repeat frames."""
    if mask_BT is None:
        mask_BT = torch.ones(frames_BTE.shape[:2], dtype=torch.long, device=frames_BTE.device)
    lengths_B11 = mask_BT.sum(1)[:, None, None]
    rank_B1T = (mask_BT.cumsum(1) - 1)[:, None]
    step_S1 = torch.arange(steps, device=mask_BT.device)[:, None]
    starts = step_S1 * lengths_B11 // steps
    ends = -((-(step_S1 + 1) * lengths_B11) // steps)
    inside_BST = (rank_B1T >= starts) & (rank_B1T < ends) & mask_BT[:, None].bool()
    weights_BST = inside_BST / inside_BST.sum(-1, keepdim=True).clamp(min=1)
    return weights_BST.to(frames_BTE) @ frames_BTE


def caption_settings(decoder: PreTrainedModel) -> GenerationConfig:
    """Five beams and 22 tokens. Of the language model's own settings its special tokens count, and they alone."""
    own = decoder.generation_config
    end = own.eos_token_id[0] if isinstance(own.eos_token_id, list) else own.eos_token_id
    return GenerationConfig(
        num_beams=5,
        max_new_tokens=22,
        do_sample=False,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        pad_token_id=end if own.pad_token_id is None else own.pad_token_id,
    )


class UniBriVLPrefix(nn.Module):
    """Frames (B, T, E) -> prefix (B, P, W): means over stretches of the sound, widened by a two-layer tanh MLP."""

    def __init__(self, config: UniBriVLConfig, width: int):
        super().__init__()
        self.length = config.prefix_length
        self.fc1 = nn.Linear(config.embed_dim, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, frames_BTE: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
        return self.fc2(torch.tanh(self.fc1(resample_frames(frames_BTE, mask_BT, self.length))))


class UniBriVLForAudioCaptioning(UniBriVLPreTrainedModel, GenerationMixin):
    """A sound in, a sentence out.

    `decoder_config` names the language model. `generation_config`, saved beside the weights, says how `generate`
    searches.
    """

    base_model_prefix = "audio_model"
    input_modalities = ("audio",)

    def __init__(
        self,
        config: UniBriVLConfig,
        audio_model: UniBriVLAudioModel | None = None,
        decoder: PreTrainedModel | None = None,
    ):
        if config.decoder_config is None:
            raise ValueError(
                "captioning needs a language model: set decoder_config, such as {'model_type': 'gpt2'}, or use "
                "from_pretrained_parts(audio=..., decoder='gpt2')"
            )
        super().__init__(config)
        self.audio_model = UniBriVLAudioModel(config) if audio_model is None else audio_model
        self.decoder = AutoModelForCausalLM.from_config(config.decoder_config) if decoder is None else decoder
        self.generation_config = caption_settings(self.decoder)
        self.decoder.generation_config = copy.deepcopy(self.generation_config)
        self.prefix = UniBriVLPrefix(config, self.decoder.get_input_embeddings().embedding_dim)
        self.post_init()
        self.apply_freezing()

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.generation_config._from_model_config:  # no file: transformers guesses, from the wrong tower's tokens
            model.generation_config = caption_settings(model.decoder)
        return loaded

    @classmethod
    def from_pretrained_parts(
        cls,
        audio: str | PreTrainedModel,
        decoder: str | PreTrainedModel,
        *,
        audio_kwargs: dict | None = None,
        decoder_kwargs: dict | None = None,
        **config_fields,
    ) -> "UniBriVLForAudioCaptioning":
        """A captioner whose prefix is new.

        Args:
            audio: name or folder of any UniBriVL checkpoint, whose language tower is taken, head and all, or such a
                model, whose tower is copied; or name, folder or model of a plain audio encoder.
            decoder: name, folder or model of a causal language model.
            audio_kwargs, decoder_kwargs (*optional*): for each `from_pretrained`.
            config_fields: `prefix_length` and the `freeze_...` fields; with a plain audio encoder all of
                `UniBriVLConfig`.
        """
        if not isinstance(decoder, PreTrainedModel):
            decoder = AutoModelForCausalLM.from_pretrained(decoder, **(decoder_kwargs or {}))
        language = _language_tower(audio, audio_kwargs or {})
        if language is None:
            tower = load_audio_tower(audio, **(audio_kwargs or {}))
            config = UniBriVLConfig(audio_config=tower.config, decoder_config=decoder.config, **config_fields)
            language = UniBriVLAudioModel(config, tower)
        else:
            config = language.config
            config.decoder_config = decoder.config
            for name, value in config_fields.items():
                if name not in OWN_FIELDS:
                    raise ValueError(
                        f"the language tower is taken as it is, so {name} cannot be set: "
                        f"of the config only {', '.join(OWN_FIELDS)}"
                    )
                setattr(config, name, value)
            if config_fields.get("freeze_audio_model") is False:
                language.requires_grad_()  # it may come from a model that froze it
        return cls(config, language, decoder).eval()

    def apply_freezing(self) -> None:
        super().apply_freezing()
        # it stands behind the frames; weights that never get a gradient stop distributed training
        self.audio_model.projection.requires_grad_(False)

    def get_input_embeddings(self):
        return self.decoder.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.decoder.set_input_embeddings(value)

    def get_output_embeddings(self):
        return self.decoder.get_output_embeddings()

    def set_output_embeddings(self, value):
        self.decoder.set_output_embeddings(value)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Module:
        return self.decoder.resize_token_embeddings(*args, **kwargs)  # transformers would note the size elsewhere

    def hear(self, input_values=None, attention_mask=None, **kwargs) -> torch.Tensor:
        """The sounds as means over stretches (B, P, E): of a frozen language tower they can be kept."""
        output = self.audio_model(input_values, attention_mask, return_dict=True, **kwargs)
        return resample_frames(output.last_hidden_state, output.frame_mask, self.prefix.length)

    def encode_prefix(self, input_values=None, attention_mask=None, stretches=None, **kwargs) -> torch.Tensor:
        """The sounds, or what `hear` gave of them, as vectors (B, P, W) before the language model's first word."""
        if stretches is None:
            stretches = self.hear(input_values, attention_mask, **kwargs)
        elif input_values is not None or kwargs.get("input_features") is not None:
            raise ValueError("pass sounds, or stretches, which were heard before: one of the two")
        return self.prefix(stretches.to(self.prefix.fc1.weight.dtype), None).to(self.decoder.dtype)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        padding_mask: torch.Tensor | None = None,
        is_longer: torch.Tensor | None = None,
        stretches: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutput:
        """
        Args:
            input_values, attention_mask, input_features, padding_mask, is_longer: sounds; see `UniBriVLAudioModel`.
            labels (`torch.LongTensor`, *optional*): (B, N), the captions' tokens with the end token, padded on the
                right with -100. `logits` (B, N, V) are the predictions of these tokens; without labels (B, 1, V), of
                the first word. `hidden_states` and `attentions` are the language model's.
            stretches (`torch.FloatTensor`, *optional*): (B, P, E), what `hear` gave of sounds, in their place.
        """
        prefix_BPW = self.encode_prefix(
            input_values,
            attention_mask,
            stretches,
            input_features=input_features,
            padding_mask=padding_mask,
            is_longer=is_longer,
        )
        embeds = prefix_BPW
        if labels is not None:
            check_labels(labels)
            tokens_BN = labels.clamp(min=0)  # what stands after a caption's end is never scored, nor seen before it
            embeds = torch.cat([embeds, self.get_input_embeddings()(tokens_BN[:, :-1]).to(embeds)], dim=1)
        output = self.decoder(inputs_embeds=embeds, use_cache=False, return_dict=True, **kwargs)
        logits = output.logits[:, prefix_BPW.shape[1] - 1 :]
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), labels.flatten().to(logits.device), ignore_index=IGNORED
            )
        return CausalLMOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )

    @torch.no_grad()
    def generate(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        padding_mask: torch.Tensor | None = None,
        is_longer: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        stretches: torch.Tensor | None = None,
        **kwargs,
    ):
        """Captions as token ids, (B, N).

        Args:
            input_values, attention_mask, input_features, padding_mask, is_longer: sounds; see `UniBriVLAudioModel`.
            stretches (*optional*): what `hear` gave of them, in their place.
            generation_config, kwargs (*optional*): as of transformers' `generate`; what they leave open is as
                `self.generation_config` says. Lengths count the caption's tokens, not the prefix.
        """
        wishes = {} if generation_config is None else generation_config.to_dict()
        wishes = {name: value for name, value in wishes.items() if value is not None} | kwargs
        for end in ("max", "min"):  # transformers would subtract the prefix from lengths of this name
            if wishes.get(f"{end}_length") is not None:
                wishes.setdefault(f"{end}_new_tokens", wishes.pop(f"{end}_length"))
        if wishes.get("do_sample"):
            wishes.setdefault("num_beams", 1)
        settings = copy.deepcopy(self.generation_config)
        others = settings.update(**wishes)
        prefix_BPW = self.encode_prefix(
            input_values,
            attention_mask,
            stretches,
            input_features=input_features,
            padding_mask=padding_mask,
            is_longer=is_longer,
        )
        seen = torch.ones(prefix_BPW.shape[:2], dtype=torch.long, device=prefix_BPW.device)
        return self.decoder.generate(
            inputs_embeds=prefix_BPW, attention_mask=seen, generation_config=settings, **others
        )


def check_labels(labels: torch.Tensor) -> None:
    if labels.dim() != 2 or labels.shape[1] == 0:
        raise ValueError(f"labels must be (batch, tokens) with at least one token, got {tuple(labels.shape)}")
    if torch.compiler.is_compiling():
        return
    real_BN = labels >= 0
    if not real_BN[:, 0].all() or (real_BN[:, 1:] > real_BN[:, :-1]).any():
        raise ValueError(
            f"each row of labels must begin with its caption, with {IGNORED} behind its end only: pad on the right "
            "(tokenizers of language models often pad on the left), and leave no caption empty"
        )


def _language_tower(audio, kwargs: dict) -> UniBriVLAudioModel | None:
    """UniBriVL's language tower in a checkpoint, or a copy of a model's; None for a plain audio encoder."""
    if isinstance(audio, PreTrainedModel):
        tower = getattr(audio, "audio_model", audio)
        return copy.deepcopy(tower) if isinstance(tower, UniBriVLAudioModel) else None
    config, _ = AutoConfig.from_pretrained(audio, return_unused_kwargs=True, **kwargs)
    return UniBriVLAudioModel.from_pretrained(audio, **kwargs) if config.model_type == "unibrivl" else None


__all__ = ["UniBriVLForAudioCaptioning", "UniBriVLPrefix", "resample_frames"]
