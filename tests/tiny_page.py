"""What tests of the page share: a tiny pipeline with two label banks, sounds to upload, and a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import tiny_audio_token
import tiny_diffusion
from PIL import Image

BANKS = {
    "photo": {"dog": "a photo of a dog", "rain": "a photo of rain", "cat": "a photo of a cat"},
    "drawing": {"dog": "a drawing of a dog", "cat": "a drawing of a cat", "hen": "a drawing of a hen"},
}
LABELS = ["dog", "rain", "cat", "hen"]  # of both banks, each once
QUICK = {"candidates": 2, "steps": 2}


def pipeline() -> Any:
    return tiny_diffusion.pipeline(reads="native", label_banks=BANKS)


def write_sound(path: Path, seed: int = 0, seconds: float = 0.5) -> Path:
    soundfile.write(path, tiny_diffusion.sound(seed, seconds), tiny_diffusion.RATE_HZ)
    return path


def write_pictures(folder: Path, count: int = 5) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"picture {number}.png")
    return folder


def workshop(studio: Any) -> Any:
    """What changes pictures, with the components of the studio's pipeline and an adapter; its ears are the matcher."""
    from unibrivl.app.workshop import Workshop
    from unibrivl.pipelines import AudioTokenEditPipeline

    parts = studio.pipe.components
    adapter = tiny_audio_token.adapter_for(parts, parts["matcher"], parts["matcher_processor"])
    return Workshop(tiny_diffusion.quiet(AudioTokenEditPipeline(**parts, audio_adapter=adapter)), studio)


def salon(folder: Path, write: Any, count: int = 10, **fields: Any) -> Any:
    """What finds pictures by spoken sentences: a tiny BrewCLIP, and a folder of pictures below this one.

    Args:
        write: clips -> what is said in each.
        fields: more for the matcher.
    """
    import tiny_brewclip

    from unibrivl.app.folder import PictureFolder
    from unibrivl.app.limits import Limits
    from unibrivl.app.salon import Salon
    from unibrivl.embedder import Embedder
    from unibrivl.modeling import BrewCLIPMatcher

    matcher = BrewCLIPMatcher(tiny_brewclip.build(), tiny_brewclip.processor(), transcriber=write, **fields)
    embedder = Embedder(matcher)
    pictures = PictureFolder(write_pictures(folder / "said", count), embedder, folder / "cache")
    return Salon(embedder, pictures, Limits(megabytes=0.2))
