"""SpeechLM's pre-training: both unit heads, the CTC head of the text path, and the original's losses.

Sound: spans of frames are masked, some of the others are swapped for the embedding of their unit on the way from the
Speech to the Shared Transformer, and two heads name the unit of every masked frame. Text: spans of units are masked
and a CTC head spells them.

Shapes: B batch, T frames, U units, N labels or letters, D hidden, C unit classes, P width of the cosine space.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

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

    @can_return_tuple
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
        **kwargs: Unpack[TransformersKwargs],
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
        speech = text = {}
        if input_values is not None:
            speech = self._speech_path(
                input_values, attention_mask, unit_labels, mask_time_indices, swap_selection, label_offset,
                use_predicted_units, **kwargs,
            )  # fmt: skip
        if input_ids is not None:
            text = self._text_path(input_ids, letter_labels, text_mask_indices, **kwargs)
        loss = speech.get("loss")
        if "ctc_loss" in text:
            text_loss = self.config.text_ctc_weight * text["ctc_loss"]
            if speech:  # in the units of the speech loss: per masked frame instead of per unit
                text_loss = text_loss * speech["num_masked"] / text["frame_mask"].sum()
            loss = text_loss if loss is None else loss + text_loss
        return SpeechLMForPreTrainingOutput(**{**text, **speech, "loss": loss})

    def _speech_path(
        self, input_values, attention_mask, unit_labels, mask_BT, selected_BT, offset, use_predicted, **kwargs
    ) -> dict[str, Any]:
        config = self.config
        if unit_labels is None:
            raise ValueError("input_values needs unit_labels: the unit ids of the sound at label_rate")
        labels_per_frame = config.label_rate * config.frame_hop / config.sampling_rate
        if offset is None:
            offset = int(torch.randint(max(1, int(labels_per_frame)), ())) if self.training else 0
        labels_BT = align_labels(unit_labels, num_frames(input_values.shape[1], config), labels_per_frame, offset)
        labelled_BT = labels_BT != config.pad_token_id
        valid_BT = torch.ones_like(labelled_BT)
        if attention_mask is not None:
            valid_BT = frame_mask(attention_mask, labels_BT.shape[1], config)
        if config.padding_mode == "exact":  # the original scores frames whose labels have ended, with the pad id
            valid_BT = valid_BT & labelled_BT
        if self.training and mask_BT is None:
            mask_BT = self._draw_spans(valid_BT, config.mask_time_prob, config.mask_time_length)
        if self.training and selected_BT is None and config.swap_prob > 0:
            selected_BT = self._draw_spans(labelled_BT, config.swap_prob, config.swap_length)
        hidden_BT = torch.zeros_like(valid_BT) if mask_BT is None else mask_BT
        swapped_BT = torch.zeros_like(valid_BT) if selected_BT is None else selected_BT & ~hidden_BT

        def predict_units(speech_BTD):
            return self.unit_head(speech_BTD, 0).argmax(-1).masked_fill(~valid_BT, config.pad_token_id)

        states = self.speechlm(
            input_values,
            attention_mask,
            labels_BT,
            mask_time_indices=mask_BT,
            swap_indices=swapped_BT,
            predict_units=predict_units if use_predicted else None,
            return_dict=True,
            **kwargs,
        )
        logits = self.unit_head(states.speech_hidden_state, 0), self.unit_head(states.last_hidden_state, 1)
        scored_BT = hidden_BT & valid_BT
        num_masked = scored_BT.sum()
        unit_loss = sum(
            nn.functional.cross_entropy(head_BTC[scored_BT], labels_BT[scored_BT], reduction="sum")
            for head_BTC in logits
        )
        extracted = states.extract_features.float()
        feature_penalty = (extracted[valid_BT] if config.padding_mode == "exact" else extracted).pow(2).mean()
        return {
            "loss": unit_loss + config.feature_penalty_weight * feature_penalty * num_masked,
            "unit_loss": unit_loss,
            "feature_penalty": feature_penalty,
            "num_masked": num_masked,
            "speech_logits": logits[0],
            "shared_logits": logits[1],
            "labels": labels_BT,
            "mask_time_indices": mask_BT,
            "swap_indices": swapped_BT,
            "frame_mask": valid_BT.long(),
            "last_hidden_state": states.last_hidden_state,
            "hidden_states": states.hidden_states,
            "attentions": states.attentions,
        }

    def _text_path(self, input_ids, letter_labels, mask_BU, **kwargs) -> dict[str, Any]:
        config = self.config
        if self.training and mask_BU is None:
            mask_BU = self._draw_spans(
                input_ids != config.pad_token_id, config.mask_time_prob, config.mask_time_length
            )
        units = self.speechlm(input_ids=input_ids, mask_time_indices=mask_BU, return_dict=True, **kwargs)
        logits = self.ctc_head(units.last_hidden_state)
        found = {
            "ctc_logits": logits,
            "frame_mask": units.frame_mask,
            "last_hidden_state": units.last_hidden_state,
            "hidden_states": units.hidden_states,
            "attentions": units.attentions,
        }
        if letter_labels is not None:
            found["ctc_loss"] = ctc_loss(logits, units.frame_mask.sum(1), letter_labels, config)
        return found

    @staticmethod
    def _draw_spans(valid_BT, prob, length):
        rng = np.random.RandomState(int(torch.randint(2**31 - 1, ())))
        mask = sample_spans(tuple(valid_BT.shape), prob, length, rng, valid_BT.sum(1).tolist())
        return torch.from_numpy(mask).to(valid_BT.device)


__all__ = ["SpeechLMForPreTraining", "SpeechLMUnitHead"]
