"""A study's folder, read; and what each participant sees of it: which trials, in which order, on which side.

Order and sides follow from the study's seed and the participant's number alone, so that nothing has to be kept for
somebody to go on later, and the server never takes the page's word for what stood where.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FORMAT = 1
PUBLIC, PRIVATE, MEDIA = "public", "private", "media"
TRIALS, KEY, ANSWERS = "trials.json", "key.json", "answers.jsonl"


@dataclass(frozen=True)
class Shown:
    """One trial as one participant sees it."""

    trial: str
    sound: str
    left: str
    right: str


class Study:
    """
    Args:
        folder: what `build` wrote.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.told = self.read(PUBLIC, TRIALS)
        self.key = self.read(PRIVATE, KEY)
        if self.told["study_id"] != self.key["study_id"]:
            raise ValueError(f"{folder} mixes two studies: its public and its private part have different ids")
        self.trials: dict[str, dict[str, Any]] = self.key["trials"]

    def read(self, part: str, name: str) -> dict[str, Any]:
        path = self.folder / part / name
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["format"] != FORMAT:
                raise ValueError(f"{path} has the format {told['format']}, and this code reads {FORMAT}")
            return told
        except FileNotFoundError:
            raise ValueError(
                f"{self.folder} is no study: {part}/{name} is not there. `unibrivl study build` makes one"
            ) from None
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} cannot be read ({error!r}): build the study again") from error

    @property
    def study_id(self) -> str:
        return self.told["study_id"]

    @property
    def answers_path(self) -> Path:
        return self.folder / PRIVATE / ANSWERS

    @cached_property
    def checks(self) -> set[str]:
        return {name for name, one in self.trials.items() if one["check"]}

    @cached_property
    def media(self) -> set[str]:
        return {name for one in self.trials.values() for name in (one["sound"], one["positive"], one["negative"])}

    def draw(self, what: str, participant: str, trial: str) -> bytes:
        return hashlib.sha256(f"{self.key['seed']}|{what}|{participant}|{trial}".encode()).digest()

    def session(self, participant: str) -> list[Shown]:
        """What a participant gets, in order; the same whenever it is asked for."""
        chosen = sorted(set(self.trials) - self.checks, key=lambda trial: self.draw("which", participant, trial))
        chosen = chosen[: self.key["trials_each"]] + sorted(self.checks)
        chosen.sort(key=lambda trial: self.draw("order", participant, trial))
        return [self.shown(participant, trial) for trial in chosen]

    def shown(self, participant: str, trial: str) -> Shown:
        one = self.trials[trial]
        left, right = sorted([one["positive"], one["negative"]])  # as in the public part
        if self.draw("side", participant, trial)[0] & 1:
            left, right = right, left
        return Shown(trial, one["sound"], left, right)
