"""The packs of the small world in miniature, made up: squares and tones by class, in the packs' own layout."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

RATE_HZ = 16_000
OPEN, CLOSED = "CC-BY-4.0", "ImageNet-terms (non-commercial research and education only)"
CLASSES = ("chainsaw", "clock_tick", "dog", "rain", "rooster")  # of ESC-10; chainsaw has no picture
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_packs(root: Path, per_class: int = 4) -> Path:
    """`sounds_and_pictures` and `spoken_digits` below `root`, which comes back.

    Dogs' first photograph and all of class `cat` have no open licence.
    """
    chance = np.random.default_rng(0)
    pack = root / "sounds_and_pictures"
    write_rows(pack / "audio", [sound_row(pack / "audio", label, number, chance)
                                for label in (*CLASSES, "cat") for number in range(per_class)])  # fmt: skip
    write_rows(pack / "photos", [picture_row(pack / "photos", label, number, chance)
                                 for label in (*CLASSES[1:], "cat") for number in range(3 * per_class)])  # fmt: skip
    write_rows(pack / "pictograms", [drawing_row(pack / "pictograms", label, style, chance)
                                     for label in CLASSES[1:] for style in ("noto", "emojitwo")])  # fmt: skip
    digits = root / "spoken_digits"
    write_rows(digits / "audio", [spoken_row(digits / "audio", number, take, chance)
                                  for number in range(10) for take in range(3)])  # fmt: skip
    for split, count in (("train", 40), ("test", 20)):
        write_idx(digits / "digits", split, count, chance)
    return root


def write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def tone(pitch_hz: float, seconds: float, chance: np.random.Generator) -> np.ndarray:
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    sound = 0.3 * np.sin(2 * np.pi * pitch_hz * time_s) + 0.01 * chance.standard_normal(len(time_s))
    return sound.astype(np.float32)


def sound_row(folder: Path, label: str, number: int, chance: np.random.Generator) -> dict[str, str]:
    path = folder / label / f"{number}.ogg"
    path.parent.mkdir(parents=True, exist_ok=True)
    pitch = 200.0 * (1 + (*CLASSES, "cat").index(label))
    soundfile.write(path, tone(pitch, 1.0, chance), RATE_HZ)
    is_core = label != "cat"
    return {
        "file_name": f"{label}/{number}.ogg", "label": label, "esc10": str(is_core), "fold": str(number % 4 + 1),
        "split": "test" if number == 3 else "train", "source_id": f"{label}{number}",
        "clip_licence": "CC0-1.0", "set_licence": "CC-BY-3.0 (ESC-10)" if is_core else "CC-BY-NC-3.0 (ESC-50)",
        "attribution": f"somebody's {label}",
    }  # fmt: skip


def painted(path: Path, label: str, chance: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((64, 64, 3), 40 * (1 + (*CLASSES, "cat").index(label)) % 256, np.uint8)
    pixels[16:48, 16:48] = chance.integers(0, 256, 3)
    Image.fromarray(pixels).save(path)


def picture_row(folder: Path, label: str, number: int, chance: np.random.Generator) -> dict[str, str]:
    name = f"{label}/{number}.png"
    painted(folder / name, label, chance)
    closed = label == "cat" or (label == "dog" and number == 0)
    return {"file_name": name, "label": label, "split": "test" if number % 6 == 5 else "train",
            "licence": CLOSED if closed else OPEN, "attribution": f"a photographer of {label}"}  # fmt: skip


def drawing_row(folder: Path, label: str, style: str, chance: np.random.Generator) -> dict[str, str]:
    name = f"{label}/{style}.png"
    painted(folder / name, label, chance)
    return {"file_name": name, "label": label, "style": style, "split": "train", "licence": "Apache-2.0",
            "attribution": style}  # fmt: skip


def spoken_row(folder: Path, number: int, take: int, chance: np.random.Generator) -> dict[str, str]:
    name = f"ann/{number}_ann_{take}.flac"
    (folder / "ann").mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / name, tone(300.0 + 60 * number, 0.4, chance), RATE_HZ)
    return {"file_name": name, "label": str(number), "word": WORDS[number], "speaker": "ann",
            "split": "test" if take == 0 else "train", "licence": "CC-BY-SA-4.0", "attribution": "Ann"}  # fmt: skip


def write_idx(folder: Path, split: str, count: int, chance: np.random.Generator) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = chance.integers(0, 256, (count, 28, 28), np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    for name, array, kind in (("images-idx3", pixels, 3), ("labels-idx1", labels, 1)):
        head = b"\0\0\x08" + bytes([kind]) + np.array(array.shape, ">i4").tobytes()
        with gzip.open(folder / f"{split}-{name}-ubyte.gz", "wb") as file:
            file.write(head + array.tobytes())
