"""A folder that holds a study: what the page may know in `public`, which answer is which in `private`.

Nothing in `public` tells the two pictures of a trial apart. Files get random names, which no seed foretells; pictures
and sounds are written anew, since their headers hold titles, prompts and receipts; the pictures of a trial stand in
the order of their names.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import soundfile
from PIL import Image

from unibrivl.audio import load_audio
from unibrivl.data.pictures import open_picture
from unibrivl.evaluation.study.checks import checks, grey_noise
from unibrivl.evaluation.study.folder import ANSWERS, FORMAT, KEY, MEDIA, PRIVATE, PUBLIC, TRIALS
from unibrivl.evaluation.study.pairing import Duel
from unibrivl.evaluation.study.pairs import PHOTO, read_pairs
from unibrivl.evaluation.study.presets import CHECKS, preset_named
from unibrivl.utils.state_of_code import version

PAGE = ("index.html", "page.css", "page.js")
LARGEST = 1024  # pixels a side: more is not seen on a page with two pictures
TITLE = "Sounds and pictures"
CONSENT = (
    "In this study you hear short sounds and say which of two pictures fits each of them.",
    "Taking part is voluntary. You may stop at any time by closing this page; what you have answered until then is "
    "kept.",
    "We keep your answers, how long you took for them and when, under a random number. We do not ask for your name, "
    "and neither it nor your address is kept.",
)


def build(
    pairs: str | os.PathLike,
    out: str | os.PathLike,
    *,
    preset: str = "unibrivl",
    seed: int | None = None,
    num_checks: int = CHECKS,
    trials_each: int | None = None,
    title: str = TITLE,
    consent: Sequence[str] = CONSENT,
) -> Path:
    """Write the folder of a study and return it.

    Args:
        pairs: a table with the columns sound, image, system and label, and test if there are several; see `pairs`.
        out: the folder; it must not exist, or be empty.
        preset (`str`, *optional*, defaults to `"unibrivl"`): see `presets`.
        seed (`int`, *optional*): of which pictures meet, and of each participant's order and sides. It is drawn and
            written down if None. Names of files are random in any case.
        num_checks (`int`, *optional*, defaults to 3): attention checks; each participant gets all.
        trials_each (`int`, *optional*): how many trials a participant gets besides; all if None.
        title, consent (*optional*): what the page says first; consent is a paragraph each.
    """
    out, chosen = Path(out), preset_named(preset)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: name a new folder, so that no answers are lost")
    if num_checks < 0 or (trials_each is not None and trials_each < 1):
        raise ValueError(f"there cannot be {num_checks} checks and {trials_each} trials for each participant")
    if not any(line.strip() for line in consent):
        raise ValueError("the text that participants agree to is empty")
    seed = secrets.randbits(63) if seed is None else seed
    rng = random.Random(seed)
    rows = read_pairs(pairs, chosen.labels)
    tested = [row for row in rows if row.system != PHOTO]
    if not tested:
        raise ValueError(f"every row of {pairs} is of the system {PHOTO!r}, which makes checks only")
    duels = chosen.pairing(tested, rng) + checks([row for row in rows if row.system == PHOTO], num_checks, rng)
    if trials_each is not None:
        trials_each = min(trials_each, len(duels) - num_checks)

    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        (partial / PUBLIC / MEDIA).mkdir(parents=True)
        (partial / PRIVATE).mkdir(mode=0o700)
        media = Media(partial / PUBLIC / MEDIA)
        key = dict(sorted(key_of(duel, media, rng) for duel in duels))
        study_id = secrets.token_hex(8)
        count = len(duels) if trials_each is None else trials_each + num_checks
        told = {
            "format": FORMAT,
            "study_id": study_id,
            "title": title,
            "question": chosen.question,
            "consent": [line.strip() for line in consent if line.strip()],
            "num_trials": count,
            "trials": [
                {"trial": name, "sound": one["sound"], "images": sorted([one["positive"], one["negative"]])}
                for name, one in key.items()
            ],
        }
        held = {
            "format": FORMAT,
            "study_id": study_id,
            "preset": preset,
            "seed": seed,
            "trials_each": trials_each,
            "commit": version(),
            "built": datetime.now(UTC).isoformat(timespec="seconds"),
            "trials": key,
        }
        write_json(partial / PUBLIC / TRIALS, told)
        write_json(partial / PRIVATE / KEY, held)
        (partial / PRIVATE / ANSWERS).touch()
        for name in PAGE:
            (partial / PUBLIC / name).write_bytes(files("unibrivl.evaluation.study").joinpath(name).read_bytes())
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def key_of(duel: Duel, media: Media, rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A trial's random name, and all that is known of it."""
    positive, size = media.picture(duel.positive)
    negative = media.noise(size, rng) if duel.check else media.picture(duel.negative)[0]
    return secrets.token_hex(8), {
        "sound": media.sound(duel.sound),
        "positive": positive,
        "negative": negative,
        "system": duel.system,
        "test": duel.test,
        "label": duel.label,
        "opponent": duel.opponent,
        "check": duel.check,
        "files": [duel.sound, duel.positive, duel.negative],
    }


class Media:
    """Copies under random names, one of each file however often it is seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: dict[str, str] = {}
        self.sizes: dict[str, tuple[int, int]] = {}

    def picture(self, path: str) -> tuple[str, tuple[int, int]]:
        if path not in self.kept:
            picture = open_picture(path)
            picture.thumbnail((LARGEST, LARGEST))
            self.kept[path], self.sizes[path] = self.write(picture), picture.size
        return self.kept[path], self.sizes[path]

    def noise(self, size: tuple[int, int], rng: random.Random) -> str:
        return self.write(grey_noise(size, rng))

    def write(self, picture: Image.Image) -> str:
        name = f"{secrets.token_hex(16)}.png"
        plain = Image.new("RGB", picture.size)
        plain.paste(picture)  # a new picture has no words in its header
        plain.save(self.folder / name)
        return name

    def sound(self, path: str) -> str:
        if path not in self.kept:
            waveform = load_audio(path)
            name = f"{secrets.token_hex(16)}.wav"
            soundfile.write(self.folder / name, waveform.samples, waveform.rate_hz, subtype="PCM_16")
            self.kept[path] = name
        return self.kept[path]


def write_json(path: Path, told: dict[str, Any]) -> None:
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
