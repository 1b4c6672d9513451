"""VGGSound, R@k of sounds and middle pictures on a tenth, a fifth and all of the test clips, as AAI's table has it.

AAI's lists are not published. Ours are nested, and of each class the same share, by the order of the ids' SHA-1, so
that two people with the same clips have the same lists; with clips that are gone they have not, and the ids are kept
with the score. `five` is five clips of each class, as CAV-MAE's own retrieval has it.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import replace

from unibrivl.data import Listing, Sample
from unibrivl.data import vggsound as listed
from unibrivl.evaluation.benchmarks.pairs import WAYS, both_ways, of_split
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings

TITLE, PROTOCOL = "VGGSound, retrieval on subsets", "vggsound_subsets-v1"
NEEDS = ("audio", "image")
SHARES = {"1.4K": 0.1, "2.8K": 0.2, "14K": 1.0}
A_CLASS = 5


def load(folder: str | os.PathLike) -> Listing:
    return listed.load(folder, "test")


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    samples = of_split(listing, "test")
    subsets = {name: share_of(samples, share) for name, share in SHARES.items()}
    subsets["five"] = first_of_each(samples, A_CLASS)
    found = []
    for name, some in subsets.items():
        if len({one.image for one in some}) < 2:
            continue
        ids = {"ids_sha1": digest("\n".join(one.id for one in some)), "clips": len(some)}
        both = both_ways(vectors, some, f"{PROTOCOL}, {name}")
        found += [replace(one, metric=f"{name}_{one.metric}", extra={**(one.extra or {}), **ids}) for one in both]
        for k in ("R@1", "R@5", "R@10"):  # the table does not say which way
            each = [one for one in both if one.metric in [f"{way}_{k}" for way in WAYS]]
            value = sum(one.value for one in each) / len(each)
            found.append(Found(f"{name}_mean_{k}", value, each[0].n, f"{PROTOCOL}, {name}, mean of both ways",
                               chance=each[0].chance, extra=ids))  # fmt: skip
    return found


def share_of(samples: Sequence[Sample], share: float) -> list[Sample]:
    """The first of each class by their digests, rounded up: a smaller share is within a larger one."""
    return [one for some in ordered(samples) for one in some[: math.ceil(share * len(some))]]


def first_of_each(samples: Sequence[Sample], number: int) -> list[Sample]:
    return [one for some in ordered(samples) for one in some[:number]]


def ordered(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Of each class its clips by their digests; classes in the order of the alphabet."""
    classes: dict[str, list[Sample]] = {}
    for one in samples:
        classes.setdefault(str(one.label), []).append(one)
    return [sorted(classes[label], key=lambda one: digest(one.id)) for label in sorted(classes)]


def digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
