"""Long transcripts: what a model that reads at most so many words loses, and what reading in parts gives back.

On the spoken descriptions of Localized Narratives, of which many are longer than CLIP's 77 tokens (BrewCLIP's open
question), by their texts alone: a text looks for its picture, whole, and cut after `WORDS` words, which always fits.
`long_...` are the texts that are longer than that. A model may offer `encode_text_cut(texts)`, which reads as much as
fits and drops the rest; then `cut` is by that.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unibrivl.data import Listing
from unibrivl.evaluation.benchmarks import localized_narratives as listed
from unibrivl.evaluation.benchmarks.pairs import of_direction
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import CosineScores, Relevance, retrieval_report

TITLE, PROTOCOL = "Long transcripts", "long_texts-v1"
NEEDS = ("text", "image")
WORDS = 40
WAYS = ("text_to_image", "image_to_text")


def load(folder: str | os.PathLike) -> Listing:
    return listed.load(folder)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    samples = [one for one in listing if one.texts and one.image]
    texts = [one.texts[0] for one in samples]
    paths = list(dict.fromkeys(str(one.image) for one in samples))
    if len(paths) < 2:
        raise ValueError(f"{listing.name} has {len(paths)} pictures with texts: two at least are looked for")
    places = {path: place for place, path in enumerate(paths)}
    right_N = np.array([places[str(one.image)] for one in samples])
    pictures_PE = vectors.of("image", paths)
    long_N = np.array([len(one.split()) > WORDS for one in texts])
    told = {"words": WORDS, "long": int(long_N.sum()), "cut": "by the model" if own(vectors) else f"{WORDS} words"}
    parts = {"": np.full(len(texts), True), **({"long_": long_N} if 1 < long_N.sum() < len(long_N) else {})}
    found = []
    for name, rows_NE in (("whole", vectors.of("text", texts)), ("cut", cut_vectors(vectors, texts))):
        for part, chosen in parts.items():
            right = Relevance.from_index(right_N[chosen], len(paths))
            report = retrieval_report(CosineScores(rows_NE[chosen], pictures_PE), right, names=WAYS)
            scored = of_direction(f"{part}{name}", report[WAYS[0]], PROTOCOL)
            found += [replace(one, extra={**(one.extra or {}), **told}) for one in scored]
    return found


def own(vectors: Vectors) -> bool:
    return callable(getattr(vectors.encoder, "encode_text_cut", None))


def cut_vectors(vectors: Vectors, texts: Sequence[str]) -> np.ndarray:
    """(N, E)."""
    if not own(vectors):
        return vectors.of("text", [" ".join(one.split()[:WORDS]) for one in texts])
    return vectors.of("text_cut", texts)
