"""What tests of the page's index share: a folder of made sounds and pictures, and an index of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image, ImageDraw

RATE_HZ = 16_000
TONES_HZ = (220, 440, 880)
COLOURS = ("red", "green", "blue")


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def write_sound(path: Path, hz: float = 440, seconds: float = 1.0) -> Path:
    soundfile.write(path, tone(hz, seconds), RATE_HZ)
    return path


def write_picture(path: Path, colour: str = "red", size: tuple[int, int] = (64, 48)) -> Path:
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).ellipse((8, 8, 40, 40), fill=colour)
    picture.save(path)
    return path


def write_files(folder: Path) -> Path:
    """Three tones and three pictures."""
    folder.mkdir(parents=True)
    for hz in TONES_HZ:
        write_sound(folder / f"{hz}.wav", hz)
    for colour in COLOURS:
        write_picture(folder / f"{colour}.png", colour)
    return folder


def index_of(folder: Path, out: Path, embedder: Any, windows: bool = True) -> Path:
    """As `unibrivl index` makes it."""
    from unibrivl.embedder.inputs import find_inputs
    from unibrivl.search import Index, update

    settings = {"windows": windows, "window_s": None, "revision": None}
    with Index.create(out, fingerprint=embedder.fingerprint, model="embedded", settings=settings) as index:
        update(index, embedder, find_inputs([folder]), folders=[folder], windows=windows, progress=False)
    return out
