"""Folders of a few sounds and pictures, and a tiny image tower on the disk: what the recipe `pairs` is tested with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

RATE_HZ, SIDE = 16_000, 32


def tone(path: Path, pitch_hz: float, seconds: float = 0.4, rate_hz: int = RATE_HZ) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    soundfile.write(path, (0.3 * np.sin(2 * np.pi * pitch_hz * times)).astype(np.float32), rate_hz)


def picture(path: Path, colour: tuple[int, int, int], side: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 3), colour, dtype=np.uint8)
    pixels[: side // 3] = 255 - pixels[: side // 3]
    Image.fromarray(pixels).save(path)


def by_stem(folder: Path, number: int = 12) -> Path:
    """`thing_00.wav` beside `thing_00.png`, of 0.3 to 0.5 s."""
    for place in range(number):
        tone(folder / f"thing_{place:02}.wav", 200 + 150 * place, 0.3 + 0.1 * (place % 3))
        picture(folder / f"thing_{place:02}.png", (20 * place, 250 - 20 * place, 60 * place % 256))
    return folder


def by_label(folder: Path, labels: int = 3, sounds: int = 4, pictures: int = 5) -> Path:
    """Sounds and pictures of a class in its folder, of other names."""
    for label in range(labels):
        for place in range(sounds):
            tone(folder / f"class_{label}" / f"heard_{place}.wav", 300 * (label + 1) + 5 * place)
        for place in range(pictures):
            picture(folder / f"class_{label}" / f"seen_{place}.png", (80 * label, 10 * place, 200))
    return folder


def image_tower(folder: Path) -> Path:
    """A tiny CLIP, saved with its processor as from the Hub."""
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**shape, image_size=SIDE, patch_size=8, projection_dim=24))
    tower.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        folder
    )
    return folder
