"""Attention checks: a real photograph of what sounds against grey noise: whoever looks can tell them apart."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image

from unibrivl.evaluation.study.pairing import Duel
from unibrivl.evaluation.study.pairs import PHOTO, Pair

SMALL = 32  # squares of noise a side


def checks(photos: list[Pair], count: int, rng: random.Random) -> list[Duel]:
    if count > len(photos):
        raise ValueError(
            f"{count} attention checks need as many photographs, and the table has {len(photos)}: add rows of the "
            f"system {PHOTO!r}, each a sound and a real photograph of what is heard, or ask for fewer with --checks; "
            "with --checks 0 nobody can be told apart who answers without looking"
        )
    return [
        Duel(one.sound, one.image, "", PHOTO, "", one.label, "noise", check=True) for one in rng.sample(photos, count)
    ]


def grey_noise(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Grey squares of any brightness; large ones, since fine noise is a plain grey on a small screen."""
    squares = np.random.default_rng(rng.getrandbits(64)).integers(0, 256, (SMALL, SMALL), dtype=np.uint8)
    return Image.fromarray(squares).resize(size, Image.Resampling.NEAREST).convert("RGB")
