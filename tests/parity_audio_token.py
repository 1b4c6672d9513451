"""AudioToken's embedder against its own code's outputs: `python tests/parity_audio_token.py` prints the table.

The goldens are outputs of the original embedder, dropout off, on weights drawn from the names of the tensors. The same
weights, renamed by the converter, go into our attentive adapter here.
"""

from __future__ import annotations

import json
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch

from unibrivl.convert.audio_token import TOLERANCES, convert_state, infer_config
from unibrivl.convert.checkpoint import load_into
from unibrivl.convert.outputs import audio_token_outputs
from unibrivl.convert.parity import Difference, compare, table
from unibrivl.modeling import AudioTokenAdapter

GOLDEN = Path(__file__).parent / "golden"
CASES = ["768", "1024"]
SLICES = {"unary": np.s_[:, ::8], "self": np.s_[:, ::8], "hidden": np.s_[:, ::31, ::32]}


def drawn(tag: str, shape) -> np.ndarray:
    chance = np.random.Generator(np.random.PCG64(zlib.crc32(tag.encode())))
    return chance.standard_normal(tuple(shape)).astype(np.float32)


def features() -> torch.Tensor:
    return torch.from_numpy(drawn("audiotoken.feats", (2, 248, 2304)))


def original_state(case: str) -> dict[str, torch.Tensor]:
    """The goldens' weights under their original names."""
    shapes = json.loads((GOLDEN / "state_dicts" / "audiotoken.json").read_text())[f"FGAEmbedder(2304,{case})"]
    return {
        key: torch.from_numpy(drawn(key, shape) * np.float32(0.1 if key.startswith("fga.") else 0.02))
        for key, (shape, _) in shapes.items()
    }


@cache
def adapter(case: str) -> AudioTokenAdapter:
    state = original_state(case)
    return load_into(AudioTokenAdapter, infer_config(state), convert_state(state))


@cache
def differences(case: str) -> list[Difference]:
    stored = np.load(GOLDEN / "cavmae" / "audiotoken_golden.npz")
    ours = audio_token_outputs(adapter(case), {"features": features()})
    rows = []
    for key in stored.files:
        if key.startswith(f"{case}."):
            name = key.partition(".")[2].removesuffix("_slice")
            found = ours[name][SLICES.get(name, np.s_[:])]
            limit = TOLERANCES.get(name, TOLERANCES[""])
            rows.append(compare(f"audiotoken {key}", found, torch.from_numpy(stored[key]), limit))
    return rows


if __name__ == "__main__":
    found = [row for case in CASES for row in differences(case)]
    print(table(found))
    sys.exit(any(not row.passed for row in found))
