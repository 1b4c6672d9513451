"""Sound events found in files: segment- and event-based F1 and error rate, as sed_eval counts them.

Files are judged one by one and their counts added up. What sed_eval's default hides is said here: its macro mean
leaves out every class that the system never names, so silence on a hard class raises the score. `macro_f_zero_score`
gives such a class 0 and is the number to look at; `macro_f` is sed_eval's, for comparison with the literature.

Shapes: S segments of a file, L labels, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

__all__ = ["EVENT_PRESETS", "Event", "EventScores", "event_scores", "frames_to_events", "segment_scores"]

# What the literature calls by name: arguments of `segment_scores` (with a resolution) and `event_scores`.
EVENT_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "segment_1s": {"resolution": 1.0},
    "segment_0.1s": {"resolution": 0.1},
    "event_sed_eval_default": {"t_collar": 0.2, "percentage_of_length": 0.5, "evaluate_offset": True},
    "event_dcase": {"t_collar": 0.2, "percentage_of_length": 0.2, "evaluate_offset": True},
    "event_onset_only": {"t_collar": 0.2, "percentage_of_length": 0.5, "evaluate_offset": False},
}


class Event(NamedTuple):
    """A sound with a name, from `onset` to `offset` in seconds."""

    onset: float
    offset: float
    label: str


Files = Mapping[str, Iterable[tuple[float, float, str]]]


@dataclass(frozen=True)
class Scores:
    """Counts and what follows from them. A rate whose denominator is zero is NaN; F is NaN if P or R is.

    `true_positives`, `reference` and `estimated` count segments or events; the error rate is
    (substitutions + deletions + insertions) / reference.
    """

    true_positives: int
    reference: int
    estimated: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def precision(self) -> float:
        return self.true_positives / self.estimated if self.estimated else math.nan

    @property
    def recall(self) -> float:
        return self.true_positives / self.reference if self.reference else math.nan

    @property
    def f(self) -> float:
        if self.reference == 0 or self.estimated == 0:
            return math.nan
        return 2 * self.true_positives / (self.reference + self.estimated)

    @property
    def f_zero_score(self) -> float:
        """F that is 0 where something was there and nothing was said; NaN where nothing was there."""
        if self.reference == 0:
            return math.nan
        return 0.0 if self.estimated == 0 else self.f

    @property
    def error_rate(self) -> float:
        errors = self.substitutions + self.deletions + self.insertions
        return errors / self.reference if self.reference else math.nan


@dataclass(frozen=True)
class EventScores:
    """The scores of a set of files.

    Args:
        micro (`Scores`): all labels together.
        class_wise (`dict[str, Scores]`): each label; a class of its own knows no substitutions.
        num_files (`int`): files that were judged, those without any event included.
    """

    micro: Scores
    class_wise: dict[str, Scores]
    num_files: int

    @property
    def macro_precision(self) -> float:
        return nan_mean(scores.precision for scores in self.class_wise.values())

    @property
    def macro_recall(self) -> float:
        return nan_mean(scores.recall for scores in self.class_wise.values())

    @property
    def macro_f(self) -> float:
        """sed_eval's default: the mean over the classes that are both there and named by the system."""
        return nan_mean(scores.f for scores in self.class_wise.values())

    @property
    def macro_f_zero_score(self) -> float:
        """The headline: the mean over all classes that are there; one the system never names counts 0."""
        return nan_mean(scores.f_zero_score for scores in self.class_wise.values())

    @property
    def macro_error_rate(self) -> float:
        return nan_mean(scores.error_rate for scores in self.class_wise.values())

    def as_dict(self) -> dict[str, float]:
        """The summary as plain numbers."""
        return {
            "macro_f_zero_score": self.macro_f_zero_score,
            "macro_f": self.macro_f,
            "macro_precision": self.macro_precision,
            "macro_recall": self.macro_recall,
            "micro_f": self.micro.f,
            "micro_precision": self.micro.precision,
            "micro_recall": self.micro.recall,
            "error_rate": self.micro.error_rate,
            "num_files": self.num_files,
        }


def segment_scores(
    reference_files: Files,
    estimated_files: Files,
    resolution: float = 1.0,
    durations: Mapping[str, float] | None = None,
    labels: Sequence[str] | None = None,
) -> EventScores:
    """Was the right label active in each stretch of `resolution` seconds?

    An event is active in every segment it touches.

    Args:
        reference_files (`Mapping[str, Iterable[Event]]`): file name -> its events, or tuples (onset, offset, label).
        estimated_files (`Mapping`): the same for the system. A file it left out has no events; a file that is not in
            the reference is refused.
        resolution (`float`): seconds.
        durations (`Mapping[str, float]`, *optional*): seconds of each file: what lies behind is not judged. Without
            it a file ends with its last event, named or true.
        labels (`Sequence[str]`, *optional*): the classes; those that occur if None.
    """
    positive_finite(resolution, "resolution")
    reference, estimated, labels = checked(reference_files, estimated_files, labels)
    column = {label: index for index, label in enumerate(labels)}
    counts_L3: np.ndarray = np.zeros((len(labels), 3), int)  # true positives, reference, estimated
    substitutions = deletions = insertions = 0
    for name, truth in reference.items():
        if durations is None:
            end_s = max((event.offset for event in [*truth, *estimated[name]]), default=0.0)
        elif name in durations:
            end_s = non_negative_finite(durations[name], f"durations[{name!r}]")
        else:
            raise ValueError(f"durations lacks {name!r}: give every file of the reference its seconds, or none")
        num_segments = math.ceil(end_s * 1 / resolution)
        truth_SL = activity(truth, column, num_segments, resolution)
        system_SL = activity(estimated[name], column, num_segments, resolution)
        hits_SL = truth_SL & system_SL
        counts_L3 += np.stack([roll_SL.sum(0) for roll_SL in (hits_SL, truth_SL, system_SL)], 1)
        hits_S, truth_S, system_S = (roll_SL.sum(1) for roll_SL in (hits_SL, truth_SL, system_SL))
        substitutions += int((np.minimum(truth_S, system_S) - hits_S).sum())
        deletions += int(np.maximum(0, truth_S - system_S).sum())
        insertions += int(np.maximum(0, system_S - truth_S).sum())
    total = [int(count) for count in counts_L3.sum(0)]
    micro = Scores(total[0], total[1], total[2], substitutions, deletions, insertions)
    return EventScores(micro, {label: of_one_class(*counts_L3[column[label]]) for label in labels}, len(reference))


def activity(events: list[Event], column: Mapping[str, int], num_segments: int, resolution: float) -> np.ndarray:
    """(S, L) whether a label is active in a segment."""
    roll_SL: np.ndarray = np.zeros((num_segments, len(column)), bool)
    for event in events:
        # Times are divided as sed_eval does it: x * 1 / r. Another order moves borders by one segment (3.0 and 0.1).
        first, behind = math.floor(event.onset * 1 / resolution), math.ceil(event.offset * 1 / resolution)
        roll_SL[first:behind, column[event.label]] = True
    return roll_SL


def event_scores(
    reference_files: Files,
    estimated_files: Files,
    t_collar: float = 0.2,
    percentage_of_length: float = 0.5,
    evaluate_offset: bool = True,
    labels: Sequence[str] | None = None,
) -> EventScores:
    """Was each event found, with its borders?

    An estimated event matches a true one of its label if the onsets lie within `t_collar` and the offsets within the
    larger of `t_collar` and `percentage_of_length` of the true event, borders included. In each file as many pairs as
    possible are matched, each event once. Events left over that would match but for the label are substitutions.

    Args:
        reference_files (`Mapping[str, Iterable[Event]]`): file name -> its events, or tuples (onset, offset, label).
        estimated_files (`Mapping`): the same for the system, as in `segment_scores`.
        t_collar (`float`): seconds.
        percentage_of_length (`float`): a share, 0.5 in sed_eval and 0.2 in DCASE.
        evaluate_offset (`bool`): False looks at onsets only.
        labels (`Sequence[str]`, *optional*): the classes; those that occur if None.
    """
    non_negative_finite(t_collar, "t_collar")
    non_negative_finite(percentage_of_length, "percentage_of_length")
    reference, estimated, labels = checked(reference_files, estimated_files, labels)
    counts: dict[str, np.ndarray] = {
        label: np.zeros(3, int) for label in labels
    }  # true positives, reference, estimated
    substitutions = 0
    for name, truth in reference.items():
        system = estimated[name]
        near = [near_ones(event, system, t_collar, percentage_of_length, evaluate_offset) for event in truth]
        of_label = [[s for s in near[t] if system[s].label == event.label] for t, event in enumerate(truth)]
        match_of = maximum_matching(of_label, len(system))  # system event -> true event, or -1
        for event in truth:
            counts[event.label][1] += 1
        for s, event in enumerate(system):
            counts[event.label] += (match_of[s] >= 0, 0, 1)
        matched = set(match_of)
        taken = {s for s, t in enumerate(match_of) if t >= 0}
        for t in range(len(truth)):  # in the order of the lists and first come, first served, as in sed_eval
            if t not in matched:
                free = next((s for s in near[t] if s not in taken), None)
                if free is not None:
                    taken.add(free)
                    substitutions += 1
    hits, num_reference, num_estimated = (int(count) for count in sum(counts.values(), np.zeros(3, int)))
    micro = Scores(
        hits,
        num_reference,
        num_estimated,
        substitutions,
        deletions=num_reference - hits - substitutions,
        insertions=num_estimated - hits - substitutions,
    )
    return EventScores(micro, {label: of_one_class(*counts[label]) for label in labels}, len(reference))


def near_ones(
    true: Event, system: list[Event], t_collar: float, percentage_of_length: float, evaluate_offset: bool
) -> list[int]:
    """Which estimated events have the borders of a true one."""
    slack_s = max(t_collar, percentage_of_length * (true.offset - true.onset))
    return [
        number
        for number, event in enumerate(system)
        if abs(true.onset - event.onset) <= t_collar
        and (not evaluate_offset or abs(true.offset - event.offset) <= slack_s)
    ]


def maximum_matching(partners: Sequence[Sequence[int]], num_right: int) -> list[int]:
    """As many pairs as possible, each side used once: for every right one its left one, or -1.

    Each left one in turn looks for a way to a free right one, along which everybody before it moves over (Kuhn).

    Args:
        partners (`Sequence[Sequence[int]]`): for each left one the right ones it may have.
        num_right (`int`): how many right ones there are.
    """
    left_of = [-1] * num_right
    for start in range(len(partners)):
        came_from: dict[int, int] = {}  # right one -> the left one that reached it first
        queue, end = [start], None
        while queue and end is None:
            left = queue.pop(0)
            for right in partners[left]:
                if right not in came_from:
                    came_from[right] = left
                    if left_of[right] < 0:
                        end = right
                        break
                    queue.append(left_of[right])
        while end is not None:
            left = came_from[end]
            before = next((right for right in came_from if left_of[right] == left), None)
            left_of[end] = left
            end = before
    return left_of


def frames_to_events(active_TL: Any, labels: Sequence[str], hop_s: float, start_s: float = 0.0) -> list[Event]:
    """Frames that are on -> events: neighbours of one label are joined.

    Args:
        active_TL (`np.ndarray`): (T, L), true where a label is on. Scores must be compared with a threshold first.
        labels (`Sequence[str]`): the names of the columns.
        hop_s (`float`): seconds from one frame to the next, which is also what one frame lasts.
        start_s (`float`): where the first frame begins.

    Returns:
        `list[Event]`: by onset, then in the order of the columns.
    """
    active_TL = np.asarray(active_TL)
    if active_TL.ndim != 2 or active_TL.shape[1] != len(labels):
        raise ValueError(f"active_TL must be (frames, {len(labels)} labels) and is {active_TL.shape}")
    if active_TL.dtype != bool and not np.isin(active_TL, (0, 1)).all():
        raise ValueError("active_TL must be true or false: compare scores with a threshold first (scores > 0.5)")
    positive_finite(hop_s, "hop_s")
    closed_TL: np.ndarray = np.zeros((len(active_TL) + 2, len(labels)), np.int8)
    closed_TL[1:-1] = active_TL
    change_TL = np.diff(closed_TL, axis=0)
    events = []
    for column, label in enumerate(labels):
        begins, ends = (np.flatnonzero(change_TL[:, column] == sign) for sign in (1, -1))
        events += [
            (int(first), column, Event(start_s + int(first) * hop_s, start_s + int(behind) * hop_s, label))
            for first, behind in zip(begins, ends, strict=True)
        ]
    return [event for _, _, event in sorted(events, key=lambda found: found[:2])]


def of_one_class(hits: int, reference: int, estimated: int) -> Scores:
    hits, reference, estimated = int(hits), int(reference), int(estimated)
    return Scores(hits, reference, estimated, 0, deletions=reference - hits, insertions=estimated - hits)


def nan_mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def checked(
    reference_files: Files, estimated_files: Files, labels: Sequence[str] | None
) -> tuple[dict[str, list[Event]], dict[str, list[Event]], list[str]]:
    """Both sides as events, every file of the reference in both; and the labels."""
    for files, what in ((reference_files, "reference_files"), (estimated_files, "estimated_files")):
        if not isinstance(files, Mapping):
            raise ValueError(f"{what} must be a dictionary from file name to events, not {type(files).__name__}")
    if not reference_files:
        raise ValueError("reference_files is empty: there is nothing to score against")
    if strangers := sorted(set(estimated_files) - set(reference_files)):
        raise ValueError(
            f"{len(strangers)} estimated files are not in the reference, such as {strangers[0]!r}: a file without "
            "events belongs in the reference too, with an empty list"
        )
    reference = {name: events_of(name, events) for name, events in reference_files.items()}
    estimated = {name: events_of(name, estimated_files.get(name, ())) for name in reference_files}
    found = {event.label for files in (reference, estimated) for events in files.values() for event in events}
    if labels is None:
        return reference, estimated, sorted(found)
    if isinstance(labels, str) or len(set(labels)) != len(labels):
        raise ValueError(f"labels must be a list of different names, got {labels!r}")
    if unknown := sorted(found - set(labels)):
        raise ValueError(f"the label {unknown[0]!r} is not among the {len(labels)} labels: correct it or add it")
    return reference, estimated, list(labels)


def events_of(name: str, events: Iterable[tuple[float, float, str]]) -> list[Event]:
    checked_events = []
    for row in events:
        if len(row) != 3:
            raise ValueError(f"{name}: an event is (onset, offset, label), got {row!r}")
        event = Event(float(row[0]), float(row[1]), row[2])
        if not (math.isfinite(event.offset) and 0 <= event.onset <= event.offset):
            raise ValueError(f"{name}: {event} must have 0 <= onset <= offset, in seconds from the file's start")
        checked_events.append(event)
    return checked_events


def positive_finite(value: float, what: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{what} must be positive, got {value!r}")


def non_negative_finite(value: float, what: str) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{what} must not be negative, got {value!r}")
    return value
