"""ESC-10: the 400 clips of ESC-50's ten easy classes, as `esc50`."""

from __future__ import annotations

import os

from unibrivl.data import Listing
from unibrivl.data import esc50 as listed
from unibrivl.evaluation.benchmarks.esc50 import NEEDS, run

TITLE, PROTOCOL = "ESC-10", "esc10-v1"


def load(folder: str | os.PathLike) -> Listing:
    return listed.load(folder, esc10=True)


__all__ = ["NEEDS", "PROTOCOL", "TITLE", "load", "run"]
