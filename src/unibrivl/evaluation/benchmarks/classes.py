"""What benchmarks of classes share: a probe over folds, and the nearest label text.

Shapes: N clips, L labels, E numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unibrivl.data import Listing
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.prompts import label_vectors
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import MLPProbe, cross_validate, wilson


def heard(vectors: Vectors, listing: Listing) -> np.ndarray:
    """(N, E)."""
    return vectors.of("audio", [one.audio for one in listing], [one.id for one in listing])


def probed(vectors_NE: np.ndarray, listing: Listing, settings: Settings) -> Found:
    """The mean accuracy over the folds, each tested once by a probe that the next one stops."""
    found = cross_validate(
        vectors_NE, [one.label for one in listing], [one.fold for one in listing], MLPProbe(seed=settings.seed)
    )
    low, high = wilson(round(found.pooled * len(listing)), len(listing))
    return Found(
        "probe_accuracy", found.mean, len(listing), found.protocol, low, high, found.chance, settings.seed,
        {"std": found.std, "pooled": found.pooled, "folds": found.folds},
    )  # fmt: skip


def by_label_text(vectors: Vectors, vectors_NE: np.ndarray, listing: Listing, settings: Settings) -> Found:
    """The share of clips whose own label's words are nearest; of equal ones the first in the alphabet counts."""
    labels = sorted({str(one.label) for one in listing})
    right_N = np.array([labels.index(str(one.label)) for one in listing])
    named_N = nearest_words(vectors, vectors_NE, labels, settings)
    hits = int((named_N == right_N).sum())
    low, high = wilson(hits, len(listing))
    chance = float(np.bincount(right_N).max() / len(right_N))
    return Found(
        "zero_shot_accuracy", hits / len(listing), len(listing), f"label-text, {settings.how.version}", low, high,
        chance, None, {"templates": list(settings.how.templates), "labels": len(labels)},
    )  # fmt: skip


def nearest_words(vectors: Vectors, vectors_NE: np.ndarray, labels: Sequence[str], settings: Settings) -> np.ndarray:
    """(N,) numbers of the labels whose words are nearest."""
    return (vectors_NE @ label_vectors(vectors, settings.how, labels).T).argmax(1)
