"""How far a converted model is from the original: outputs by name, differences, and a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch

from unibrivl.modeling import SpeechLMForCTC, SpeechLMForPreTraining, SpeechLMModel


@dataclass(frozen=True)
class Difference:
    """The largest absolute difference of one tensor from the original's."""

    name: str
    shape: tuple[int, ...]
    max_abs: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.max_abs <= self.limit  # False for NaN

    def as_dict(self) -> dict:
        return {**asdict(self), "shape": list(self.shape), "passed": self.passed}


def compare(name: str, ours: torch.Tensor, original: torch.Tensor, limit: float) -> Difference:
    if ours.shape != original.shape:
        raise ValueError(f"{name}: ours has shape {tuple(ours.shape)}, the original {tuple(original.shape)}")
    if ours.dtype == torch.bool:
        distance = (ours != original.bool()).float()
    else:
        distance = (ours.double() - original.double()).abs()
    return Difference(name, tuple(ours.shape), float(distance.max()) if distance.numel() else 0.0, limit)


def table(differences: list[Difference]) -> str:
    width = max((len(row.name) for row in differences), default=4)
    lines = [f"{'tensor':{width}}  {'shape':>18}  {'max |d|':>9}  {'limit':>7}"]
    for row in differences:
        shape = " x ".join(map(str, row.shape))
        verdict = "" if row.passed else "  FAILED"
        lines.append(f"{row.name:{width}}  {shape:>18}  {row.max_abs:9.2e}  {row.limit:7.0e}{verdict}")
    worst = max((row.max_abs for row in differences), default=0.0)
    lines.append(f"{len(differences)} tensors, worst {worst:.2e}, failed {sum(not row.passed for row in differences)}")
    return "\n".join(lines)


@torch.inference_mode()
def speech_outputs(
    model: SpeechLMModel, source: torch.Tensor, padding_mask: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """What the original's audio path gives, under the original's names (conv_out is channels first)."""
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
    """What the original's unit path gives, under the original's names."""
    output = model(input_ids=unit_ids, output_hidden_states=True)
    named = {f"state{index:02d}": states for index, states in enumerate(output.hidden_states)}
    named["last_hidden"] = output.last_hidden_state
    return named


def against_reference(
    model: SpeechLMModel | SpeechLMForPreTraining | SpeechLMForCTC, reference: Mapping[str, torch.Tensor], limit: float
) -> list[Difference]:
    """Compare with tensors saved from the original code.

    `reference` holds `source` (B, S) with an optional `padding_mask` (True where padded), or `unit_ids`, beside any of
    the outputs that `speech_outputs` and `unit_outputs` name.
    """
    tower = model if isinstance(model, SpeechLMModel) else model.speechlm
    mode, tower.config.padding_mode = tower.config.padding_mode, "fairseq"
    try:
        if "source" in reference:
            named = speech_outputs(tower, reference["source"].float(), reference.get("padding_mask"))
        elif "unit_ids" in reference:
            named = unit_outputs(tower, reference["unit_ids"].long())
        else:
            raise ValueError("the reference file has neither 'source' (samples) nor 'unit_ids': nothing to compare")
    finally:
        tower.config.padding_mode = mode
    outputs = [name for name in reference if name not in ("source", "padding_mask", "unit_ids")]
    unknown = [name for name in outputs if name not in named]
    if unknown or not outputs:
        raise ValueError(f"the reference file holds {unknown or 'no outputs'}; known are {sorted(named)}")
    return [compare(name, named[name], reference[name], limit) for name in outputs]
