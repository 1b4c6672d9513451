"""Sounds and pictures with a part hidden: stretches of time, regions of a picture, and what takes their place.

What is hidden must be filled with something, and no filling is neutral. A stretch of sound becomes the quietest
stretch of the same sound, faded in and out; a region of a picture becomes what surrounds it, blurred into it. Both
look and sound like what could have been there, so that a model answers to what is missing and not to a hole. The
price: in a sound that is loud throughout the quietest stretch is evidence too, and hiding costs too little; of a thing
larger than a region the surroundings still show the rest. `fill="silence"` and larger regions are the other choice.

Shapes: S samples, T stretches, R regions along each side, H and W of a picture, h and w of a region.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from unibrivl.audio import Waveform

STRETCH_S = 0.5  # long enough for a word or a bark
MOST_STRETCHES = 80  # of a long sound, unless a length is given
FEWEST_PARTS = 4  # of a short sound
FADE_S = 0.01  # a click at each seam would be news to the model
FILLS = ("quietest", "silence")


def stretches_of(num_samples: int, rate_hz: int, stretch_s: float | None = None) -> np.ndarray:
    """Begin and end in samples, (T, 2): stretches of one length that overlap by half and together cover the sound.

    Without a length they are of half a second, shorter in a sound of less than two, longer in one of more than 20.
    """
    duration_s = num_samples / rate_hz
    if stretch_s is None:
        stretch_s = max(min(STRETCH_S, duration_s / FEWEST_PARTS), 2 * duration_s / (MOST_STRETCHES + 1))
    elif not 0 < stretch_s < float("inf"):
        raise ValueError(f"stretch_s must be a positive number of seconds, got {stretch_s}")
    size = min(num_samples, max(2, round(stretch_s * rate_hz)))
    hops = -(-(num_samples - size) // max(1, size // 2))
    begins_T = np.round(np.linspace(0, num_samples - size, hops + 1)).astype(int)
    return np.stack([begins_T, begins_T + size], axis=1)


def hide_stretches(sound: Waveform, spans_T2: np.ndarray, fill: str = "quietest") -> list[Waveform]:
    """The sound T times, each with one stretch filled."""
    if fill not in FILLS:
        raise ValueError(f"fill must be one of {', '.join(FILLS)}, got {fill!r}")
    samples_S = sound.samples
    filling = np.zeros(spans_T2[0, 1] - spans_T2[0, 0], np.float32)
    if fill == "quietest":
        energies_T = [float(np.square(samples_S[begin:end], dtype=np.float64).sum()) for begin, end in spans_T2]
        begin, end = spans_T2[int(np.argmin(energies_T))]
        filling = samples_S[begin:end]
    fade = min(round(FADE_S * sound.rate_hz), len(filling) // 4)
    share: np.ndarray = np.ones(len(filling), np.float32)
    if fade:
        ramp = (np.arange(fade, dtype=np.float32) + 1) / (fade + 1)
        share[:fade], share[-fade:] = ramp, ramp[::-1]
    hidden = []
    for begin, end in spans_T2:
        filled = samples_S.copy()
        filled[begin:end] += share * (filling - filled[begin:end])
        hidden.append(Waveform(filled, sound.rate_hz))
    return hidden


def regions_of(width: int, height: int, regions: int) -> np.ndarray:
    """Left, top, right, bottom in pixels, (R, R, 4), rows first: boxes that overlap by half and cover the picture."""
    if regions < 1:
        raise ValueError(f"regions must be at least 1 along each side, got {regions}")
    if min(width, height) < regions + (regions > 1):
        raise ValueError(f"a picture of {width} x {height} pixels has no {regions} x {regions} regions: set less")
    (lefts, rights), (tops, bottoms) = (_edges(length, regions) for length in (width, height))
    return np.array(
        [
            [(left, top, right, bottom) for left, right in zip(lefts, rights, strict=True)]
            for top, bottom in zip(tops, bottoms, strict=True)
        ]
    )


def _edges(length: int, regions: int) -> tuple[np.ndarray, np.ndarray]:
    if regions == 1:
        return np.array([0]), np.array([length])
    places = np.round(np.linspace(0, length, regions + 2)).astype(int)
    return places[:-2], places[2:]


def hide_regions(picture: Image.Image, boxes_RR4: np.ndarray) -> list[Image.Image]:
    """The picture R x R times, each with one region filled, row by row; one that is all of it becomes its mean."""
    pixels_HW3 = np.asarray(picture.convert("RGB"), np.float32)
    hidden = []
    for box in boxes_RR4.reshape(-1, 4):
        left, top, right, bottom = (int(edge) for edge in box)
        filled = pixels_HW3.copy()
        filled[top:bottom, left:right] = surroundings(pixels_HW3, left, top, right, bottom)
        hidden.append(Image.fromarray(filled.round().clip(0, 255).astype(np.uint8)))
    return hidden


def surroundings(pixels_HW3: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """What is around a box, blurred into it, (h, w, 3): means weighted by a Gaussian half as wide as the box."""
    height, width = pixels_HW3.shape[:2]
    if right - left == width and bottom - top == height:
        return np.broadcast_to(pixels_HW3.mean((0, 1)), pixels_HW3.shape)
    outside_HW1 = np.ones((height, width, 1), np.float32)
    outside_HW1[top:bottom, left:right] = 0
    down_hH = _gaussian(top, bottom, height)
    across_wW = _gaussian(left, right, width)
    stacked_HW4 = np.concatenate([pixels_HW3 * outside_HW1, outside_HW1], axis=2)
    sums_hw4 = np.einsum("hH,HWc,wW->hwc", down_hH, stacked_HW4, across_wW, optimize=True)
    return sums_hw4[..., :3] / sums_hw4[..., 3:]


def _gaussian(begin: int, end: int, length: int) -> np.ndarray:
    away = np.arange(begin, end)[:, None] - np.arange(length)[None]
    return np.exp(-0.5 * (away / ((end - begin) / 2)) ** 2).astype(np.float32)
