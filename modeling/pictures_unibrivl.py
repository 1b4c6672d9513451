"""Pictures at the border of a model: files' contents through the image processor, tensors by the same rule with
gradients.

Shapes: B batch, H x W a picture.
"""

import numpy as np
import torch
from torch import nn

RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
WITHOUT_ANTIALIASING = ("BriVLImageProcessor",)  # by name: of a flat copy from the Hub the class exists twice


def as_pixel_values(pictures, image_processor) -> torch.Tensor:
    """One picture, a list, or a batch of tensors (B, 3, H, W) in 0..1 -> what the image tower takes, (B, 3, h, w).

    A float tensor of four dimensions is resized and normalised by torch, so that gradients flow to it; the result is
    the image processor's up to how the two round and antialias.
    """
    if isinstance(pictures, torch.Tensor) and pictures.dim() == 4 and pictures.is_floating_point():
        return differentiable_pixels(pictures, image_processor)
    if not callable(image_processor):  # settings alone: what a processor would do, done by torch
        pictures = pictures if isinstance(pictures, (list, tuple)) else [pictures]
        return torch.cat([differentiable_pixels(as_tensor(one), image_processor) for one in pictures])
    return image_processor(pictures, return_tensors="pt")["pixel_values"]


def as_tensor(picture) -> torch.Tensor:
    """A Pillow picture or an array (H, W, 3) of bytes -> (1, 3, H, W) in 0..1."""
    array = np.array(picture.convert("RGB") if hasattr(picture, "convert") else picture)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"a picture is a Pillow image or bytes (height, width, 3), got {array.dtype} {array.shape}")
    return torch.from_numpy(array).permute(2, 0, 1)[None] / 255


def differentiable_pixels(pictures_B3HW: torch.Tensor, image_processor) -> torch.Tensor:
    """The image processor's own steps, by its own settings, on a batch of equal pictures in 0..1."""
    pixels = pictures_B3HW
    if pixels.shape[1] != 3 or 0 in pixels.shape:
        raise ValueError(f"a batch of pictures is (B, 3, H, W), got {tuple(pixels.shape)}")
    if getattr(image_processor, "do_center_square", False):
        pixels = center_crop(pixels, min(pixels.shape[-2:]), min(pixels.shape[-2:]))
    if getattr(image_processor, "do_resize", True):
        pixels = resize(pixels, image_processor)
    if getattr(image_processor, "do_center_crop", False):
        crop = image_processor.crop_size
        pixels = center_crop(pixels, crop["height"], crop["width"])
    if getattr(image_processor, "do_normalize", True):
        mean, std = (pixels.new_tensor(values)[:, None, None]
                     for values in (image_processor.image_mean, image_processor.image_std))  # fmt: skip
        pixels = (pixels - mean) / std
    return pixels


def resize(pixels: torch.Tensor, image_processor) -> torch.Tensor:
    size = dict(image_processor.size)
    height, width = pixels.shape[-2:]
    if size.get("shortest_edge"):
        edge = size["shortest_edge"]
        if height <= width:
            size = {"height": edge, "width": int(edge * width / height)}
        else:
            size = {"height": int(edge * height / width), "width": edge}
    antialias = type(image_processor).__name__ not in WITHOUT_ANTIALIASING
    mode = RESAMPLING.get(int(getattr(image_processor, "resample", None) or 2), "bilinear")
    corners = {} if mode == "nearest" else {"align_corners": False, "antialias": antialias}
    return nn.functional.interpolate(pixels, (size["height"], size["width"]), mode=mode, **corners)


def center_crop(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The middle of a picture; where it is smaller than the crop, zeros around it."""
    pad_h, pad_w = max(height - pixels.shape[-2], 0), max(width - pixels.shape[-1], 0)
    if pad_h or pad_w:
        pixels = nn.functional.pad(pixels, (pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2))
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    return pixels[..., top : top + height, left : left + width]


__all__ = ["as_pixel_values", "differentiable_pixels"]
