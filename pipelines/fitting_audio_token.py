"""A picture made as large as a base draws: far from its own size a base draws noise, and large ones take all memory.

fitted(picture, *grid_of(pipe))        # of a photograph, 4000 x 3000, by a base of 64 x 64 and a grid of 16: 64 x 48
"""

import itertools
import math
from typing import Any

from PIL import Image, ImageOps

STRICT = 8  # diffusers takes no sides that are not multiples of it, whatever the autoencoder
MOST_LONG = 2.0  # OURS: times as long as high, or the other way round; what is beyond is cut off


def grid_of(pipe: Any) -> tuple[int, int]:
    """The side in pixels of what a pipeline draws by itself, and what the sides of its pictures are multiples of."""
    sample = pipe.unet.config.sample_size
    side = sample if isinstance(sample, int) else round(math.sqrt(math.prod(sample)))
    halvings = len(pipe.unet.config.down_block_types) - 1
    return side * pipe.vae_scale_factor, math.lcm(STRICT, pipe.vae_scale_factor << halvings)


def fitted(picture: Image.Image, side: int, step: int) -> Image.Image:
    """With about `side` x `side` pixels and sides that are multiples of `step`; as little as can be is cut off."""
    ratio = min(max(picture.width / picture.height, 1 / MOST_LONG), MOST_LONG)
    sizes = itertools.product(near(side * ratio**0.5, step), near(side * ratio**-0.5, step))
    size = min(sizes, key=lambda one: abs(math.log(one[0] / one[1] / ratio)))
    return resized(picture, size)


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """With exactly this width and height; what does not fit their proportions is cut off on both sides."""
    return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)


def near(length: float, step: int) -> list[int]:
    """The multiples of a step on both sides of a length, the nearer first."""
    below = max(1, math.floor(length / step)) * step
    above = max(1, math.ceil(length / step)) * step
    return sorted((below, above), key=lambda one: abs(one - length))


__all__ = ["fitted", "grid_of", "resized"]
