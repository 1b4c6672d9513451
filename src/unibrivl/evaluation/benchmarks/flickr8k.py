"""Flickr8k Audio: 5,000 spoken captions and 1,000 pictures of the test split, both ways."""

from __future__ import annotations

import os

from unibrivl.data import Listing
from unibrivl.data import flickr8k_audio as listed
from unibrivl.evaluation.benchmarks.pairs import both_ways, of_split, split_of
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings

TITLE, PROTOCOL = "Flickr8k Audio", "flickr8k-v1"
NEEDS = ("audio", "image")
SPLIT = "test"


def load(folder: str | os.PathLike) -> Listing:
    return split_of(listed.load(folder), SPLIT, TITLE)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    return both_ways(vectors, of_split(listing, SPLIT), PROTOCOL)
