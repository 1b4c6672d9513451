"""Scores that say what they stand on, and the files and tables they are kept in.

A score without a command, a state of the code and the number of clips it was made on cannot be made: `Score` refuses.
Fractions are from 0 to 1 inside, and percent nowhere.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1


class ScoreError(ValueError):
    """A score that could not be made again."""


@dataclass(frozen=True)
class Score:
    """
    Args:
        benchmark, metric (`str`): such as "esc50" and "zero_shot_accuracy".
        value (`float`): and the bounds of its 95 % interval, `low` and `high`, where it has one.
        n, expected (`int`): items it was made on, and how many there are officially.
        protocol (`str`): what exactly was done, with a version.
        model, fingerprint (`str`): what was measured.
        command, commit (`str`): what was run, of which state of the code.
        chance (`float`, *optional*): what guessing reaches.
        seed (`int`, *optional*): where chance decides something.
        missing (`tuple[str, ...]`): ids of items that the lists name and the disk does not hold, or that are broken.
        extra (`dict`): what else belongs to it, such as the scores of the folds.
    """

    benchmark: str
    metric: str
    value: float
    n: int
    expected: int
    protocol: str
    model: str
    fingerprint: str
    command: str
    commit: str
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    seed: int | None = None
    missing: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("benchmark", "metric", "protocol", "model", "fingerprint", "command", "commit"):
            if not getattr(self, name):
                raise ScoreError(f"a score without {name} could not be made again: say what was run, and of what")
        if not math.isfinite(self.value) or self.n < 1:
            raise ScoreError(f"{self.metric} is {self.value} on {self.n} items, which is no score")

    @property
    def interval(self) -> str:
        return "" if self.low is None or self.high is None else f"{self.low:.4f} to {self.high:.4f}"


def write_scores(path: str | os.PathLike, scores: Sequence[Score]) -> None:
    """A file that is whole or not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    told = {"format": FORMAT, "scores": [asdict(one) for one in scores]}
    partial.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_scores(path: str | os.PathLike) -> list[Score]:
    """What `write_scores` wrote; anything else is an error that says why."""
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ScoreError(f"{path} has the format {told['format']}, and this code reads {FORMAT}: evaluate again")
        return [Score(**{**row, "missing": tuple(row.get("missing", ()))}) for row in told["scores"]]
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ScoreError(f"{path} holds no scores ({error!r}): evaluate again") from error


def markdown(scores: Sequence[Score], reported: Mapping[tuple[str, str], Sequence[Any]] | None = None) -> str:
    """A table: what papers report and what was measured stand in columns of their own.

    Args:
        reported (*optional*): (benchmark, metric) -> figures; see `reported`.
    """
    lines = [
        "| benchmark | metric | reported | measured | interval, 95 % | chance | clips | seed | model | commit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in scores:
        figures = (reported or {}).get((one.benchmark, one.metric), ())
        told = "; ".join(f"{figure.value:.4f} {figure.system} ({figure.source})" for figure in figures)
        chance = "" if one.chance is None else f"{one.chance:.4f}"
        seed = "" if one.seed is None else str(one.seed)
        lines.append(
            f"| {one.benchmark} | {one.metric} | {told} | {one.value:.4f} | {one.interval} | {chance} | "
            f"{one.n} / {one.expected} | {seed} | {one.model} | {one.commit} |"
        )
    return "\n".join(lines) + "\n"
