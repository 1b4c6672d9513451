"""The pack of acted speech: eight emotions, and the four of BrewCLIP, on the two actors who are the test split."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from unibrivl.data import Listing
from unibrivl.data.packs import load_speech_emotion
from unibrivl.evaluation.benchmarks.classes import heard
from unibrivl.evaluation.benchmarks.splits import probed
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings

TITLE, PROTOCOL = "Acted speech", "pack_emotion-v1"
NEEDS = ("audio",)
FOUR = {"neutral": "neutral", "calm": "neutral", "happy": "happy", "sad": "sad", "angry": "angry"}


def load(folder: str | os.PathLike) -> Listing:
    return load_speech_emotion(folder).filter(lambda one: bool(one.audio), TITLE)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    samples = list(listing)
    vectors_NE = heard(vectors, listing)
    four = np.array([one.label in FOUR for one in samples])
    merged = [replace(one, labels=(FOUR[str(one.label)],)) for one in samples if one.label in FOUR]
    both = (
        probed(vectors_NE[four], merged, PROTOCOL, settings, "four_accuracy"),
        probed(vectors_NE, samples, PROTOCOL, settings, "eight_accuracy"),
    )
    found = [one for one in both if one is not None]
    if not found:
        raise ValueError(f"{listing.name} has too few clips of a class, or no test split: nothing can be scored")
    return found
