"""What our models give, under the original codes' names: what a parity report compares."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from unibrivl.modeling import BriVLModel, SpeechLMForCTC, SpeechLMForPreTraining, SpeechLMModel
from unibrivl.modeling.modeling_brivl import BriVLTowerOutput

SPEECHLM_INPUTS = ("source", "padding_mask", "unit_ids")
BRIVL_INPUTS = ("pixel_values", "boxes", "box_mask", "input_ids", "attention_mask")


@torch.inference_mode()
def speech_outputs(
    model: SpeechLMModel, source: torch.Tensor, padding_mask: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """What SpeechLM's audio path gives (conv_out is channels first)."""
    attention_mask = None if padding_mask is None else (~padding_mask.bool()).long()
    output = model(source, attention_mask, output_hidden_states=True)
    named = {
        "conv_out": output.extract_features.transpose(1, 2),
        "projected_features": output.projected_features,
        "speech_transformer_out": output.speech_hidden_state,
        "shared_input": output.shared_input,
        "last_hidden": output.last_hidden_state,
    }
    for index, states in enumerate(output.hidden_states[1:], start=1):
        named[f"layer{index:02d}"] = states
    if output.frame_mask is not None:
        named["frame_padding_mask"] = output.frame_mask == 0
    return named


@torch.inference_mode()
def unit_outputs(model: SpeechLMModel, unit_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What SpeechLM's unit path gives."""
    output = model(input_ids=unit_ids, output_hidden_states=True)
    named = {f"state{index:02d}": states for index, states in enumerate(output.hidden_states)}
    named["last_hidden"] = output.last_hidden_state
    return named


def speechlm_outputs(
    model: SpeechLMModel | SpeechLMForPreTraining | SpeechLMForCTC, reference: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Our outputs for the inputs of a reference file.

    `reference` holds `source` (B, S) with an optional `padding_mask` (True where padded), or `unit_ids`.
    """
    tower = model if isinstance(model, SpeechLMModel) else model.speechlm
    mode, tower.config.padding_mode = tower.config.padding_mode, "fairseq"
    try:
        if "source" in reference:
            return speech_outputs(tower, reference["source"].float(), reference.get("padding_mask"))
        if "unit_ids" in reference:
            return unit_outputs(tower, reference["unit_ids"].long())
        raise ValueError("the reference file has neither 'source' (samples) nor 'unit_ids': nothing to compare")
    finally:
        tower.config.padding_mode = mode


def tower_outputs(output: BriVLTowerOutput) -> dict[str, torch.Tensor]:
    """What one of BriVL's towers gives; `embedding_raw` is the embedding before it is normalised."""
    named = {"embedding_raw": output.projection, "embedding": output.pooler_output}
    if output.regions is None:
        named["bert"] = output.backbone_output
    else:
        named |= {"cnn": output.backbone_output, "pooled": output.regions}
    for index, states in enumerate((output.hidden_states or ())[1:]):
        named[f"sa_layer{index}"] = states
    return named


@torch.inference_mode()
def brivl_outputs(model: BriVLModel, reference: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our outputs for the inputs of a reference file, as `image.NAME` and `text.NAME`.

    `reference` holds `pixel_values` (B, 3, S, S) with optional `boxes` and `box_mask`, or `input_ids` with an optional
    `attention_mask`, or both.
    """
    named: dict[str, torch.Tensor] = {}
    if "pixel_values" in reference:
        output = model.get_image_features(
            reference["pixel_values"].float(),
            reference.get("boxes"),
            reference.get("box_mask"),
            output_hidden_states=True,
        )
        named |= {f"image.{name}": tensor for name, tensor in tower_outputs(output).items()}
    if "input_ids" in reference:
        output = model.get_text_features(
            reference["input_ids"].long(), reference.get("attention_mask"), output_hidden_states=True
        )
        named |= {f"text.{name}": tensor for name, tensor in tower_outputs(output).items()}
    if not named:
        raise ValueError("the reference file has neither 'pixel_values' nor 'input_ids': nothing to compare")
    return named
