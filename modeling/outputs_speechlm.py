"""What SpeechLM's models return. Shapes: B batch, T frames (or units), D hidden, C classes."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class SpeechLMModelOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor`): (B, T, D), what the Shared Transformer gives. Frames that `frame_mask`
            calls padding hold nothing of meaning, and not always the same: pool with the mask.
        frame_mask (`torch.LongTensor`): (B, T), 1 where a frame or unit is real, 0 on padding, as attention masks
            are; None when no mask was given.
        extract_features (`torch.FloatTensor`): (B, T, 512), frames of the convolutions. None for unit ids.
        projected_features (`torch.FloatTensor`): (B, T, D), the Speech Transformer's input. None for unit ids.
        speech_hidden_state (`torch.FloatTensor`): (B, T, D), the Speech Transformer's output. None for unit ids.
        shared_input (`torch.FloatTensor`): (B, T, D), the Shared Transformer's states before its first layer.
        hidden_states (`tuple[torch.FloatTensor]`, with `output_hidden_states=True`): the input of the first layer,
            then the raw output of every layer, Speech layers first: for Large without the two final LayerNorms.
        attentions (`tuple[torch.FloatTensor]`, with `output_attentions=True`): (B, H, T, T) per layer.
        unit_output (`SpeechLMModelOutput`): the same for the unit ids, when sound and units came in one call.
    """

    last_hidden_state: torch.FloatTensor | None = None
    frame_mask: torch.LongTensor | None = None
    extract_features: torch.FloatTensor | None = None
    projected_features: torch.FloatTensor | None = None
    speech_hidden_state: torch.FloatTensor | None = None
    shared_input: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    unit_output: ModelOutput | None = None


@dataclass
class SpeechLMForPreTrainingOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`): the sum of the terms below as the original weighs them. It is a sum over masked
            frames: divide by `num_masked` for a mean.
        unit_loss (`torch.FloatTensor`): cross-entropy of both heads, summed over masked frames.
        feature_penalty (`torch.FloatTensor`): mean square of the convolutional features.
        ctc_loss (`torch.FloatTensor`): CTC of the text path, summed over the batch.
        num_masked (`torch.LongTensor`): masked, real frames of the batch.
        speech_logits, shared_logits (`torch.FloatTensor`): (B, T, C), unit logits of the two heads.
        ctc_logits (`torch.FloatTensor`): (B, N + 1, letters) of the text path; the first N frames count.
        labels (`torch.LongTensor`): (B, T), the unit of each frame, the pad id on padding.
        mask_time_indices, swap_indices (`torch.BoolTensor`): (B, T), what was masked and what was swapped.
        frame_mask, last_hidden_state, hidden_states, attentions: as in `SpeechLMModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    unit_loss: torch.FloatTensor | None = None
    feature_penalty: torch.FloatTensor | None = None
    ctc_loss: torch.FloatTensor | None = None
    num_masked: torch.LongTensor | None = None
    speech_logits: torch.FloatTensor | None = None
    shared_logits: torch.FloatTensor | None = None
    ctc_logits: torch.FloatTensor | None = None
    labels: torch.LongTensor | None = None
    mask_time_indices: torch.BoolTensor | None = None
    swap_indices: torch.BoolTensor | None = None
    frame_mask: torch.LongTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
