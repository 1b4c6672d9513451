"""VGGSound: 309 classes of sounds of videos, as far as they are still there; mean average precision over the classes.

By a probe that learns on the training split, by label text on the test split, and, AAI's "audio-text accuracy", the
share of test sounds whose own label text is the nearest of all.

Shapes: N clips, L labels, E numbers of a vector.
"""

from __future__ import annotations

import os

import numpy as np

from unibrivl.data import Listing
from unibrivl.data import vggsound as listed
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.prompts import label_vectors
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import Examples, MLPProbe, mean_average_precision, wilson

TITLE, PROTOCOL = "VGGSound", "vggsound-v1"
NEEDS = ("audio", "text")
VALIDATION = 10  # one training clip of so many, by its place, stops the probe
FEWEST = 2 * VALIDATION  # training clips; with fewer there is no probe, and what is scored says how many there were


def load(folder: str | os.PathLike) -> Listing:
    return listed.load(folder)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    labels = sorted(listing.labels)
    parts = {split: [one for one in listing if one.split == split] for split in ("train", "test")}
    if not parts["test"]:
        raise ValueError(f"none of the {len(listing)} clips is of the test split: there is nothing to score")
    right = {split: np.array([labels.index(str(one.label)) for one in some]) for split, some in parts.items()}
    heard = {
        split: vectors.of("audio", [one.audio for one in some], [one.id for one in some])
        for split, some in parts.items()
        if some
    }
    words_LE = label_vectors(vectors, settings.how, labels)
    scores_NL = heard["test"] @ words_LE.T
    number, hits = len(right["test"]), int((scores_NL.argmax(1) == right["test"]).sum())
    low, high = wilson(hits, number)
    told = {"templates": list(settings.how.templates), "labels": len(labels), "training_clips": len(parts["train"])}
    precision = mean_average_precision(scores_NL, right["test"])
    how = f"vggsound-v1, label-text, {settings.how.version}"
    found = [
        Found("zero_shot_map", precision.value, number, how, None, None, None, None,
              {**told, "classes_without_clips": precision.num_skipped}),
        Found("audio_text_accuracy", hits / number, number, how, low, high, 1 / len(labels), None, told),
    ]  # fmt: skip
    if len(parts["train"]) >= FEWEST:
        found.insert(0, probed(heard, right, len(labels), settings))
    return found


def probed(heard: dict[str, np.ndarray], right: dict[str, np.ndarray], classes: int, settings: Settings) -> Found:
    place_N = np.arange(len(right["train"]))
    valid = place_N % VALIDATION == 0
    seen, chosen_on = (Examples(heard["train"][some], right["train"][some]) for some in (~valid, valid))
    fitted = MLPProbe(seed=settings.seed).fit(seen, chosen_on, classes)
    logits_NL = fitted.scores(heard["test"])
    shifted_NL = np.exp(logits_NL - logits_NL.max(1, keepdims=True))
    precision = mean_average_precision(shifted_NL / shifted_NL.sum(1, keepdims=True), right["test"])
    more = {"train": int((~valid).sum()), "classes_without_clips": precision.num_skipped}
    how = "vggsound-v1, probe-v1"
    return Found("probe_map", precision.value, len(right["test"]), how, None, None, None, settings.seed, more)
