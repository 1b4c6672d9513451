"""Pictures on their way to a model: opened, turned as the camera was held, as RGB."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 1 << 28  # a picture that unpacks to more than 268 million pixels is refused before it is unpacked


class PictureError(ValueError):
    """A picture that cannot be used, with the reason."""


def open_picture(source: Any) -> Image.Image:
    """A path, the bytes of a file, a binary file object, a Pillow picture or an array of bytes -> a Pillow picture."""
    if isinstance(source, Image.Image):
        return upright(source, "picture")
    if isinstance(source, (str, os.PathLike)) or hasattr(source, "read"):
        name, file = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "picture", source
    elif isinstance(source, (bytes, bytearray)):
        name, file = "picture", io.BytesIO(source)
    else:
        return from_array(source)
    try:
        with Image.open(file) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise PictureError(f"{name}: {picture.width} x {picture.height} pixels are more than {MOST_PIXELS}")
            return upright(picture, name)
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, OSError) as error:
        raise PictureError(f"{name} is not a readable picture: {error}") from error


def fault_of_picture(path: str) -> str | None:
    """What is wrong with a file by its first bytes, if anything; nothing is decoded."""
    try:
        with Image.open(path) as picture:
            pixels = picture.width * picture.height
    except FileNotFoundError:
        return "it is not there"
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError, OSError) as error:
        told = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        return f"it is not a readable picture{told}"
    return f"its {pixels} pixels are more than {MOST_PIXELS}" if pixels > MOST_PIXELS else None


def upright(picture: Image.Image, name: str) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture).convert("RGB")
    except (SyntaxError, OSError) as error:  # Pillow decodes late
        raise PictureError(f"{name} is not a readable picture: {error}") from error


def from_array(source: Any) -> Image.Image:
    """Bytes (height, width), or (height, width, 3) or 4. Floats are refused: nobody knows which range they are in."""
    array = np.asarray(source.detach().cpu() if hasattr(source, "detach") else source)
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not is_picture or array.size == 0:
        raise PictureError(
            f"a picture is a path, the bytes of a file, a Pillow picture or a uint8 array (height, width, 3), got "
            f"{type(source).__name__} of {array.dtype} {array.shape}. Float tensors that gradients flow to go to "
            "embedder.matcher.encode_image"
        )
    return Image.fromarray(array).convert("RGB")
