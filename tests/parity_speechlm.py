"""Every SpeechLM golden against our model: `python tests/parity_speechlm.py` prints the table, the tests assert it.

The goldens are outputs of Microsoft's code on weights drawn from the names of the tensors (golden/speechlm/
regen_weights.py). The same weights, renamed by the converter, go into our model here.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open

from unibrivl.convert.checkpoint import ConversionReport
from unibrivl.convert.outputs import speech_outputs, unit_outputs
from unibrivl.convert.parity import Difference, compare, table
from unibrivl.convert.speechlm import convert_state, infer_config
from unibrivl.modeling import SpeechLMForPreTraining

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 2e-5  # spec/speechlm.md section 10
STRIDES = {
    "conv_out": (1, 32, 8),
    **dict.fromkeys(
        ["projected_features", "speech_transformer_out", "shared_input", "single0", "single1"], (1, 8, 32)
    ),
    **dict.fromkeys(["last_hidden", "shared_out"], (1, 4, 16)),
    "ctc_logits": (1, 4, 1),
}
CASES = ["base_p_audio", "large_p_audio_2x2", "base_p_units", "large_p_units_2x2", "base_p_pretrain",
         "base_h_pretrain", "base_p_pretrain_predunit", "base_p_text_masked"]  # fmt: skip


def _load_recipe():
    spec = importlib.util.spec_from_file_location("regen_weights", GOLDEN / "speechlm" / "regen_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = _load_recipe()
shapes = json.loads((GOLDEN / "state_dicts" / "speechlm.json").read_text())["state_dicts"]
configs = json.loads((GOLDEN / "state_dicts" / "speechlm_cfg.json").read_text())
facts = json.loads((GOLDEN / "speechlm" / "speechlm_golden.json").read_text())


def original_cfg(name: str, layers: int | None = None) -> dict:
    """The `cfg` of a published checkpoint, "base-P", "base-H" or "large-P", or of its first layers."""
    cfg = json.loads(json.dumps(configs["large-P" if name.startswith("large") else "base"]))
    for part in (cfg["model"], cfg["task"]):
        if isinstance(part.get("label_rate"), dict):
            part["label_rate"] = part["label_rate"][name[-1]]
    if layers is not None:
        cfg["model"]["encoder_layers"] = cfg["model"]["text_transformer"]["encoder"]["layers"] = layers
    return cfg


def original_shapes(name: str, layers: int | None = None) -> dict[str, list[int]]:
    """Key -> shape of an official checkpoint, or of its first `layers` layers in either transformer."""
    return {
        key: shape
        for key, (shape, _) in shapes[name].items()
        if layers is None or ".layers." not in key or int(key.split(".layers.")[1].split(".")[0]) < layers
    }


def model(name: str, layers: int | None = None, attention: str = "sdpa") -> SpeechLMForPreTraining:
    """Our model with the goldens' weights."""
    ours = _build(name, layers)
    ours.set_attn_implementation(attention)
    return ours


@cache
def _build(name: str, layers: int | None) -> SpeechLMForPreTraining:
    state = recipe.state_dict(original_shapes(name, layers))
    config = infer_config(state, original_cfg(name, layers))
    config.padding_mode = "fairseq"
    report = ConversionReport("", "", "SpeechLMForPreTraining")
    with torch.device("meta"):
        ours = SpeechLMForPreTraining(config)
    ours.load_state_dict(convert_state(state, config, report), assign=True)
    return ours.eval()


def golden(case: str) -> dict[str, torch.Tensor]:
    with safe_open(GOLDEN / "speechlm" / "speechlm_golden.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.startswith(f"{case}.")]  # noqa: SIM118  (safe_open is no dict)
        return {name.removeprefix(f"{case}."): file.get_tensor(name) for name in names}


def slice_like_golden(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if name.startswith(("layer", "state")):
        strides = (1, 16, 32)
    elif name.endswith(".logits"):
        strides = (4, 16)
    else:
        strides = STRIDES.get(name, ())
    return tensor[tuple(slice(None, None, stride) for stride in strides)]


def differences(case: str, attention: str = "sdpa") -> list[Difference]:
    """All tensors of one golden case against ours."""
    name, layers = ("large-P", 2) if case.startswith("large") else ("base-H" if "base_h" in case else "base-P", None)
    pretrained, expected = model(name, layers, attention), golden(case)
    with torch.inference_mode():
        if "audio" in case:
            ours = _audio(pretrained, normalize=case.startswith("large"))
        elif "units" in case:
            ours = unit_outputs(pretrained.speechlm, expected["unit_ids"].long())
            ours["ctc_logits"] = pretrained.ctc_head(ours["last_hidden"])
            ours["ctc_padding_mask"] = expected["unit_ids"] == 1
        elif "text" in case:
            ours = _text(pretrained, expected)
        else:
            ours = _pretrain(pretrained, case, expected)
    rows = []
    for key, tensor in expected.items():
        if key in ours:
            rows.append(compare(f"{case}.{key}", slice_like_golden(key, ours[key]), tensor, TOLERANCE))
    for key, value in ours.items():  # numbers that the JSON holds: relative, 1e-6
        if value.dim() == 0:
            wanted = torch.tensor(_fact(case, key), dtype=torch.float64)
            rows.append(compare(f"{case}.{key} (relative)", value.double() / wanted, wanted / wanted, 1e-6))
    return rows


def _fact(case: str, key: str) -> float:
    found = facts[case]
    return found[key] if key in found else found["stats"].get(key) or found[key]


def _audio(pretrained, normalize: bool) -> dict[str, torch.Tensor]:
    source, padding = recipe.batch(normalize)
    tower = pretrained.speechlm
    ours = speech_outputs(tower, source, padding)
    for row, length in enumerate((60000, 41234)):
        ours[f"single{row}"] = tower(source[row : row + 1, :length]).last_hidden_state
    short = recipe.waveform(1002, 8000, 220.0)
    short = torch.nn.functional.layer_norm(short, short.shape) if normalize else short
    ours["short_full"] = tower(short[None]).last_hidden_state
    return ours


def _text(pretrained, expected) -> dict[str, torch.Tensor]:
    output = pretrained(
        input_ids=golden("base_p_units")["unit_ids"].long(), text_mask_indices=expected["mask_indices"].bool()
    )
    return {
        "shared_out": output.last_hidden_state,
        "ctc_logits": output.ctc_logits,
        "ctc_padding_mask": output.frame_mask == 0,
    }


def _pretrain(pretrained, case: str, expected) -> dict[str, torch.Tensor]:
    source, padding = recipe.batch(normalize=False)
    masks = expected if "mask_indices" in expected else golden("base_p_pretrain")
    output = pretrained(
        source,
        (~padding).long(),
        unit_labels=pretrain_labels(case),
        mask_time_indices=masks["mask_indices"].bool(),
        swap_selection=masks["selected_indices"].bool(),
        label_offset=facts[case]["label_offset"],
        use_predicted_units=case.endswith("predunit"),
    )
    real = output.frame_mask.bool()
    masked, unmasked = output.mask_time_indices & real, ~output.mask_time_indices & real
    ours = {
        "shared_out": output.last_hidden_state,
        "swap_indices": output.swap_indices,
        "shared_padding_mask": output.labels == 1,
        "features_pen": output.feature_penalty,
        "predicted_units": output.speech_logits.argmax(-1).masked_fill(~real, 1),
    }
    for head, logits in enumerate((output.speech_logits, output.shared_logits)):
        for kind, rows in (("m", masked), ("u", unmasked)):
            name = f"logit_{kind}_list.{head}"
            ours[f"{name}.logits"], ours[f"{name}.targets"] = logits[rows], output.labels[rows]
            ours[f"{name}.ce_sum"] = torch.nn.functional.cross_entropy(
                logits[rows], output.labels[rows], reduction="sum"
            )
    return ours


def pretrain_labels(case: str) -> torch.Tensor:
    vocab, lengths, width = (505, (187, 129), 189) if "base_h" in case else (369, (374, 258), 376)
    labels = torch.ones(2, width, dtype=torch.long)
    for row, length in enumerate(lengths):
        labels[row, :length] = recipe.units(3000 + row, length, vocab)
    return labels


if __name__ == "__main__":
    wanted = sys.argv[1:] or CASES
    rows = [row for case in wanted for row in differences(case)]
    print(table(rows))
    sys.exit(any(not row.passed for row in rows))
