"""DESED: which of ten domestic sounds are heard in a clip, and when, by vectors of windows of one second.

A probe learns on the strong labels of the synthetic training part; one training clip of ten stops it. Without training
a window has a label whose words are near enough, which the training part decides for each label. Neighbouring windows
of one label are joined to an event. The number to look at is the macro F1 over segments of one second in which a label
that is never named counts 0; sed_eval's own macro mean leaves such labels out, and which of the two a paper means is
seldom said, so both stand here.

Shapes: N clips, W windows of all clips, L labels, S samples, E numbers of a vector.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from unibrivl.audio.part import duration_s, load_part
from unibrivl.data import Listing, Sample
from unibrivl.data import desed as listed
from unibrivl.data.desed import LABELS
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.prompts import label_vectors
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import (
    EVENT_PRESETS,
    Event,
    Examples,
    MLPProbe,
    bootstrap,
    event_scores,
    frames_to_events,
    segment_scores,
)

TITLE, PROTOCOL = "DESED", "desed-v1"
NEEDS = ("audio", "text")
TRAIN = "synthetic21_train"
TESTS = ("synthetic21_validation", "validation", "public")  # the first that is there is the test
WINDOW_S = 1.0  # and the hop
LEAST_S = 0.5  # of an event within a window of its label
SPARE_S = 0.1  # behind the last whole window that make no window of their own
VALIDATION = 10  # one training clip of so many, by its place, stops the probe


class Window(NamedTuple):
    """A second of a clip."""

    path: str
    start_s: float


@dataclass(frozen=True)
class Windows:
    """The windows of some clips, clip by clip, and their vectors."""

    clips: list[Sample]
    counts: list[int]
    vectors_WE: np.ndarray

    def of_clips(self, rows_W: np.ndarray) -> list[np.ndarray]:
        """What stands for windows, cut into clips."""
        return np.split(rows_W, np.cumsum(self.counts)[:-1])

    @property
    def right_WL(self) -> np.ndarray:
        """Whether an event of a label fills at least half of a window."""
        found = [overlaps(clip.events, count) >= LEAST_S for clip, count in zip(self.clips, self.counts, strict=True)]
        return np.concatenate(found)


def load(folder: str | os.PathLike) -> Listing:
    """The part that trains and the part that is the test; the official number is the test's."""
    listing = listed.load(folder)
    test = next((part for part in TESTS if part in listing.splits), None)
    if test is None or TRAIN not in listing.splits:
        raise ValueError(
            f"{folder} has the lists of {', '.join(listing.splits)}: this benchmark learns on {TRAIN} and is scored "
            f"on one of {', '.join(TESTS)}, so it needs the metadata and the sounds of both"
        )
    return listing.filter(lambda one: one.split in (TRAIN, test), f"DESED {test}", listing.parts.get(test))


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    train, test = ([one for one in listing if (one.split == TRAIN) is trains] for trains in (True, False))
    if len(train) < 2 or not test:
        raise ValueError(
            f"{len(train)} clips to train on and {len(test)} to score: it takes two of the one, one of the other"
        )
    told = {"test": test[0].split, "train": len(train)}
    seen, heard = windows_of(vectors, train), windows_of(vectors, test)
    right_WL = seen.right_WL
    place_W: np.ndarray = np.repeat(np.arange(len(train)), seen.counts)
    valid_W = place_W % VALIDATION == 0

    learns, stops = (Examples(seen.vectors_WE[some], right_WL[some].astype(int)) for some in (~valid_W, valid_W))
    fitted = MLPProbe(seed=settings.seed).fit(learns, stops, len(LABELS))
    logits_WL, tuning_WL = fitted.scores(heard.vectors_WE), fitted.scores(seen.vectors_WE[valid_W])
    best_L = best_thresholds(tuning_WL, right_WL[valid_W])
    best_L = np.where(np.isfinite(best_L), best_L, 0.0)  # of labels that the tenth lacks: as without tuning
    probe = {**told, "chosen": fitted.chosen}
    how = f"{PROTOCOL}, probe-v1"

    words_LE = label_vectors(vectors, settings.how, LABELS)
    near_L = best_thresholds(seen.vectors_WE @ words_LE.T, right_WL)
    text = {**told, "templates": list(settings.how.templates), "thresholds": finite(near_L)}
    return [
        *judged("probe", logits_WL >= 0, heard, how, settings.seed, {**probe, "threshold": 0.5}),
        *judged("probe_tuned", logits_WL >= best_L, heard, how, settings.seed, {**probe, "logits": finite(best_L)}),
        *judged("text", heard.vectors_WE @ words_LE.T >= near_L, heard,
                f"{PROTOCOL}, label-text, {settings.how.version}", None, text),
    ]  # fmt: skip


# windows


def windows_of(vectors: Vectors, clips: list[Sample]) -> Windows:
    """A vector for every second of each clip."""
    counts, windows, ids = list[int](), list[Window](), list[str]()
    for clip in clips:
        assert clip.audio is not None, "a listing holds what is there"
        counts.append(max(1, math.ceil((duration_s(clip.audio) - SPARE_S) / WINDOW_S)))
        windows += [Window(clip.audio, WINDOW_S * place) for place in range(counts[-1])]
        ids += [f"{clip.id} {place}" for place in range(counts[-1])]
    return Windows(clips, counts, vectors.of("audio", windows, ids, as_files))


@contextmanager
def as_files(windows: Sequence[Window]) -> Iterator[list[str]]:
    """Each window as a file of its own, gone afterwards: encoders are given paths.

    They keep the clip's rate; a last one that is short ends in silence.
    """
    with tempfile.TemporaryDirectory(prefix="unibrivl-desed-") as folder:
        paths = []
        for place, one in enumerate(windows):
            sound = load_part(one.path, one.start_s, one.start_s + WINDOW_S)
            samples_S: np.ndarray = np.zeros(round(WINDOW_S * sound.rate_hz), np.float32)
            kept = sound.samples[: len(samples_S)]
            samples_S[: len(kept)] = kept
            paths.append(str(Path(folder) / f"{place}.wav"))
            soundfile.write(paths[-1], samples_S, sound.rate_hz, subtype="FLOAT")
        yield paths


def overlaps(events: Sequence[Event], count: int) -> np.ndarray:
    """(windows, L), how many seconds of each window events of a label take."""
    begin_W, found = WINDOW_S * np.arange(count), np.zeros((count, len(LABELS)))
    for event in events:
        last_W, first_W = np.minimum(event.offset, begin_W + WINDOW_S), np.maximum(event.onset, begin_W)
        found[:, LABELS.index(event.label)] += np.maximum(last_W - first_W, 0)
    return found


def best_thresholds(scores_WL: np.ndarray, right_WL: np.ndarray) -> np.ndarray:
    """(L,), from which score on a label counts as heard, for the best F1: midway to the next score below. Infinity
    where it never is."""
    found = np.full(scores_WL.shape[1], np.inf)
    for place, (scores_W, right_W) in enumerate(zip(scores_WL.T, right_WL.T, strict=True)):
        if not right_W.any():
            continue
        order_W = np.argsort(-scores_W, kind="stable")
        sorted_W, hits_W = scores_W[order_W], np.cumsum(right_W[order_W])
        ends_W: np.ndarray = np.append(sorted_W[1:] < sorted_W[:-1], True)  # equal scores are heard together
        f_W = 2 * hits_W / (np.arange(1, len(hits_W) + 1) + hits_W[-1])
        best = int(np.where(ends_W, f_W, -1).argmax())
        found[place] = sorted_W[best : best + 2].mean()
    return found


def finite(numbers_L: np.ndarray) -> dict[str, float | None]:
    return {name: float(one) if np.isfinite(one) else None for name, one in zip(LABELS, numbers_L, strict=True)}


# scores


def judged(
    way: str, active_WL: np.ndarray, heard: Windows, how: str, seed: int | None, more: dict[str, Any]
) -> list[Found]:
    """What is said of all clips against their events; a mean over no label is no score, and left out."""
    clips = list(zip(heard.clips, heard.counts, heard.of_clips(active_WL), strict=True))
    truth = {clip.id: list(clip.events) for clip, _, _ in clips}
    said = {clip.id: frames_to_events(active, LABELS, WINDOW_S) for clip, _, active in clips}
    lengths = {clip.id: count * WINDOW_S for clip, count, _ in clips}
    segments = segment_scores(truth, said, durations=lengths, labels=LABELS, **EVENT_PRESETS["segment_1s"])
    dcase, default = (
        event_scores(truth, said, labels=LABELS, **EVENT_PRESETS[name])
        for name in ("event_dcase", "event_sed_eval_default")
    )
    counts_NL3 = counts_of_clips(truth, said, lengths)
    interval = bootstrap(counts_NL3.reshape(len(clips), -1), lambda rows: macro_f(rows.sum(0)), seed=0)
    always_L3 = counts_NL3.sum(0)
    always_L3[:, 0], always_L3[:, 2] = always_L3[:, 1], sum(heard.counts)
    labels = {name: None if math.isnan(one.f_zero_score) else one.f_zero_score
              for name, one in segments.class_wise.items()}  # fmt: skip
    rate = segments.micro.error_rate
    headline = {**more, "labels": labels, "error_rate": None if math.isnan(rate) else rate,
                "chance": "every label in every second"}  # fmt: skip
    found = [
        Found(f"{way}_segment_macro_f_zero_score", segments.macro_f_zero_score, len(clips), how, interval.low,
              interval.high, macro_f(always_L3.reshape(-1)), seed, headline)
    ]  # fmt: skip
    others = {
        "segment_macro_f": segments.macro_f,
        "segment_micro_f": segments.micro.f,
        "event_macro_f_zero_score": dcase.macro_f_zero_score,
        "event_macro_f": dcase.macro_f,
        "event_sed_eval_macro_f_zero_score": default.macro_f_zero_score,
        "event_sed_eval_macro_f": default.macro_f,
    }
    found += [Found(f"{way}_{name}", value, len(clips), how, seed=seed, extra=more) for name, value in others.items()]
    return [one for one in found if math.isfinite(one.value)]


def counts_of_clips(
    truth: dict[str, list[Event]], said: dict[str, list[Event]], lengths: dict[str, float]
) -> np.ndarray:
    """(N, L, 3): segments that are right, true and said, of each clip by itself, so that clips can be drawn."""
    rows = []
    for name, events in truth.items():
        alone = segment_scores({name: events}, {name: said[name]}, durations=lengths, labels=LABELS)
        rows.append([[one.true_positives, one.reference, one.estimated] for one in alone.class_wise.values()])
    return np.array(rows)


def macro_f(counts: np.ndarray) -> float:
    """The mean F1 over labels that are there, from counts of three for each; 0 where none is."""
    right_L, true_L, said_L = counts.reshape(-1, 3).T
    there_L = true_L > 0
    return float((2 * right_L / np.maximum(true_L + said_L, 1))[there_L].mean()) if there_L.any() else 0.0
