"""The pack of sounds and pictures: its test sounds by a probe, by label text, and as they look for photographs.

ESC-10's clips alone, whose folds are ESC-50's own (folds 1 to 3 are learned from, fold 4 is the test), and all 50
classes. A model that has learned from the training part has heard the probe's training clips: compare it with others
that have. Small models of this package have read the labels, so "label text" is no zero-shot there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unibrivl.data import Listing, Sample
from unibrivl.data.packs import load_sounds_and_pictures
from unibrivl.evaluation.benchmarks.classes import heard
from unibrivl.evaluation.benchmarks.pairs import of_direction
from unibrivl.evaluation.benchmarks.splits import named, probed
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import CosineScores, Relevance, retrieval_report

TITLE, PROTOCOL = "Sounds and pictures", "pack_sounds-v1"
NEEDS = ("audio",)
ESC10 = (
    "chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog", "helicopter", "rain", "rooster", "sea_waves",
    "sneezing",
)  # fmt: skip
WAYS = ("class_audio_to_image", "class_image_to_audio")


def load(folder: str | os.PathLike) -> Listing:
    listing = load_sounds_and_pictures(folder)
    return listing.filter(lambda one: bool(one.audio) or one.id.startswith("photos/"), TITLE)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    sounds = replace(listing, samples=tuple(one for one in listing if one.audio))
    vectors_NE = heard(vectors, sounds)
    core = [row for row, one in enumerate(sounds) if one.label in ESC10]
    parts = {"esc10": core, "all": list(range(len(sounds)))}
    found: list[Found | None] = []
    for name, rows in parts.items():
        some = [sounds[row] for row in rows]
        if any(one.split == "test" for one in some):
            found.append(probed(vectors_NE[rows], some, PROTOCOL, settings, f"{name}_probe_accuracy"))
            if vectors.can("text"):
                found.append(named(vectors, vectors_NE[rows], some, PROTOCOL, settings, f"{name}_label_text_accuracy"))
        if vectors.can("image"):
            found += to_photos(vectors, vectors_NE[rows], some, [one for one in listing if one.image], name)
    whole = [one for one in found if one is not None]
    if not whole:
        raise ValueError(f"{listing.name} has no test sounds: there is nothing to score")
    return whole


def to_photos(
    vectors: Vectors, vectors_NE: np.ndarray, sounds: Sequence[Sample], photos: Sequence[Sample], name: str
) -> list[Found]:
    """Test sounds and test photographs of the same classes; any of its class is right."""
    labels = {one.label for one in sounds if one.split == "test"}
    gallery = [one for one in photos if one.split == "test" and one.label in labels]
    seen = {one.label for one in gallery}
    rows = [row for row, one in enumerate(sounds) if one.split == "test" and one.label in seen]
    if not rows or len(gallery) < 2:
        return []
    pictures_PE = vectors.of("image", [str(one.image) for one in gallery], [one.id for one in gallery])
    right = Relevance.from_labels([str(sounds[row].label) for row in rows], [str(one.label) for one in gallery])
    report = retrieval_report(CosineScores(vectors_NE[rows], pictures_PE), right, names=WAYS)
    return [
        replace(one, metric=f"{name}_{one.metric}", expected=one.n)
        for way in WAYS
        for one in of_direction(way, report[way], f"{PROTOCOL}, class")
    ]
