"""ESC-50: 2,000 clips of 5 s in 50 classes; the official five folds, and label text on all clips."""

from __future__ import annotations

import os

from unibrivl.data import Listing, esc50
from unibrivl.evaluation.benchmarks.classes import by_label_text, heard, probed
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings

TITLE, PROTOCOL = "ESC-50", "esc50-v1"
NEEDS = ("audio",)


def load(folder: str | os.PathLike) -> Listing:
    return esc50.load(folder)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    vectors_NE = heard(vectors, listing)
    found = [probed(vectors_NE, listing, settings)]
    return [*found, by_label_text(vectors, vectors_NE, listing, settings)] if vectors.can("text") else found
