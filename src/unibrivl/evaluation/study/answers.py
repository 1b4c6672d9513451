"""What participants answered: one line of JSON each, only ever added to, on the disk before anybody is told so.

A kill may leave the last line half written. It is skipped and counted when read, and the next answer begins on a line
of its own.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unibrivl.evaluation.study.folder import Study

CHOICES = ("left", "right", "neither")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
GIVEN = ("study_id", "participant", "trial_id", "choice", "rt_ms", "audio_played")
FIELDS = (
    *("study_id", "participant", "trial_id", "left_id", "right_id", "positive_side"),
    *("choice", "rt_ms", "audio_played", "ts"),
)
LONGEST_MS = 24 * 3600 * 1000


class AnswerError(ValueError):
    """An answer that is not taken, with the status that HTTP has for why."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


@dataclass
class Log:
    """Answers in the order they came, and the numbers of lines that are none."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)


def is_participant(given: Any) -> bool:
    return isinstance(given, str) and UUID.fullmatch(given) is not None


def checked(given: Any, study: Study) -> dict[str, Any]:
    """What the page sent as a line of the log; sides and ids come from the study and not from the page."""
    if not isinstance(given, Mapping) or set(given) != set(GIVEN):
        raise AnswerError(f"an answer is an object with {', '.join(GIVEN)}")
    if given["study_id"] != study.study_id:
        raise AnswerError("this is an answer to another study: reload the page", 410)
    if not is_participant(given["participant"]):
        raise AnswerError("participant must be a random UUID (version 4) in lower case")
    shown = {one.trial: one for one in study.session(given["participant"])}
    if not isinstance(given["trial_id"], str) or given["trial_id"] not in shown:
        raise AnswerError("this participant has no such trial", 404)
    if given["choice"] not in CHOICES:
        raise AnswerError(f"choice must be one of {', '.join(CHOICES)}")
    if type(given["rt_ms"]) is not int or not 0 <= given["rt_ms"] <= LONGEST_MS:
        raise AnswerError("rt_ms must be whole milliseconds, of a day at most")
    if given["audio_played"] is not True:
        raise AnswerError("the sound must be played before the answer")
    one = shown[given["trial_id"]]
    positive = study.trials[one.trial]["positive"]
    values = {
        **given,
        "left_id": one.left,
        "right_id": one.right,
        "positive_side": "left" if positive == one.left else "right",
        "ts": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    return {name: values[name] for name in FIELDS}


def read_log(path: str | os.PathLike) -> Log:
    """Every whole line of a log; what is no answer is counted by its line's number."""
    log = Log()
    path = Path(path)
    if not path.exists():
        return log
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            answer = json.loads(line)
            whole = isinstance(answer, dict) and set(answer) == set(FIELDS)
        except ValueError:  # neither JSON nor UTF-8
            whole = False
        if whole:
            log.answers.append(answer)
        else:
            log.broken.append(number)
    return log


class AnswerFile:
    """The log of a study while its server runs."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.lock = threading.Lock()
        log = read_log(study.answers_path)
        self.broken = log.broken
        self.answered: dict[str, set[str]] = {}
        for answer in log.answers:
            if answer["study_id"] == study.study_id:
                self.answered.setdefault(answer["participant"], set()).add(answer["trial_id"])
        self.file = study.answers_path.open("ab", buffering=0)
        content = study.answers_path.read_bytes()
        self.torn = bool(content) and not content.endswith(b"\n")

    def add(self, given: Any) -> int:
        """Take an answer; how many this participant has given then."""
        answer = checked(given, self.study)
        line = json.dumps(answer).encode() + b"\n"
        with self.lock:
            answered = self.answered.setdefault(answer["participant"], set())
            if answer["trial_id"] in answered:
                raise AnswerError("this trial is answered already", 409)
            line = b"\n" + line if self.torn else line
            self.torn = True  # until the line is whole
            if self.file.write(line) != len(line):
                raise OSError("the answer could not be written whole: is the disk full?")
            self.torn = False
            os.fsync(self.file.fileno())
            answered.add(answer["trial_id"])
            return len(answered)

    def of(self, participant: str) -> list[str]:
        with self.lock:
            return sorted(self.answered.get(participant, ()))

    def close(self) -> None:
        self.file.close()
