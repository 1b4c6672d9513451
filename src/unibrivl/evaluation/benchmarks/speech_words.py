"""Word error rate of whatever transcribes: any folder of speech whose table or texts say what is said.

A rate means nothing without what was done to both texts before: "lower" takes case and punctuation away, Whisper's
English normaliser besides writes numbers and contractions in one way. Of a folder with splits the test part counts.
"""

from __future__ import annotations

import os

import numpy as np

from unibrivl import data as datasets
from unibrivl.data import Listing, Sample
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import ErrorRates, bootstrap, character_error_rate, whisper_english, word_error_rate

TITLE, PROTOCOL = "Words of speech", "speech_words-v1"
NEEDS = ("transcripts",)
SPLITS = ("test", "evaluation", "eval")  # the first that is there is what is transcribed


def load(folder: str | os.PathLike) -> Listing:
    listing = datasets.load(folder)
    split = next((name for name in SPLITS if name in listing.splits), None)

    def spoken(one: Sample) -> bool:
        return bool(one.texts) and split in (None, one.split) and bool(one.audio or not one.image)

    return listing.filter(spoken, " ".join(filter(None, (listing.name, split))))


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    if not len(listing):
        raise ValueError("no sound comes with its words: give a folder whose metadata.csv has file_name and text")
    said = [one.texts[0] for one in listing]
    heard = vectors.written("transcripts", [one.audio for one in listing], [one.id for one in listing])
    rates = {
        "word_error_rate": word_error_rate(said, heard),
        "word_error_rate_whisper_english": word_error_rate(said, heard, whisper_english()),
        "character_error_rate": character_error_rate(said, heard),
    }
    return [rated(name, found) for name, found in rates.items()]


def rated(name: str, found: ErrorRates) -> Found:
    """With the interval over sounds, drawn whole: all errors over all words of each draw."""
    rows = np.stack([found.errors, found.lengths], 1)
    interval = bootstrap(rows, lambda some: float(some[:, 0].sum() / max(1, some[:, 1].sum())), seed=0)
    how = f"{PROTOCOL}, {found.normalizer}"
    return Found(name, found.rate, len(found.lengths), how, interval.low, interval.high, extra=found.as_dict())
