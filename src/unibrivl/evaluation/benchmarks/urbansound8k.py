"""UrbanSound8K: 8,732 slices in ten classes; the official ten folds, never shuffled, and label text on all slices."""

from __future__ import annotations

import os

from unibrivl.data import Listing
from unibrivl.data import urbansound8k as listed
from unibrivl.evaluation.benchmarks.esc50 import NEEDS, run

TITLE, PROTOCOL = "UrbanSound8K", "urbansound8k-v1"


def load(folder: str | os.PathLike) -> Listing:
    return listed.load(folder)


__all__ = ["NEEDS", "PROTOCOL", "TITLE", "load", "run"]
