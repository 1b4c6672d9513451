"""The pack of spoken digits: the official test split by a probe and by label text; speakers are in both splits."""

from __future__ import annotations

import os
from dataclasses import replace

from unibrivl.data import Listing, Sample
from unibrivl.data.packs import load_spoken_digits
from unibrivl.evaluation.benchmarks.classes import heard
from unibrivl.evaluation.benchmarks.splits import named, probed
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings

TITLE, PROTOCOL = "Spoken digits", "pack_digits-v1"
NEEDS = ("audio",)
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def load(folder: str | os.PathLike) -> Listing:
    return load_spoken_digits(folder)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    samples = [in_words(one) for one in listing]
    vectors_NE = heard(vectors, listing)
    found = probed(vectors_NE, samples, PROTOCOL, settings)
    if not vectors.can("text"):
        return [] if found is None else [found]
    by_text = named(vectors, vectors_NE, samples, PROTOCOL, settings)
    return [by_text] if found is None else [found, by_text]


def in_words(one: Sample) -> Sample:
    """A digit under its word."""
    label = str(one.label)
    return replace(one, labels=(WORDS[int(label)],)) if label.isdigit() else one
