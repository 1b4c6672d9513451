"""Loudness: how vectors follow it, and, of a model that draws, pictures.

A sound is heard at six gains, in files of 32-bit floats, so that nothing is clipped or made even again.
`cosine_..._dB` is to the vector at 0 dB; `most_moved` is the largest distance over the gains, and near 0 a front end
evens loudness out, which leaves nothing to measure. Of a model that draws, `picture_..._dB` is the same between the
judge's features of pictures that were drawn with the same chance. Where the judge reads texts and a class is in
`CONCEPTS`, `rho` is Spearman's correlation of the gain with how much nearer a picture is to the larger of two things
than to the smaller.

Shapes: N sounds, G gains, E numbers of a vector, D features.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unibrivl import data as datasets
from unibrivl.audio import load_audio
from unibrivl.data import Listing
from unibrivl.evaluation.benchmarks.robustness import RATE_HZ, heard, louder
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.judges import Seen, TextJudge, units
from unibrivl.evaluation.pictures import Pictures, judge_of
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import bootstrap, spearman

TITLE, PROTOCOL = "Loudness", "volume-v1"
NEEDS = ("audio",)
GAINS_DB = (-20, -10, -6, 0, 6, 12)
PLAIN = GAINS_DB.index(0)
# class -> what a loud and what a quiet one should look like; version volume-v1
CONCEPTS = {
    "waterfall": ("a large waterfall", "a small stream"),
    "water flowing": ("a large waterfall", "a small stream"),
    "sea waves": ("huge waves in a storm", "a calm sea"),
    "rain": ("a downpour", "a drizzle"),
    "wind": ("a storm", "a breeze"),
    "crackling fire": ("a large fire", "a small flame"),
    "fireworks": ("a sky full of fireworks", "a single firework far away"),
    "dog": ("a large dog close up", "a small dog far away"),
    "thunderstorm": ("a violent thunderstorm", "grey clouds"),
    "engine": ("a huge engine", "a small engine"),
}


def load(folder: str | os.PathLike) -> Listing:
    return datasets.load(folder).filter(lambda one: bool(one.audio))


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    clips = [load_audio(one.audio, rate_hz=RATE_HZ).samples for one in listing]
    draws = settings.judge is not None and vectors.can("generate")
    with tempfile.TemporaryDirectory(prefix="unibrivl-volume-") as folder:
        rows, pictures = [], []
        for gain in GAINS_DB:
            below = Path(folder) / f"{gain:+d}"
            below.mkdir()
            rows.append(heard(vectors, clips, partial(louder, gain_db=gain), f"{gain:+d} dB", below, settings))
            if draws:
                paths = [str(below / f"{number}.wav") for number in range(len(clips))]
                names = [f"{one.id} {gain:+d} dB" for one in listing]
                pictures.append(Pictures(vectors).of(paths, names, [settings.seed] * len(names)))
    cosines_GN = np.einsum("gne,ne->gn", np.stack(rows), rows[PLAIN])
    found = moved(cosines_GN, "cosine", settings, {})
    found.append(mean_of("most_moved", 1 - cosines_GN.min(0), settings, {}))
    if draws:
        found += drawn(vectors, listing, pictures, settings)
    return found


def moved(cosines_GN: np.ndarray, name: str, settings: Settings, told: dict[str, Any]) -> list[Found]:
    return [
        mean_of(f"{name}_{gain:+d}_dB", cosines_GN[row], settings, told)
        for row, gain in enumerate(GAINS_DB)
        if row != PLAIN
    ]


def mean_of(name: str, values_N: np.ndarray, settings: Settings, told: dict[str, Any]) -> Found:
    interval = bootstrap(values_N, seed=0)
    return Found(name, interval.value, len(values_N), PROTOCOL, interval.low, interval.high, None, settings.seed, told)


def drawn(vectors: Vectors, listing: Listing, pictures: list[list[Any]], settings: Settings) -> list[Found]:
    """Of pictures at each gain: a sheet, how far they move, and which way."""
    judge = judge_of(settings, vectors)
    sheet = Pictures(vectors).sheet("sheet", [list(row) for row in zip(*pictures, strict=True)])
    told = {"judge": judge.name, "sheet": sheet}
    looks = [judge.look(some) for some in pictures]
    seen_GND = np.stack([units(one.features_ND) for one in looks])
    found = moved(np.einsum("gnd,nd->gn", seen_GND, seen_GND[PLAIN]), "picture", settings, told)
    classes = [" ".join(one.labels).replace("_", " ") for one in listing]
    rows = [row for row, one in enumerate(classes) if one in CONCEPTS]
    if isinstance(judge, TextJudge) and rows:
        rhos = []
        for row in rows:
            of_row = Seen(np.stack([one.features_ND[row] for one in looks]))
            logits_G2 = judge.names(of_row, CONCEPTS[classes[row]])
            rhos.append(spearman(GAINS_DB, logits_G2[:, 0] - logits_G2[:, 1]))
        known = np.nan_to_num(np.asarray(rhos, dtype=np.float64))  # pictures that do not change follow nothing
        found.append(mean_of("rho", known, settings, {**told, "concepts": {one: CONCEPTS[one] for one in classes
                                                                           if one in CONCEPTS}}))  # fmt: skip
    return found
