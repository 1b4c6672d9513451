"""Every BriVL golden against our towers: `python tests/parity_brivl.py` prints the table, the tests assert it.

The goldens are outputs of BriVL's own code on weights drawn from the names of the tensors (golden/brivl/fill_rule.py).
The same weights, renamed by the converter, go into our towers here. Outputs are stored as slices; of whole tensors, of
every stage of the CNN and of every layer of self-attention the goldens hold statistics, which are compared as well.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from unibrivl.convert.brivl import convert_state, infer_config, reason_to_drop, stage_starts
from unibrivl.convert.checkpoint import load_into
from unibrivl.convert.outputs import tower_outputs
from unibrivl.convert.parity import Difference, compare, table
from unibrivl.modeling import BriVLTextModel, BriVLVisionModel

GOLDEN = Path(__file__).parent / "golden"
# spec/brivl.md section 8: the embeddings, the slices, and the slices of B7, whose features are larger
EMBEDDING_LIMIT, SLICE_LIMIT, B7_LIMIT, STATISTIC_LIMIT = 5e-5, 1e-4, 1e-3, 1e-5
CASES = ["vision_b5_380_boxes", "vision_b5_360_grid", "vision_b7_360_grid", "text_base_L80", "text_base_L32"]
SLICES = {
    "cnn": (slice(None), slice(None, None, 128), slice(None, None, 4), slice(None, None, 4)),
    "pooled": (slice(None), slice(None, None, 6), slice(None, None, 128)),
    "sa": (slice(None), slice(None, None, 6), slice(None, None, 128)),
    "text": (slice(None), slice(None, 12, 4), slice(None, None, 64)),
}


def _load_recipe():
    spec = importlib.util.spec_from_file_location("fill_rule", GOLDEN / "brivl" / "fill_rule.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = _load_recipe()
variants = json.loads((GOLDEN / "state_dicts" / "brivl.json").read_text())["variants"]


def original_shapes(name: str) -> dict[str, list[int]]:
    """Key -> shape of an official checkpoint's state dict: "brivl_b5_roberta_base" or "brivl_b7_roberta_large"."""
    return {key: shape for key, (shape, _) in variants[name]["learnable"].items()}


def original_config(name: str, image_size: int = 380):
    shapes = original_shapes(name)
    return infer_config({key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, image_size)


def original_state(name: str, prefix: str = "", gain: float = 2.0) -> dict[str, torch.Tensor]:
    """The goldens' weights under their original names; of one encoder, "imgencoder." or "textencoder.", or all."""
    return {
        key: torch.from_numpy(recipe.fill(key, shape, gain))
        for key, shape in original_shapes(name).items()
        if key.startswith(prefix)
    }


def tower(case: str, attention: str = "sdpa"):
    """Our tower with the goldens' weights."""
    ours = _build("text" if case.startswith("text") else case.split("_")[1])
    if case.startswith("text"):
        ours.set_attn_implementation(attention)
    else:  # transformers would ask the CNN too, which has no attention
        ours.config._attn_implementation = attention
    return ours


@cache
def _build(which: str):
    name = "brivl_b7_roberta_large" if which == "b7" else "brivl_b5_roberta_base"
    config = original_config(name)
    if which == "text":
        architecture, config, prefix, side = BriVLTextModel, config.text_config, "textencoder.", "text_model."
    else:
        architecture, config, prefix, side = BriVLVisionModel, config.vision_config, "imgencoder.", "vision_model."
    state = original_state(name, prefix, 1.85 if which == "b7" else 2.0)
    converted = convert_state({key: tensor for key, tensor in state.items() if reason_to_drop(key) is None})
    return load_into(architecture, config, {key.removeprefix(side): tensor for key, tensor in converted.items()})


def golden(case: str) -> tuple[dict[str, torch.Tensor], dict]:
    """Stored tensors of a case, and its facts."""
    file, _, run = case.partition("_L")
    tensors, facts = (
        load_file(GOLDEN / "brivl" / f"{file}.safetensors"),
        json.loads((GOLDEN / "brivl" / f"{file}.json").read_text()),
    )
    if not run:
        return tensors, facts
    prefix = f"L{run}."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, facts["runs"][f"L{run}"]


def differences(case: str, attention: str = "sdpa") -> list[Difference]:
    """All stored tensors and statistics of one case against ours."""
    ours, stored, facts, mask = outputs(case, attention)
    limit = B7_LIMIT if "b7" in case else SLICE_LIMIT
    rows = []
    for name, original in stored.items():
        kind = name.removesuffix("_slice")
        if name == "embedding_raw":
            for way in (name, f"{name}, rearranged"):
                if way in ours:
                    rows.append(compare(f"{case}.{way}", ours[way], original, EMBEDDING_LIMIT))
        elif name.endswith("_slice"):
            found = ours[kind][SLICES["text" if case.startswith("text") else kind]]
            if kind == "sa" and not case.startswith("text"):  # what stands on masked regions has no meaning
                real = mask[:, ::6].bool()
                found, original = found[real], original[real]
            rows.append(compare(f"{case}.{name}", found, original, limit))
    for name, wanted in facts["stats"].items():
        found = ours[name.removesuffix("_valid")]
        if name.endswith("_valid"):
            found = found[mask.bool()]
        rows.append(compare_statistics(f"{case}.{name} (statistics)", found, wanted))
    return rows


@cache
def outputs(case: str, attention: str = "sdpa"):
    """Our outputs by name, the stored tensors, the facts, and the mask of real regions or tokens."""
    model = tower(case, attention)
    stored, facts = golden(case)
    stages: dict[str, torch.Tensor] = {}
    if case.startswith("text"):
        mask = (torch.arange(facts["max_len"]) < torch.tensor(facts["lens"])[:, None]).long()
        inputs, handles = (stored["input_ids"], mask), []
    else:
        mask = stored["mask"]
        inputs, handles = (picture_batch(facts), stored["boxes"], mask), watch_stages(model, stages)
    try:
        with torch.inference_mode():
            ours = tower_outputs(model(*inputs, output_hidden_states=True)) | stages
    finally:
        for handle in handles:
            handle.remove()
    ours["sa"] = ours["sa_layer3"]
    if handles:  # a CNN that is watched runs as transformers wrote it: once more, as everybody runs it
        with torch.inference_mode():
            ours["embedding_raw, rearranged"] = tower_outputs(model(*inputs))["embedding_raw"]
    return ours, stored, facts, mask


def picture_batch(facts: dict) -> torch.Tensor:
    seeds = zip(facts["image_seeds"], facts["image_g"], strict=True)
    return torch.stack([torch.from_numpy(recipe.image(seed, facts["image_size"], g)) for seed, g in seeds])


def watch_stages(model, seen: dict[str, torch.Tensor]) -> list:
    """Hooks that put into `seen` the stem before its activation and the end of every stage of the CNN."""

    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output)

    blocks = model.backbone.encoder.blocks
    name = "brivl_b5_roberta_base" if len(blocks) == 39 else "brivl_b7_roberta_large"
    ends = stage_starts(original_shapes(name))[1:]
    hooks = {"stem_bn": model.backbone.embeddings.batchnorm}
    hooks |= {f"stage{stage}": blocks[end - 1] for stage, end in enumerate(ends)}
    return [module.register_forward_hook(keep(name)) for name, module in hooks.items()]


def compare_statistics(name: str, ours: torch.Tensor, wanted: dict) -> Difference:
    """The largest difference of mean, deviation, extremes and norm, each as a part of what it is measured in."""
    if list(ours.shape) != wanted["shape"]:
        raise ValueError(f"{name}: ours has shape {tuple(ours.shape)}, the original {wanted['shape']}")
    ours, peak = ours.double(), max(abs(wanted["min"]), abs(wanted["max"]))
    found = {"mean": ours.mean(), "std": ours.std(), "min": ours.min(), "max": ours.max(), "l2": ours.norm()}
    unit = {"mean": wanted["std"], "std": wanted["std"], "min": peak, "max": peak, "l2": wanted["l2"]}
    error = max(abs(float(value) - wanted[key]) / unit[key] for key, value in found.items())
    return Difference(name, tuple(ours.shape), error, STATISTIC_LIMIT)


if __name__ == "__main__":
    rows = [row for case in sys.argv[1:] or CASES for row in differences(case)]
    print(table(rows))
    sys.exit(any(not row.passed for row in rows))
