"""What tests of the human study share: a table of made-up sounds and pictures, and answers put into a log."""

from __future__ import annotations

import csv
import json
import uuid
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unibrivl.evaluation.study import Study
from unibrivl.evaluation.study.answers import AnswerFile

CLASSES = ("dog", "rain", "bell")
SECRET = "a picture of a dog barking"  # what a generated picture's header tells


def write_table(folder: Path, systems=("ours", "theirs"), each: int = 2, photos: int = 3, tests=("",)) -> Path:
    """A table, with its files beside it: `each` sounds of each class, a picture of each by each system."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []

    def sound(name: str, seconds: float = 0.15) -> str:
        if not (folder / name).exists():
            tone = np.sin(np.arange(int(8000 * seconds)) * rng.uniform(0.1, 1.0)) * 0.2
            soundfile.write(folder / name, tone, 8000)
        return name

    def picture(name: str) -> str:
        told = PngInfo()
        told.add_text("receipt", SECRET)
        colours = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((48, 48)).save(folder / name, pnginfo=told)
        return name

    for test in tests:
        for label in CLASSES:
            for number in range(each):
                stem = f"{test}{label}{number}"
                for system in systems:
                    rows.append((sound(f"{stem}.wav"), picture(f"{stem}-{system}.png"), label, system, test))
    for number in range(photos):
        label = CLASSES[number % len(CLASSES)]
        rows.append((sound(f"photo{number}.wav"), picture(f"photo{number}.png"), label, "photo", ""))
    with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("sound", "image", "label", "system", "test"), *rows])
    return folder / "pairs.csv"


def participant(number: int) -> str:
    return str(uuid.UUID(int=number, version=4))


def given(study: Study, who: str, trial: str, choice: str) -> dict:
    """What the page sends."""
    return {
        **{"study_id": study.study_id, "participant": who, "trial_id": trial},
        **{"choice": choice, "rt_ms": 700, "audio_played": True},
    }


def side(study: Study, who: str, trial: str, kind: str) -> str:
    """The choice that is positive, negative or neither for a participant."""
    left_is_right = study.shown(who, trial).left == study.trials[trial]["positive"]
    return {"neither": "neither"}.get(kind) or ("left" if left_is_right == (kind == "positive") else "right")


def answer_all(study: Study, who: str, kind_of_trial) -> None:
    """Everything this participant gets, answered by a function of the trial's name and what the key says of it."""
    log = AnswerFile(study)
    for one in study.session(who):
        kind = kind_of_trial(one.trial, study.trials[one.trial])
        log.add(given(study, who, one.trial, side(study, who, one.trial, kind)))
    log.close()


def add_raw(study: Study, text: str) -> None:
    with open(study.answers_path, "a", encoding="utf-8") as file:
        file.write(text)


def lines(study: Study) -> list[dict]:
    return [json.loads(line) for line in study.answers_path.read_text(encoding="utf-8").splitlines()]
