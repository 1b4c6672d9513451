"""Every CAV-MAE golden against our models: `python tests/parity_cavmae.py` prints the table, the tests assert it.

The goldens are outputs of CAV-MAE's own code on weights drawn from the names of the tensors. The same weights, renamed
by the converter, go into our models here. Outputs are stored as slices; of whole arrays the goldens hold statistics,
which are compared as well. "full" is the released size, "tiny" all of it at 48 numbers a token.
"""

from __future__ import annotations

import ast
import json
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch

from unibrivl.convert.cavmae import convert_state, infer_config, kind_of, unused_norms
from unibrivl.convert.checkpoint import load_into
from unibrivl.convert.outputs import cavmae_outputs, pretraining_outputs
from unibrivl.convert.parity import Difference, compare, table
from unibrivl.modeling import CAVMAEAudioModel, CAVMAEModel
from unibrivl.modeling.layers_cavmae import sincos_positions
from unibrivl.modeling.modeling_cavmae_pretraining import contrastive_loss, patches

GOLDEN = Path(__file__).parent / "golden"
# spec/aai.md section G: features, predictions and logits; losses; and whole arrays by their statistics
LIMIT, LOSS_LIMIT, STATISTIC_LIMIT = 8e-6, 1e-6, 1e-5
LAYOUTS = json.loads((GOLDEN / "state_dicts" / "cavmae.json").read_text())
FACTS = json.loads((GOLDEN / "cavmae" / "cavmae_golden.json").read_text())
GRIDS = {"full": ((8, 64), (14, 14)), "tiny": ((8, 4), (2, 2))}
NAMES = {  # case -> the layouts of the pre-trained and of the fine-tuned original
    "full": ("CAVMAE", "CAVMAEFT(label_dim=527)"),
    "tiny": ("CAVMAE_tiny11", "CAVMAEFT_tiny11"),
}
TINY = {"num_attention_heads": 4, "decoder_num_attention_heads": 4}  # in no file
CASES = ("small", "tiny", "full")
LOSSES = {"loss": "loss", "loss_mae": "loss_mae", "loss_mae_a": "loss_mae_a", "loss_mae_v": "loss_mae_v",
          "loss_c": "loss_c_weighted"}  # fmt: skip


def rng(tag: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(tag.encode())))


def drawn(tag: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng(tag).standard_normal(shape).astype(np.float32))


def uniform(tag: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng(tag).random(shape).astype(np.float32))


def fill(key: str, shape: list[int], grids, gain: float) -> torch.Tensor:
    """The goldens' recipe for one tensor."""
    if "pos_embed" in key:
        return sincos_positions(grids[key.endswith("_v")], shape[-1])
    noise = drawn(key, *shape) * 0.02
    parts = key.split(".")
    is_norm = any(part.startswith("norm") or part.endswith("_norm") for part in parts) or key.startswith("mlp_head.0.")
    if is_norm:
        return noise + 1 if parts[-1] == "weight" else noise
    return noise * gain


@cache
def original_state(name: str) -> dict[str, torch.Tensor]:
    """The goldens' weights of one layout under their original names. Layouts share what has the same name."""
    is_tiny = "tiny" in name
    grids, gain = GRIDS["tiny" if is_tiny else "full"], 5.0 if is_tiny else 1.0
    shared = original_state("CAVMAE") if not is_tiny and name != "CAVMAE" else {}
    return {
        key: shared[key] if key in shared else fill(key, shape, grids, gain) for key, shape in LAYOUTS[name].items()
    }


@cache
def build(name: str, attention: str = "sdpa", keep_unused_norms: bool = False):
    """Our model of a layout, with the goldens' weights."""
    state = original_state(name)
    config = infer_config(state, keep_unused_norms=keep_unused_norms, **(heads(name)))
    config._attn_implementation = attention
    architecture = kind_of(state)[0]
    dropped = () if keep_unused_norms else unused_norms(state)
    prefix = "" if architecture in (CAVMAEModel, CAVMAEAudioModel) else "cavmae."
    kept = {key: tensor for key, tensor in state.items() if key not in dropped}
    return load_into(architecture, config, convert_state(kept, prefix))


def heads(name: str) -> dict[str, int]:
    if "tiny" not in name:
        return {}
    return TINY if "FT" not in name else {"num_attention_heads": 4}


@cache
def stored() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "cavmae" / "cavmae_golden.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def inputs(case: str) -> dict[str, torch.Tensor]:
    if case == "full":
        return {
            "input_values": drawn("cavmae.audio", 2, 1024, 128),
            "pixel_values": drawn("cavmae.image", 2, 3, 224, 224),
            "audio_noise": uniform("cavmae.noise_a", 2, 512),
            "image_noise": uniform("cavmae.noise_v", 2, 196),
        }
    return {
        "input_values": drawn("tiny.audio", 3, 64, 128),
        "pixel_values": drawn("tiny.image", 3, 3, 32, 32),
        "audio_noise": uniform("tiny.noise_a", 3, 32),
        "image_noise": uniform("tiny.noise_v", 3, 4),
    }


def rows_of(name: str, ours: torch.Tensor) -> list[Difference]:
    """What is stored of one array, and its statistics."""
    facts = FACTS[name]
    if list(ours.shape) != facts["shape"]:
        raise ValueError(f"{name}: ours has shape {tuple(ours.shape)}, the original {facts['shape']}")
    rows = [compare(name, ours[slices(facts["stored"])], stored()[name], LIMIT)]
    wide = ours.double()
    found = {"mean": wide.mean(), "std": wide.std(), "absmean": wide.abs().mean(), "l2": wide.norm()}
    unit = {"mean": facts["std"], "std": facts["std"], "absmean": facts["absmean"], "l2": facts["l2"]}
    error = max(abs(float(value) - facts[key]) / unit[key] for key, value in found.items())
    return [*rows, Difference(f"{name} (statistics)", tuple(ours.shape), error, STATISTIC_LIMIT)]


def slices(text: str) -> tuple[slice, ...]:
    """ "(slice(None, None, 3), ...)" as the slices that it means; "None" is the whole."""
    if text == "None":
        return (slice(None),)
    calls = ast.parse(text, mode="eval").body.elts
    return tuple(slice(*(ast.literal_eval(argument) for argument in call.args)) for call in calls)


def number(name: str, ours, wanted: float, limit: float = LOSS_LIMIT) -> Difference:
    return Difference(name, (), abs(float(ours) - wanted), limit)


def small_rows() -> list[Difference]:
    """Positions, patches and the contrastive loss by themselves."""
    rows = []
    for side, grid in zip("av", GRIDS["full"], strict=True):
        rows += rows_of(f"pos.pos_embed_{side}", sincos_positions(grid, 768)[0])
        rows += rows_of(f"pos.decoder_pos_embed_{side}", sincos_positions(grid, 512)[0])
    given = inputs("full")
    audio = patches(given["input_values"][:1].transpose(1, 2)[:, None], 16)[0, ::64, ::16]
    image = patches(given["pixel_values"][:1], 16)[0, ::28, ::48]
    rows += [compare("patchify.audio", audio, stored()["patchify.audio"], 0.0)]
    rows += [compare("patchify.image", image, stored()["patchify.image"], 0.0)]
    sounds = drawn("contrastive.a", 8, 768)
    pictures = drawn("contrastive.v", 8, 768) + np.float32(0.1) * sounds
    for both in (False, True):
        name, (loss, hits) = f"contrastive.bidirect={both}", contrastive_loss(sounds, pictures, 0.05, both)
        rows += [number(f"{name}.nce", loss, FACTS[name]["nce"]), number(f"{name}.acc", hits, FACTS[name]["c_acc"])]
    return rows


def differences(case: str, attention: str = "sdpa") -> list[Difference]:
    """All stored outputs, statistics and losses of a case against ours."""
    if case == "small":
        return small_rows()
    pretrained, fine_tuned = NAMES[case]
    front, given = ("cavmae", "tiny11")[case == "tiny"], inputs(case)
    ours = cavmae_outputs(build(pretrained, attention), given)
    rows = [row for side in "av" for row in rows_of(f"{front}.feat_{side}", ours[f"feat_{side}"])]
    rows += rows_of(f"{front}.enc.x", ours["enc.x"])
    if case == "tiny":
        rows += rows_of("tiny11.enc.ca", ours["enc.ca"]) + rows_of("tiny11.enc.cv", ours["enc.cv"])
        rows += rows_of("tiny11.pred_a", ours["pred_a"]) + rows_of("tiny11.pred_v", ours["pred_v"])
        rows += loss_rows("tiny11.mae", ours)
    else:
        for side in "av":
            rows += rows_of(f"cavmae.pool_{side}", ours[f"pool_{side}"])
            rows += rows_of(f"cavmae.enc.c{side}_pool", ours[f"enc.c{side}_pool"])
            rows += rows_of(f"cavmae.dec.pred_{side}", ours[f"pred_{side}"])
            bits = np.unpackbits(stored()[f"cavmae.mask_{side}"].numpy(), axis=1)[:, : ours[f"mask_{side}"].shape[1]]
            rows.append(compare(f"cavmae.mask_{side}", ours[f"mask_{side}"], torch.from_numpy(bits).float(), 0.0))
        rows += loss_rows("cavmae.mae.norm_pix=True", ours)
        rows += loss_rows("cavmae.mae.norm_pix=False", raw_targets(pretrained, attention, given))
    ours = cavmae_outputs(build(fine_tuned, attention), given)
    back = "tiny11" if case == "tiny" else "ft"
    for name in [name for name in FACTS if name.startswith(f"{back}.logits.")]:
        rows += rows_of(name, ours[name.removeprefix(f"{back}.")])
    if case == "full":
        rows += [row for side in "av" for row in rows_of(f"ft.pool_{side}", ours[f"pool_{side}"])]
        rows += audio_rows(attention, given, ours)
    return rows


def raw_targets(name: str, attention: str, given) -> dict[str, torch.Tensor]:
    model = build(name, attention)
    model.config.norm_pix_loss = False
    try:
        return pretraining_outputs(model, *given.values())
    finally:
        model.config.norm_pix_loss = True


def audio_rows(attention: str, given, both) -> list[Difference]:
    """The class of sound alone gives what the class of both gives for the sound."""
    alone = cavmae_outputs(build("CAVMAEFTAudio(label_dim=527)", attention), {"input_values": given["input_values"]})
    rows = [compare("ft.feat_a, sound alone", alone["feat_a"], both["feat_a"], 1e-5)]
    return [*rows, *rows_of("ft.logits.audioonly", alone["logits.audioonly"])]


def loss_rows(name: str, ours) -> list[Difference]:
    rows = [number(f"{name}.{theirs}", ours[key], FACTS[name][theirs]) for key, theirs in LOSSES.items()]
    return [*rows, number(f"{name}.c_acc", ours["c_acc"], FACTS[name]["c_acc"])]


if __name__ == "__main__":
    found = [row for case in sys.argv[1:] or CASES for row in differences(case)]
    print(table(found))
    sys.exit(any(not row.passed for row in found))
