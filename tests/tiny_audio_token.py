"""Tiny pipelines in which sounds are words, made offline."""

from __future__ import annotations

import numpy as np
import tiny_diffusion
import torch
from PIL import Image
from tiny_diffusion import SIDE

from unibrivl.modeling import AudioTokenAdapter
from unibrivl.modeling.features_audio_token import sound_features
from unibrivl.pipelines import AudioTokenPipeline, AudioTokenXLPipeline


def adapter_for(parts, model, processor, **fields) -> AudioTokenAdapter:
    """An adapter for the text encoders among `parts`, which hears with a matcher; its words differ from sound to
    sound by much, as those of a trained one do."""
    torch.manual_seed(3)
    encoders = {name: parts[name] for name in ("text_encoder", "text_encoder_2") if name in parts}
    width = sound_features(model, processor).width
    return AudioTokenAdapter.for_base(encoders, "tiny", audio_width=width, **{"hidden_size": 16, **fields}).eval()


def pipeline(kind=AudioTokenPipeline, seed: int = 0, adapter=None, **parts):
    """A pipeline of Stable Diffusion's components, with a matcher that is the ears too."""
    given = {**tiny_diffusion.sd_parts(seed), **parts}
    model, processor = tiny_diffusion.matcher()
    made = adapter_for(given, model, processor, **(adapter or {}))
    return tiny_diffusion.quiet(kind(**given, matcher=model, matcher_processor=processor, audio_adapter=made))


def xl_pipeline(seed: int = 0):
    parts = tiny_diffusion.xl_parts(seed)
    model, processor = tiny_diffusion.matcher()
    made = adapter_for(parts, model, processor)
    return tiny_diffusion.quiet(
        AudioTokenXLPipeline(**parts, matcher=model, matcher_processor=processor, audio_adapter=made)
    )


def picture(seed: int = 0, side: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))
