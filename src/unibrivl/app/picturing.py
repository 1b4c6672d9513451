"""Pictures that visitors send: read as far as the limits let them, and made as large as the model draws.

"a photograph, 4000 x 3000"  ->  its middle, on the model's grid, with about as many pixels as it draws: 80 x 48
"""

from __future__ import annotations

import os

from PIL import Image

from unibrivl.app.limits import Limits, Refusal, shown_name
from unibrivl.data.pictures import PictureError, open_picture

MOST_PIXELS = 1 << 26  # 67 million: a picture is unpacked whole


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


__all__ = ["read_picture"]
