"""What tests of audio tokens share: a tiny base saved as a folder, sounds and pictures, an adapter that fits."""

from __future__ import annotations

from pathlib import Path

import tiny_diffusion
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from tiny_pairs import picture, tone

from unibrivl.modeling import AudioTokenAdapter
from unibrivl.training.diffusion_base import DiffusionBase


def stock(seed: int = 0, **parts) -> StableDiffusionPipeline:
    """Plain diffusers, of tiny components."""
    given = {**tiny_diffusion.sd_parts(seed), **parts}
    return tiny_diffusion.quiet(StableDiffusionPipeline(**given, requires_safety_checker=False))


def stock_xl(seed: int = 0) -> StableDiffusionXLPipeline:
    return tiny_diffusion.quiet(StableDiffusionXLPipeline(**tiny_diffusion.xl_parts(seed)))


def base(seed: int = 0, **parts) -> DiffusionBase:
    return DiffusionBase.of_pipeline(stock(seed, **parts), "tiny")


def adapter(of: DiffusionBase, **fields) -> AudioTokenAdapter:
    torch.manual_seed(1)
    small = {"audio_width": 24, "hidden_size": 16, "num_resampler_heads": 2, "num_resampler_layers": 1}
    return AudioTokenAdapter.for_base(of.text_encoders, of.name, **{**small, **fields})


def batch_of(of: DiffusionBase, number: int = 3, seed: int = 0, text: str = "a photo of <audio>") -> dict:
    """What `LatentDiffusionLoss` takes, drawn."""
    chance = torch.Generator().manual_seed(seed)
    side = of.side // of.scale
    return {
        "features": torch.randn(number, 5, 24, generator=chance),
        "feature_mask": torch.ones(number, 5, dtype=torch.long),
        "latents": torch.randn(number, 4, side, side, generator=chance),
        "noise": torch.randn(number, 4, side, side, generator=chance),
        "timestep": torch.randint(0, 1000, (number,), generator=chance),
        "text": [text] * number,
        "label_text": ["dog", "rain", "cat", "wind", "bell", "crow"][:number],
    }


def pictures(folder: Path, number: int = 3) -> Path:
    for place in range(number):
        picture(folder / f"seen_{place}.png", (80 * place, 40, 200 - 50 * place))
    return folder


def sound(path: Path) -> Path:
    tone(path, 440.0)
    return path


def red(side: int = 40) -> Image.Image:
    return Image.new("RGB", (side, side + 8), (200, 30, 30))
