"""Sound events: the goldens, sed_eval's own answers, and a matching that is really the largest."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unibrivl.metrics.events import (
    EVENT_PRESETS,
    Event,
    event_scores,
    frames_to_events,
    maximum_matching,
    segment_scores,
)

GOLDEN = Path(__file__).parent.parent / "golden"
SED = json.loads((GOLDEN / "evaluation.json").read_text())["sed"]
PEERS = json.loads((GOLDEN / "metrics" / "peers.json").read_text())
FILES = SED["input"]["files"]
REFERENCE = {file["file"]: file["reference"] for file in FILES}
ESTIMATED = {file["file"]: file["estimated"] for file in FILES}
DURATIONS = {file["file"]: file["duration"] for file in FILES}
LABELS = SED["input"]["labels"]


def scored(preset, reference, estimated, labels, durations):
    arguments = EVENT_PRESETS[preset]
    if "resolution" in arguments:
        return segment_scores(reference, estimated, labels=labels, durations=durations, **arguments)
    return event_scores(reference, estimated, labels=labels, **arguments)


def same(ours: float, golden: float | None) -> bool:
    return math.isnan(ours) if golden is None else ours == pytest.approx(golden, abs=1e-6)


@pytest.mark.parametrize("preset", EVENT_PRESETS)
def test_the_goldens(preset):
    expected = SED["expected"][preset]
    scores = scored(preset, REFERENCE, ESTIMATED, LABELS, DURATIONS)
    for name, value in expected["micro"].items():
        assert same(getattr(scores.micro, {"f_measure": "f"}.get(name, name)), value), name
    for name, value in expected["macro"].items():
        assert same(getattr(scores, {"f_measure": "macro_f"}.get(name, f"macro_{name}")), value), name
    assert same(scores.micro.error_rate, expected["error_rate"])
    assert same(scores.macro_f_zero_score, expected["macro_f_zero_score"])
    for label, value in expected["per_class_f"].items():
        assert same(scores.class_wise[label].f, value), label
    for label, counts in expected["per_class_counts"].items():
        assert (scores.class_wise[label].reference, scores.class_wise[label].estimated) == (
            counts["Nref"],
            counts["Nsys"],
        )


def test_sed_evals_own_zero_score_is_ours():
    """Its switch scores a class that the system never named with 0, for P, F and the macro mean."""
    expected = SED["expected"]["event_dcase_zero_score"]
    scores = scored("event_dcase", REFERENCE, ESTIMATED, LABELS, None)
    assert same(scores.macro_f_zero_score, expected["macro"]["f_measure"])
    for label, value in expected["per_class_f"].items():
        assert same(scores.class_wise[label].f_zero_score, value), label


@pytest.mark.parametrize("number", range(len(PEERS["events"])))
def test_random_files_as_sed_eval_scored_them(number):
    case = PEERS["events"][number]
    for name, expected in case["expected"].items():
        durations = dict.fromkeys(case["reference"], PEERS["limit_s"]) if name.endswith("_limited") else None
        preset = name.removesuffix("_limited")
        scores = scored(preset, case["reference"], case["estimated"], case["labels"], durations)
        micro = scores.micro
        assert all(map(same, (micro.f, micro.precision, micro.recall), expected["micro"])), name
        macro = (scores.macro_f, scores.macro_precision, scores.macro_recall)
        assert all(map(same, macro, expected["macro"])), name
        assert same(micro.error_rate, expected["error_rate"]), name


def largest(partners, num_right):
    """The size of the largest matching, by trying all."""
    choices = [[None, *right] for right in partners]
    sizes = [
        len(picked)
        for choice in itertools.product(*choices)
        if len(picked := [c for c in choice if c is not None]) == len(set(picked))
    ]
    return max(sizes, default=0)


@given(st.lists(st.lists(st.integers(0, 4), unique=True), max_size=5))
def test_the_matching_is_valid_and_the_largest(partners):
    left_of = maximum_matching(partners, 5)
    pairs = [(left, right) for right, left in enumerate(left_of) if left >= 0]
    assert len({left for left, _ in pairs}) == len(pairs) == largest(partners, 5)
    assert all(right in partners[left] for left, right in pairs)


def test_a_greedy_matching_would_lose_one():
    """The first true event could take either estimate, the second only the one that the first would grab."""
    reference = {"a": [(1.0, 2.0, "x"), (1.2, 2.2, "x")]}
    estimated = {"a": [(1.1, 2.1, "x"), (0.9, 1.9, "x")]}
    assert event_scores(reference, estimated).micro.true_positives == 2


def literal_segments(reference, estimated, labels, resolution):
    """The definition with sets: (file, segment, label) is active or not."""

    def cells(files):
        return {
            (name, segment, label)
            for name, events in files.items()
            for onset, offset, label in events
            for segment in range(math.floor(onset * 1 / resolution), math.ceil(offset * 1 / resolution))
        }

    truth, system = cells(reference), cells(estimated)
    wrong = dict.fromkeys("SDI", 0)
    for place in {cell[:2] for cell in truth | system}:
        missed = sum(cell[:2] == place for cell in truth - system)
        extra = sum(cell[:2] == place for cell in system - truth)
        wrong["S"] += min(missed, extra)
        wrong["D"] += max(0, missed - extra)
        wrong["I"] += max(0, extra - missed)
    return len(truth & system), len(truth), len(system), wrong


times = st.integers(0, 40).map(lambda tick: tick / 8)
an_event = st.tuples(times, times, st.sampled_from("xyz")).map(lambda e: (min(e[:2]), max(e[:2]), e[2]))
some_files = st.fixed_dictionaries({"a": st.lists(an_event, max_size=5), "b": st.lists(an_event, max_size=5)})


@settings(max_examples=60)
@given(some_files, some_files, st.sampled_from([1.0, 0.5, 0.1]))
def test_segments_as_their_definition_says(reference, estimated, resolution):
    micro = segment_scores(reference, estimated, resolution, labels=list("xyz")).micro
    hits, num_reference, num_estimated, wrong = literal_segments(reference, estimated, "xyz", resolution)
    assert (micro.true_positives, micro.reference, micro.estimated) == (hits, num_reference, num_estimated)
    assert (micro.substitutions, micro.deletions, micro.insertions) == tuple(wrong.values())


@given(some_files)
def test_the_truth_scores_one_and_silence_scores_zero(reference):
    perfect = event_scores(reference, reference, labels=list("xyz"))
    silent = event_scores(reference, {}, labels=list("xyz"))
    if any(reference.values()):
        assert (perfect.micro.f, perfect.macro_f, perfect.micro.error_rate) == (1.0, 1.0, 0.0)
        assert (silent.macro_f_zero_score, silent.micro.error_rate) == (0.0, 1.0)
        assert math.isnan(silent.macro_f), "sed_eval's mean has nothing left"
    else:
        assert math.isnan(perfect.macro_f_zero_score) and math.isnan(perfect.micro.error_rate)


def test_silence_on_a_class_raises_sed_evals_mean_and_lowers_ours():
    reference = {"a": [(0, 1, "easy"), (2, 3, "hard"), (4, 5, "hard")]}
    tried = segment_scores(reference, {"a": [(0, 1, "easy"), (2, 3, "hard")]}, 1.0)
    silent = segment_scores(reference, {"a": [(0, 1, "easy")]}, 1.0)
    assert silent.macro_f == 1.0 > tried.macro_f
    assert silent.macro_f_zero_score == 0.5 < tried.macro_f_zero_score


def test_borders_are_inclusive():
    reference = {"a": [(1.0, 2.0, "x")]}
    assert event_scores(reference, {"a": [(1.25, 2.25, "x")]}, 0.25, 0.0).micro.f == 1.0
    assert event_scores(reference, {"a": [(1.26, 2.0, "x")]}, 0.25, 0.0).micro.f == 0.0
    assert event_scores(reference, {"a": [(1.0, 2.5, "x")]}, 0.2, 0.5).micro.f == 1.0


def test_another_name_for_the_right_time_is_a_substitution():
    micro = event_scores({"a": [(1.0, 2.0, "x")]}, {"a": [(1.0, 2.0, "y"), (5.0, 6.0, "y")]}).micro
    assert (micro.substitutions, micro.deletions, micro.insertions, micro.error_rate) == (1, 0, 1, 2.0)


def test_frames_become_events_and_back():
    generator = np.random.default_rng(0)
    active_TL = generator.random((50, 3)) > 0.5
    events = frames_to_events(active_TL, list("xyz"), hop_s=0.5)
    assert events == sorted(events, key=lambda event: (event.onset, "xyz".index(event.label)))
    back_TL = np.zeros_like(active_TL)
    for event in events:
        back_TL[round(event.onset / 0.5) : round(event.offset / 0.5), "xyz".index(event.label)] = True
    assert (back_TL == active_TL).all()
    assert frames_to_events([[1], [1], [0], [1]], ["x"], 1.0, start_s=2.0) == [Event(2, 4, "x"), Event(5, 6, "x")]
    assert frames_to_events(np.zeros((0, 2), bool), list("xy"), 1.0) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: event_scores({}, {}), "nothing to score"),
        (lambda: event_scores([(0, 1, "x")], {}), "dictionary"),
        (lambda: event_scores({"a": []}, {"b": []}), "not in the reference, such as 'b'"),
        (lambda: event_scores({"a": [(2, 1, "x")]}, {}), "0 <= onset <= offset"),
        (lambda: event_scores({"a": [(0, float("nan"), "x")]}, {}), "0 <= onset <= offset"),
        (lambda: event_scores({"a": [(0, 1)]}, {}), "onset, offset, label"),
        (lambda: event_scores({"a": [(0, 1, "x")]}, {}, labels=["y"]), "'x' is not among"),
        (lambda: event_scores({"a": []}, {}, t_collar=-1), "t_collar"),
        (lambda: segment_scores({"a": []}, {}, 0), "resolution"),
        (lambda: segment_scores({"a": []}, {}, durations={}), "durations lacks 'a'"),
        (lambda: segment_scores({"a": []}, {}, labels=["x", "x"]), "different names"),
        (lambda: frames_to_events(np.zeros((4, 2)), ["x"], 1.0), "1 labels"),
        (lambda: frames_to_events([[0.3]], ["x"], 1.0), "threshold"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_summary_names_the_headline_first():
    summary = scored("segment_1s", REFERENCE, ESTIMATED, LABELS, DURATIONS).as_dict()
    assert next(iter(summary)) == "macro_f_zero_score"
    assert summary["num_files"] == len(FILES)
