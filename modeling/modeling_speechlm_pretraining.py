"""SpeechLM's pre-training: both unit heads, the CTC head of the text path, and the original's losses.

Sound: spans of frames are masked, some of the others are swapped for the embedding of their unit on the way from the
Speech to the Shared Transformer, and two heads name the unit of every masked frame. Text: spans of units are masked and
a CTC head spells them.

Shapes: B batch, T frames, U units, N labels or letters, D hidden, C unit classes, P width of the cosine space.
"""

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForPreTraining
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_speechlm import SpeechLMConfig
from .front_end_speechlm import frame_mask, num_frames
from .masking_speechlm import align_labels, sample_spans
from .modeling_speechlm import SpeechLMCTCHead, SpeechLMModel, SpeechLMPreTrainedModel, ctc_loss
from .outputs_speechlm import SpeechLMForPreTrainingOutput


class SpeechLMUnitHead(nn.Module):
    """Cosine of projected frames with label embeddings, over a temperature; head 0: Speech, head 1: Shared output."""

    def __init__(self, config):
        super().__init__()
        self.temperature = config.logit_temp
        self.projections = nn.ModuleList([nn.Linear(config.hidden_size, config.unit_proj_size) for _ in range(2)])
        self.label_embeddings = nn.ParameterList(
            [nn.Parameter(torch.empty(config.unit_vocab_size, config.unit_proj_size)) for _ in range(2)]
        )

    def forward(self, hidden_states_BTD, head: int):
        projected = self.projections[head](hidden_states_BTD).float()
        labels_CE = self.label_embeddings[head].float()
        cosine_BTC = nn.functional.normalize(projected, dim=-1) @ nn.functional.normalize(labels_CE, dim=-1).t()
        return cosine_BTC / self.temperature


class SpeechLMForPreTraining(SpeechLMPreTrainedModel):
    """SpeechLM's own task: name the unit of masked frames, twice, and the letters of masked text."""

    def __init__(self, config: SpeechLMConfig):
        super().__init__(config)
        self.speechlm = SpeechLMModel(config)
        self.unit_head = SpeechLMUnitHead(config)
        self.ctc_head = SpeechLMCTCHead(config)
        self.post_init()

    def freeze_feature_encoder(self):
        self.speechlm.freeze_feature_encoder()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        unit_labels: torch.Tensor | None = None,
        letter_labels: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        text_mask_indices: torch.Tensor | None = None,
        swap_selection: torch.Tensor | None = None,
        label_offset: int | None = None,
        use_predicted_units: bool = False,
        **kwargs,
    ) -> SpeechLMForPreTrainingOutput:
        """Sound with `unit_labels`, units with `letter_labels`, or both kinds in one call.

        In training, masks and the label offset that are not given are drawn; `torch.manual_seed` decides them. In
        evaluation nothing is drawn: without `mask_time_indices` no frame is masked and the unit loss is zero.

        Args:
            unit_labels (`torch.LongTensor`, *optional*): (B, N), unit ids at `label_rate`, padded with the pad id.
            letter_labels (`torch.LongTensor`, *optional*): (B, M), letters of `input_ids`, padded with -100.
            mask_time_indices (`torch.BoolTensor`, *optional*): (B, T), frames of the sound to mask.
            text_mask_indices (`torch.BoolTensor`, *optional*): (B, U), units of `input_ids` to mask.
            swap_selection (`torch.BoolTensor`, *optional*): (B, T), frames to swap with their unit if not masked.
            label_offset (`int`, *optional*): which of the labels of a frame counts; 0 in evaluation.
            use_predicted_units (`bool`): swap in what head 0 predicts instead of the labels, for unlabelled sound.
        """
        if input_values is None and input_ids is None:
            raise ValueError("pass input_values with unit_labels, input_ids with letter_labels, or both")
        output = SpeechLMForPreTrainingOutput()
        if input_values is not None:
            self._speech_path(
                output, input_values, attention_mask, unit_labels, mask_time_indices, swap_selection, label_offset,
                use_predicted_units, **kwargs,
            )  # fmt: skip
        if input_ids is not None:
            self._text_path(output, input_ids, letter_labels, text_mask_indices, **kwargs)
        return output

    def _speech_path(
        self, output, input_values, attention_mask, unit_labels, mask_BT, selected_BT, offset, use_predicted, **kwargs
    ):
        config = self.config
        if unit_labels is None:
            raise ValueError("input_values needs unit_labels: the unit ids of the sound at label_rate")
        labels_per_frame = config.label_rate * config.frame_hop / config.sampling_rate
        if offset is None:
            offset = int(torch.randint(max(1, int(labels_per_frame)), ())) if self.training else 0
        total_frames = num_frames(input_values.shape[1], config)
        labels_BT = align_labels(unit_labels, total_frames, labels_per_frame, offset)
        frames = labels_BT.shape[1]
        if self.training and mask_BT is None:
            real_BT = None if attention_mask is None else frame_mask(attention_mask, frames, config)
            mask_BT = self._draw_spans(labels_BT, config.mask_time_prob, config.mask_time_length, real_BT)
        if self.training and selected_BT is None and config.swap_prob > 0:
            real_BT = labels_BT != config.pad_token_id
            selected_BT = self._draw_spans(labels_BT, config.swap_prob, config.swap_length, real_BT)

        speech = self.speechlm.encode_speech(input_values, attention_mask, mask_BT, frames, **kwargs)
        speech_logits = self.unit_head(speech.speech_hidden_state, 0)
        units_BT = labels_BT
        if use_predicted:
            units_BT = speech_logits.argmax(-1)
            if speech.frame_mask is not None:
                units_BT = units_BT.masked_fill(~speech.frame_mask, config.pad_token_id)
        shared_inputs_BTD = speech.speech_hidden_state
        if selected_BT is not None:
            output.swap_indices = selected_BT if mask_BT is None else selected_BT & ~mask_BT
            embeds_BTD = self.speechlm.embed_units(units_BT).to(shared_inputs_BTD)
            shared_inputs_BTD = torch.where(output.swap_indices[..., None], embeds_BTD, shared_inputs_BTD)
        real_BT = labels_BT != config.pad_token_id
        output.last_hidden_state = self.speechlm.shared_encoder(shared_inputs_BTD, real_BT, **kwargs)[0]
        output.speech_logits, output.shared_logits = speech_logits, self.unit_head(output.last_hidden_state, 1)

        valid_BT = torch.ones_like(real_BT) if speech.frame_mask is None else speech.frame_mask
        scored_BT = torch.zeros_like(valid_BT) if mask_BT is None else mask_BT & valid_BT
        output.labels, output.mask_time_indices, output.frame_mask = labels_BT, mask_BT, speech.frame_mask
        output.num_masked = scored_BT.sum()
        output.unit_loss = sum(
            nn.functional.cross_entropy(logits[scored_BT], labels_BT[scored_BT], reduction="sum")
            for logits in (output.speech_logits, output.shared_logits)
        )
        output.feature_penalty = self._feature_penalty(speech.extract_features.float(), valid_BT)
        output.loss = output.unit_loss + config.feature_penalty_weight * output.feature_penalty * output.num_masked

    def _feature_penalty(self, extracted_BTC, valid_BT):
        if self.config.padding_mode == "exact":
            extracted_BTC = extracted_BTC[valid_BT]
        return extracted_BTC.pow(2).mean()

    def _text_path(self, output, input_ids, letter_labels, mask_BU, **kwargs):
        config = self.config
        if self.training and mask_BU is None:
            real_BU = input_ids != config.pad_token_id
            mask_BU = self._draw_spans(input_ids, config.mask_time_prob, config.mask_time_length, real_BU)
        units = self.speechlm(input_ids=input_ids, mask_time_indices=mask_BU, **kwargs)
        output.ctc_logits = self.ctc_head(units.last_hidden_state)
        if output.last_hidden_state is None:
            output.last_hidden_state, output.frame_mask = units.last_hidden_state, units.frame_mask
            output.hidden_states, output.attentions = units.hidden_states, units.attentions
        if letter_labels is None:
            return
        output.ctc_loss = ctc_loss(output.ctc_logits, units.frame_mask.sum(1), letter_labels, config)
        weighted = config.text_ctc_weight * output.ctc_loss
        if output.loss is None:
            output.loss = weighted
        else:
            output.loss = output.loss + weighted * output.num_masked / units.frame_mask.sum()

    def _draw_spans(self, like_BT, prob, length, real_BT):
        rng = np.random.RandomState(int(torch.randint(2**31 - 1, ())))
        valid = None if real_BT is None else real_BT.sum(1).tolist()
        return torch.from_numpy(sample_spans(tuple(like_BT.shape), prob, length, rng, valid)).to(like_BT.device)


AutoModelForPreTraining.register(SpeechLMConfig, SpeechLMForPreTraining, exist_ok=True)

__all__ = ["SpeechLMForPreTraining", "SpeechLMUnitHead"]
