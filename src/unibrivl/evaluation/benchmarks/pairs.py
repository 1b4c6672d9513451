"""What benchmarks of sounds with pictures share: both directions of retrieval, with chance and intervals.

Shapes: N sounds, P pictures, E numbers of a vector.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from unibrivl.data import Listing, Sample
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found
from unibrivl.metrics import CosineScores, Relevance, retrieval_report

WAYS = ("audio_to_image", "image_to_audio")


def split_of(listing: Listing, split: str, name: str) -> Listing:
    """One split of a data set, with the number that it officially has."""
    found = listing.filter(lambda one: one.split == split, name, listing.parts.get(split))
    return replace(found, name=name)


def both_ways(vectors: Vectors, samples: list[Sample], protocol: str, by_label: bool = False) -> list[Found]:
    """R@1, R@5, R@10 and MRR of sounds that look for their picture, and of pictures, for which any of their sounds is
    right. A picture counts once however many sounds it has.

    Args:
        by_label (`bool`): any picture, or sound, of the same label is right; metrics then begin with "class_".
    """
    sounds_NE = vectors.of("audio", [one.audio for one in samples], [one.id for one in samples])
    paths = list(dict.fromkeys(str(one.image) for one in samples))
    pictures_PE = vectors.of("image", paths)
    places = {path: place for place, path in enumerate(paths)}
    if by_label:
        label_of = {str(one.image): str(one.label) for one in samples}
        right = Relevance.from_labels([str(one.label) for one in samples], [label_of[path] for path in paths])
    else:
        right = Relevance.from_index(np.array([places[str(one.image)] for one in samples]), len(paths))
    report = retrieval_report(CosineScores(sounds_NE, pictures_PE), right, names=WAYS)
    front = "class_" if by_label else ""
    return [found for way in WAYS for found in of_direction(f"{front}{way}", report[way], protocol)]


def of_direction(way: str, row: dict[str, Any], protocol: str) -> list[Found]:
    found = []
    for name in ("R@1", "R@5", "R@10", "MRR"):
        low, high = row["ci95"][name]
        found.append(
            Found(
                f"{way}_{name}", float(row[name]), int(row["n"]), protocol, float(low), float(high),
                float(row["chance"][name]), None, {"gallery": int(row["gallery"]), "ties": row["ties"]},
            )
        )  # fmt: skip
    return found


def of_split(listing: Listing, split: str) -> list[Sample]:
    """The samples of one split that have a sound and a picture."""
    chosen = [one for one in listing if one.split == split and one.audio and one.image]
    if len({one.image for one in chosen}) < 2:
        raise ValueError(
            f"{listing.name} has {len(chosen)} sounds with pictures in its split {split!r}: among fewer than two "
            "pictures nothing can be looked for"
        )
    return chosen
