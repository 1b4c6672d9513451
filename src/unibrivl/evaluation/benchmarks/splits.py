"""What benchmarks with a training and a test part share: a linear probe, and the nearest label text on the test part.

Shapes: N clips, L labels, E numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unibrivl.data import Sample
from unibrivl.evaluation.benchmarks.classes import nearest_words
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import Examples, LinearProbe

VALIDATION = 5  # of each class one training clip of so many, by its place, chooses the penalty
FEWEST = 2  # training clips of a class


def probed(
    vectors_NE: np.ndarray, samples: Sequence[Sample], protocol: str, settings: Settings, name: str = "probe_accuracy"
) -> Found | None:
    """A logistic regression that learned on the split "train" names the split "test"; None where it cannot learn."""
    labels = sorted({str(one.label) for one in samples})
    right_N = np.array([labels.index(str(one.label)) for one in samples])
    test = np.array([one.split == "test" for one in samples])
    train = np.array([one.split == "train" for one in samples])
    if not test.any() or len(labels) < 2 or np.bincount(right_N[train], minlength=len(labels)).min() < FEWEST:
        return None
    place_N: np.ndarray = np.zeros(len(samples), dtype=int)
    for number in range(len(labels)):
        rows = np.flatnonzero(train & (right_N == number))
        place_N[rows] = np.arange(len(rows))
    valid = train & (place_N % VALIDATION == 0)
    seen, chosen_on = (Examples(vectors_NE[some], right_N[some]) for some in (train & ~valid, valid))
    fitted = LinearProbe(seed=settings.seed).fit(seen, chosen_on, len(labels))
    hits = int((fitted.scores(vectors_NE[test]).argmax(1) == right_N[test]).sum())
    return Found.share(
        name, hits, int(test.sum()), f"{protocol}, linear-v1", chance=commonest(right_N[test]), seed=settings.seed,
        extra={"train": int(train.sum()), "labels": len(labels), "chosen": fitted.chosen}, expected=int(test.sum()),
    )  # fmt: skip


def named(
    vectors: Vectors, vectors_NE: np.ndarray, samples: Sequence[Sample], protocol: str, settings: Settings,
    name: str = "label_text_accuracy",
) -> Found:  # fmt: skip
    """The share of test clips whose own label's words are nearest among those of all labels of these samples."""
    labels = sorted({str(one.label) for one in samples})
    rows = [row for row, one in enumerate(samples) if one.split == "test"]
    right_N = np.array([labels.index(str(samples[row].label)) for row in rows])
    hits = int((nearest_words(vectors, vectors_NE[rows], labels, settings) == right_N).sum())
    told = {"templates": list(settings.how.templates), "labels": len(labels)}
    return Found.share(
        name, hits, len(rows), f"{protocol}, label-text, {settings.how.version}", chance=commonest(right_N),
        extra=told, expected=len(rows),
    )  # fmt: skip


def commonest(right_N: np.ndarray) -> float:
    """The share of the commonest class: what saying always the same reaches."""
    return float(np.bincount(right_N).max() / len(right_N))
