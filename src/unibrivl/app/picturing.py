"""Pictures that visitors send: read as far as the limits let them, and made as large as the model draws.

"a photograph, 4000 x 3000"  ->  its middle, on the model's grid, with about as many pixels as it draws: 80 x 48
"""

from __future__ import annotations

import math
import os
from typing import Any

from PIL import Image, ImageOps

from unibrivl.app.limits import Limits, Refusal, shown_name
from unibrivl.data.pictures import PictureError, open_picture

MOST_PIXELS = 1 << 26  # 67 million: a picture is unpacked whole
MOST_LONG = 2.0  # times as long as high, or the other way round; what is beyond is cut off


def read_picture(path: str | os.PathLike, limits: Limits) -> Image.Image:
    """A picture that somebody has sent, upright and in colour."""
    name = shown_name(path)
    try:
        if os.path.getsize(path) > limits.bytes:
            raise Refusal(f"The picture ({name}) is larger than {limits.megabytes:g} MB: choose a smaller file.")
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                size = f"{picture.width} x {picture.height}"
                raise Refusal(f"The picture ({name}) has {size} pixels, which are too many: choose a smaller one.")
        return open_picture(path)
    except Refusal:
        raise
    except FileNotFoundError as error:
        raise Refusal(f"The picture ({name}) is no longer here: choose it again.") from error
    except (PictureError, Image.DecompressionBombError, SyntaxError, ValueError, OSError) as error:
        raise Refusal(f"The picture ({name}) cannot be read: choose a PNG, JPEG or WebP file that opens.") from error


def grid_of(pipe: Any) -> tuple[int, int]:
    """The side in pixels of what a pipeline draws by itself, and what the sides of its pictures are multiples of."""
    sample = pipe.unet.config.sample_size
    side = sample if isinstance(sample, int) else round(math.sqrt(math.prod(sample)))
    halvings = len(pipe.unet.config.down_block_types) - 1
    return side * pipe.vae_scale_factor, pipe.vae_scale_factor << halvings


def fitted(picture: Image.Image, side: int, step: int) -> Image.Image:
    """With about `side` x `side` pixels and sides that are multiples of `step`; as little as can be is cut off."""
    ratio = min(max(picture.width / picture.height, 1 / MOST_LONG), MOST_LONG)
    width, height = (max(1, round(side * share / step)) * step for share in (ratio**0.5, ratio**-0.5))
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


__all__ = ["fitted", "grid_of", "read_picture"]
