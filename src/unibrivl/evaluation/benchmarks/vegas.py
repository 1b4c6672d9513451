"""VEGAS, five classes: pictures of sounds, named by a judge; FID, KID and the Inception score on its features.

The five are those that Sound2Image's tables stand on. Papers name by CLIP and measure FID on Inception's features:
give that CLIP as the judge to come near their R@1, and do not compare FID.
"""

from __future__ import annotations

import os

from unibrivl.data import Listing
from unibrivl.data import vegas as listed
from unibrivl.evaluation.benchmarks.drawn import generation
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings

TITLE, PROTOCOL = "VEGAS, pictures of sounds", "vegas-v1"
NEEDS = ("generate",)


def load(folder: str | os.PathLike) -> Listing:
    listing = listed.load(folder, listed.FIVE_CLASSES)
    return listing.split("test") if "test" in listing.splits else listing


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    samples = [one for one in listing if one.audio]
    return generation(vectors, samples, [one for one in samples if one.image], PROTOCOL, settings)
