"""RAVDESS, speech: acted emotions by a linear probe, in BrewCLIP's four classes and in all eight.

`ravdess-4`: calm is neutral, three emotions are left out; actors 1 to 18 train, of which 16 to 18 choose the penalty,
and 19 to 24 are the test. `ravdess-8`: four folds of six actors each. What is said is the same for all emotions.

Shapes: N clips, E numbers of a vector.
"""

from __future__ import annotations

import os

import numpy as np

from unibrivl.data import Listing, Sample
from unibrivl.data import ravdess as listed
from unibrivl.evaluation.benchmarks.classes import heard
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import Examples, LinearProbe, accuracy, cross_validate, unweighted_average_recall, wilson

TITLE, PROTOCOL = "RAVDESS", "ravdess-v1"
NEEDS = ("audio",)
FOUR = {"neutral": 0, "calm": 0, "happy": 1, "sad": 2, "angry": 3}
FIRST_TEST, FIRST_VALID, A_FOLD = 19, 16, 6  # actors


def load(folder: str | os.PathLike) -> Listing:
    return listed.load(folder)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    vectors_NE = heard(vectors, listing)
    return [*of_four(vectors_NE, list(listing), settings), of_eight(vectors_NE, list(listing), settings)]


def of_four(vectors_NE: np.ndarray, samples: list[Sample], settings: Settings) -> list[Found]:
    kept = np.array([one.label in FOUR for one in samples])
    right_N = np.array([FOUR[str(one.label)] for one in samples if one.label in FOUR])
    actor_N, vectors_NE = np.array([actor_of(one) for one in samples])[kept], vectors_NE[kept]
    test, valid = actor_N >= FIRST_TEST, (actor_N >= FIRST_VALID) & (actor_N < FIRST_TEST)
    train = ~(test | valid)
    if not (train.any() and valid.any() and test.any()):
        raise ValueError(
            "ravdess-4 needs actors up to 15, from 16 to 18 and from 19 on: the folder lacks some of them"
        )
    seen, chosen_on = (Examples(vectors_NE[some], right_N[some]) for some in (train, valid))
    fitted = LinearProbe(seed=settings.seed).fit(seen, chosen_on, len(set(FOUR.values())))
    named = fitted.scores(vectors_NE[test]).argmax(1)
    number, hits = int(test.sum()), int((named == right_N[test]).sum())
    low, high = wilson(hits, number)
    chance = float(np.bincount(right_N[test]).max() / number)
    more = {"train": int(train.sum()), "chosen": fitted.chosen}
    return [
        Found("four_accuracy", accuracy(named, right_N[test]), number, "ravdess-4, linear-v1", low, high, chance,
              settings.seed, more),
        Found("four_mean_recall", unweighted_average_recall(named, right_N[test]), number, "ravdess-4, linear-v1",
              None, None, 1 / len(set(FOUR.values())), settings.seed, more),
    ]  # fmt: skip


def of_eight(vectors_NE: np.ndarray, samples: list[Sample], settings: Settings) -> Found:
    folds = [(actor_of(one) - 1) // A_FOLD for one in samples]
    found = cross_validate(vectors_NE, [one.label for one in samples], folds, LinearProbe(seed=settings.seed))
    low, high = wilson(round(found.pooled * len(samples)), len(samples))
    return Found("eight_accuracy", found.mean, len(samples), "ravdess-8, linear-v1", low, high, found.chance,
                 settings.seed, {"std": found.std, "folds": found.folds})  # fmt: skip


def actor_of(one: Sample) -> int:
    return int(str(one.group))
