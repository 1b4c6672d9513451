"""VGGSound: test sounds and the middle pictures of their videos look for each other.

UniBriVL's tables report MRR and do not say which pictures are right. OpenL3, whose towers share no space, reaches what
guessing a picture of the class would, so any of the class is taken to be right there (`class`); `instance` is the
picture of the same video alone, as AAI counts R@k.
"""

from __future__ import annotations

import os

from unibrivl.data import Listing
from unibrivl.data import vggsound as listed
from unibrivl.evaluation.benchmarks.pairs import both_ways, of_split
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings

TITLE, PROTOCOL = "VGGSound, retrieval", "vggsound_retrieval-v1"
NEEDS = ("audio", "image")


def load(folder: str | os.PathLike) -> Listing:
    return listed.load(folder, "test")


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    samples = of_split(listing, "test")
    return [
        *both_ways(vectors, samples, f"{PROTOCOL}, instance"),
        *both_ways(vectors, samples, f"{PROTOCOL}, class", by_label=True),
    ]
