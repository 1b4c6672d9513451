"""How unlike the pictures of unlike sounds of one class are, as AAI claims of sounds as words.

All sounds are drawn with the same chance, so that what differs between two pictures of a class is what was heard: a
system that draws by the label alone has 0 here. Beside it stands how unlike two pictures of one sound are by chance
alone, and how many pictures still show their class: noise is diverse too. Distances are one minus the cosine of the
judge's features, less their mean over all pictures.

Shapes: N sounds, D features.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from unibrivl import data as datasets
from unibrivl.data import Listing
from unibrivl.evaluation.benchmarks.drawn import by_label, heard_and_drawn
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.judges import hits_of, units
from unibrivl.evaluation.pictures import Pictures, judge_of
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import bootstrap

TITLE, PROTOCOL = "Diversity of pictures by sound", "diversity-v1"
NEEDS = ("generate",)


def load(folder: str | os.PathLike) -> Listing:
    listing = datasets.load(folder).filter(lambda one: bool(one.audio) and len(one.labels) == 1)
    counts = {label: sum(one.label == label for one in listing) for label in listing.labels}
    return listing.filter(lambda one: counts[str(one.label)] > 1)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    if not len(listing):
        raise ValueError("no class has two sounds: diversity is between sounds of one class")
    judge = judge_of(settings, vectors)
    samples = list(listing)
    right = [str(one.label) for one in samples]
    drawn = heard_and_drawn(vectors, samples, settings, alike=True)
    seen = judge.look([one for some in drawn.values() for one in some])
    features_SND = seen.features_ND.reshape(len(drawn), len(samples), -1)
    features_SND = units(features_SND - features_SND.mean((0, 1)))
    told = {
        "judge": judge.name, "seeds": list(drawn), "classes": len(set(right)),
        "sheet": Pictures(vectors).sheet("sheet", by_label(samples, drawn[settings.seed])),
    }  # fmt: skip
    labels = sorted(set(right))
    rows_of = [[place for place, one in enumerate(right) if one == label] for label in labels]
    # a class counts once, however many pairs of sounds it has
    by_sound = [float(np.mean([apart(rows_ND[rows]) for rows_ND in features_SND])) for rows in rows_of]
    found = [spread_of("by_sound", by_sound, len(samples), told, settings)]
    if len(drawn) > 1:
        by_chance = [apart(features_SND[:, place]) for place in range(len(samples))]
        found.append(spread_of("by_chance", by_chance, len(samples), told, settings))
    if len(labels) > 1:
        number, hits = len(samples) * len(drawn), hits_of(judge, seen, right * len(drawn), labels)
        found.append(
            Found.share("R@1", hits, number, PROTOCOL, chance=1 / len(labels), seed=settings.seed, extra=told)
        )
    return found


def spread_of(name: str, values: Sequence[float], number: int, told: dict, settings: Settings) -> Found:
    if len(values) < 2:
        return Found(name, float(np.mean(values)), number, PROTOCOL, seed=settings.seed, extra=told)
    interval = bootstrap(np.asarray(values, dtype=np.float64), seed=0)
    return Found(name, interval.value, number, PROTOCOL, interval.low, interval.high, None, settings.seed, told)


def apart(rows_ND: np.ndarray) -> float:
    """The mean distance of all pairs of rows of length one."""
    number = len(rows_ND)
    cosines_NN = rows_ND @ rows_ND.T
    return float(1 - (cosines_NN.sum() - np.trace(cosines_NN)) / (number * (number - 1)))
