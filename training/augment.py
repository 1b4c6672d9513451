"""BriVL's augmentation of pictures: colour jitter for most, then grey for some. No flip, blur or crop.

It stands between the processor's resize and its normalisation, on pictures in 0..1:

    pixels = processor(pictures, do_normalize=False, return_tensors="pt").pixel_values
    pixels = processor.normalize_pixels(PictureAugmentation()(pixels, generator))

Each picture draws its own chances, factors and order of the four changes, always the same count of numbers: what
happens to the first pictures of a batch does not depend on how many follow, nor on each other's draws.

Shapes: B batch, H x W pictures; factors are B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # BriVL code: the luma that its torchvision uses


@dataclass(frozen=True)
class PictureAugmentation:
    """
    Args:
        brightness, contrast, saturation (`float`): a factor is drawn from 1 - value to 1 + value.
        hue (`float`): a turn of the colour circle is drawn from - value to value; at most 0.5, half a circle.
        jitter_prob (`float`): chance of a picture to have all four changed, in an order of its own.
        grey_prob (`float`): chance of a picture to lose its colours after that.
    """

    brightness: float = 0.4  # BriVL code: training transform
    contrast: float = 0.4  # BriVL code: training transform
    saturation: float = 0.4  # BriVL code: training transform
    hue: float = 0.1  # BriVL code: training transform
    jitter_prob: float = 0.8  # BriVL code: training transform
    grey_prob: float = 0.2  # BriVL code: training transform

    def __post_init__(self):
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is how far from 1 the factor may be, at least 0; got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue is a part of the colour circle, from 0 to 0.5; got {self.hue}")
        for name in ("jitter_prob", "grey_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1; got {getattr(self, name)}")

    def __call__(self, pictures_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Augmented copies of pictures in 0..1, on the device they are on."""
        check_pictures(pictures_B3HW)
        draws_BN = torch.rand(len(pictures_B3HW), 10, generator=generator, device=generator.device).cpu()
        device = pictures_B3HW.device
        jittered = draws_BN[:, 0] < self.jitter_prob
        greyed = draws_BN[:, 1] < self.grey_prob
        order_BN = draws_BN[:, 2:6].argsort(1)
        changes: list[tuple[Callable, torch.Tensor]] = [
            (adjust_brightness, factors(draws_BN[:, 6], self.brightness)),
            (adjust_contrast, factors(draws_BN[:, 7], self.contrast)),
            (adjust_saturation, factors(draws_BN[:, 8], self.saturation)),
            (adjust_hue, (2 * draws_BN[:, 9] - 1) * self.hue),
        ]
        pictures_B3HW = pictures_B3HW.clone()
        for place in range(len(changes)):
            for number, (change, values_B) in enumerate(changes):
                rows = torch.where(jittered & (order_BN[:, place] == number))[0]
                if len(rows):
                    rows_there = rows.to(device)
                    changed = change(pictures_B3HW[rows_there], values_B[rows].to(device))
                    pictures_B3HW[rows_there] = changed
        rows = torch.where(greyed)[0].to(device)
        pictures_B3HW[rows] = grey(pictures_B3HW[rows]).expand(-1, 3, -1, -1)
        return pictures_B3HW


def check_pictures(pictures_B3HW: torch.Tensor) -> None:
    if pictures_B3HW.dim() != 4 or pictures_B3HW.shape[1] != 3 or not pictures_B3HW.is_floating_point():
        raise ValueError(
            f"expected float pictures (batch, 3, height, width), got {tuple(pictures_B3HW.shape)} of "
            f"{pictures_B3HW.dtype}. BriVLImageProcessor(...)(pictures, do_normalize=False) gives them"
        )
    if not pictures_B3HW.numel():
        raise ValueError("no picture: the batch is empty")
    low, high = map(float, pictures_B3HW.aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # OURS: rounding may leave 0..1 by this much; NaN fails too
        raise ValueError(
            f"pictures must be in 0..1, these are from {low:.3g} to {high:.3g}: augment before normalising, with "
            "do_normalize=False"
        )


def factors(uniform_B: torch.Tensor, spread: float) -> torch.Tensor:
    """Uniform from 1 - spread to 1 + spread, never below 0."""
    low, high = max(0.0, 1 - spread), 1 + spread
    return low + (high - low) * uniform_B


def blend(pictures_B3HW: torch.Tensor, other: torch.Tensor | float, factors_B: torch.Tensor) -> torch.Tensor:
    """Away from `other` (above 1) or towards it (below 1), clipped to 0..1."""
    weight = factors_B.to(pictures_B3HW.dtype)[:, None, None, None]
    return (weight * pictures_B3HW + (1 - weight) * other).clamp(0, 1)


def grey(pictures_B3HW: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W): how bright each pixel is to the eye."""
    red, green, blue = pictures_B3HW.unbind(1)
    return (GREY_WEIGHTS[0] * red + GREY_WEIGHTS[1] * green + GREY_WEIGHTS[2] * blue)[:, None]


def adjust_brightness(pictures_B3HW: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    return blend(pictures_B3HW, 0.0, factors_B)


def adjust_contrast(pictures_B3HW: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    return blend(pictures_B3HW, grey(pictures_B3HW).mean((1, 2, 3), keepdim=True), factors_B)


def adjust_saturation(pictures_B3HW: torch.Tensor, factors_B: torch.Tensor) -> torch.Tensor:
    return blend(pictures_B3HW, grey(pictures_B3HW), factors_B)


def adjust_hue(pictures_B3HW: torch.Tensor, turns_B: torch.Tensor) -> torch.Tensor:
    """Turn every colour by a part of the circle, keeping its value (largest channel) and its chroma (largest minus
    smallest): a channel is the value less the chroma times a trapezoid of the hue, which the turn shifts."""
    value, chroma = pictures_B3HW.amax(1), pictures_B3HW.amax(1) - pictures_B3HW.amin(1)
    red, green, blue = pictures_B3HW.unbind(1)
    steps = chroma.clamp(min=torch.finfo(chroma.dtype).tiny)  # grey has no hue, and none is needed
    sixths = torch.where(
        value == red,
        (green - blue) / steps,
        torch.where(value == green, (blue - red) / steps + 2, (red - green) / steps + 4),
    )
    sixths = sixths + 6 * turns_B.to(sixths.dtype)[:, None, None]
    channels = []
    for start in (5, 3, 1):  # red, green and blue, in sixths of the circle
        distance = (start + sixths).remainder(6)
        channels.append(value - chroma * torch.minimum(distance, 4 - distance).clamp(0, 1))
    return torch.stack(channels, 1)
