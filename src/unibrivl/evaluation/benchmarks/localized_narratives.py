"""Localized Narratives of COCO: the validation split, on which the authors test, both ways."""

from __future__ import annotations

import os

from unibrivl.data import Listing
from unibrivl.data import localized_narratives as listed
from unibrivl.evaluation.benchmarks.pairs import both_ways, of_split, split_of
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings

TITLE, PROTOCOL = "Localized Narratives of COCO", "localized_narratives-v1"
NEEDS = ("audio", "image")
SPLIT = "val"


def load(folder: str | os.PathLike) -> Listing:
    return split_of(listed.load(folder), SPLIT, TITLE)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    return both_ways(vectors, of_split(listing, SPLIT), PROTOCOL)
