"""Arrays and tensors as sounds: one axis rule, one scaling rule, and a refusal with the fix for everything else.

Rules: one axis is mono; two axes are (channels, samples), as torch and librosa have it. Floats are taken as they are
(full scale is [-1, 1]). Integers are scaled to [-1, 1) by the width of their type; uint8 is centred on 128, as in WAV.

Shapes: C channels, S samples, N frames of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from unibrivl.audio.errors import AudioError
from unibrivl.audio.sound import Sound

MOST_CHANNELS = 64  # more rows than any microphone array: a batch or a spectrogram, not channels
LOUDEST = 2.0**31  # no fixed-point scale goes beyond it; far larger values would overflow when squared

_INTEGER_SCALES = {"uint8": 2.0**-7, "int8": 2.0**-7, "int16": 2.0**-15, "int32": 2.0**-31}


class ArraySound(Sound):
    """An array of shape (channels, samples), already float32 and checked."""

    container = "array"

    def __init__(self, samples_CS: np.ndarray, rate_hz: int, name: str, coding: str, damage: str = "") -> None:
        self.samples_CS = samples_CS
        self.rate_hz = rate_hz
        self.name = name
        self.coding = coding
        self.damage = damage
        self.channels, self.claimed_frames = samples_CS.shape

    def blocks(self, num_frames: int) -> Iterator[np.ndarray]:
        for start in range(0, self.samples_CS.shape[1], num_frames):
            yield self.samples_CS[:, start : start + num_frames].T

    def close(self) -> None:
        self.samples_CS = self.samples_CS[:, :0]


def is_array(source: Any) -> bool:
    """A numpy array, or a tensor: it has a shape, and can be detached (as files can). torch is never imported."""
    return isinstance(source, np.ndarray) or (hasattr(source, "detach") and hasattr(source, "shape"))


def to_numpy(source: Any, name: str) -> np.ndarray:
    """The values of an array or tensor, wherever they are."""
    if isinstance(source, np.ndarray):
        return np.asarray(source)
    try:
        tensor = source.detach().cpu()
        try:
            return tensor.numpy()
        except TypeError:  # bfloat16 and other types numpy has no name for
            return tensor.float().numpy()
    except Exception as error:
        raise AudioError(f"this tensor cannot be turned into numbers: {error}", name) from error


def scale(values_CS: np.ndarray, rate_hz: int, name: str) -> np.ndarray:
    """Any real sample type as new float32 with full scale [-1, 1]; the numbers of a float type are not changed."""
    kind = values_CS.dtype.name
    if kind in _INTEGER_SCALES:
        scaled_CS: np.ndarray = values_CS.astype(np.float32)
        if kind == "uint8":
            scaled_CS -= 128.0
        scaled_CS *= _INTEGER_SCALES[kind]  # a power of two: exact
        return scaled_CS
    if values_CS.dtype.kind == "f":
        refuse_impossible(values_CS.T, 0, rate_hz, name)  # before the cast: a float64 may not fit in float32
        return values_CS.astype(np.float32)
    if values_CS.dtype.kind in "iu":
        fix = "its full scale is not known. Convert it to the width it was recorded with: array.astype('int16')"
    elif values_CS.dtype.kind == "b":
        fix = "True and False are no sound"
    else:
        fix = "a sound has real numbers: float, int16 or int32"
    raise AudioError(f"an array of {kind}: {fix}", name)


def refuse_impossible(values_NC: np.ndarray, first_frame: int, rate_hz: int, name: str) -> float:
    """The largest absolute value; an `AudioError` with count and place if one is NaN, infinite or absurdly large.

    Args:
        values_NC (`np.ndarray`): floats, time on the first axis.
        first_frame, rate_hz (`int`): where in the sound they begin, to name the time.
    """
    peak = max(float(values_NC.max()), -float(values_NC.min()))
    if peak <= LOUDEST:  # also False for NaN
        return peak
    wrong_NC = ~np.isfinite(values_NC)
    what = "NaN or infinite values"
    if not wrong_NC.any():
        wrong_NC = np.abs(values_NC) > LOUDEST
        what = f"values beyond any recording's scale (up to {peak:.3g})"
    frame, channel = (int(index) for index in np.argwhere(wrong_NC)[0])
    raise AudioError(
        f"{what}: {int(wrong_NC.sum())} of the {wrong_NC.size} samples from {first_frame / rate_hz:.2f} s on, the "
        f"first at {(first_frame + frame) / rate_hz:.4f} s in channel {channel}. Repair the sound or leave it out",
        name,
    )


def array_sound(source: Any, rate_hz: int, name: str) -> ArraySound:
    """An array or tensor as an open sound; see the rules at the top of this file."""
    if isinstance(source, np.ma.MaskedArray):
        raise AudioError("a masked array: fill its gaps first, such as array.filled(0)", name)
    values = to_numpy(source, name)
    if values.ndim not in (1, 2):
        raise AudioError(
            f"an array of shape {values.shape}: pass (samples,) or (channels, samples), one sound at a time", name
        )
    if not values.size:
        raise AudioError(f"an array of shape {values.shape} holds no samples", name)
    values_CS = values.reshape(1, -1) if values.ndim == 1 else values
    rows, columns = values_CS.shape
    if rows > columns and rows > 1:
        raise AudioError(
            f"an array of shape {values.shape} looks like (samples, channels), and two axes mean (channels, samples): "
            "pass array.T",
            name,
        )
    if rows > MOST_CHANNELS:
        raise AudioError(
            f"an array of shape {values.shape} would be {rows} channels of one sound. If it is a batch, load each row "
            "by itself",
            name,
        )
    return ArraySound(np.ascontiguousarray(scale(values_CS, rate_hz, name)), rate_hz, name, values.dtype.name)
