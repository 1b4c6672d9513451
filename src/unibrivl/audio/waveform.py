"""Waveform: mono float32 samples that never travel without their rate; Window: a piece of one that knows its time.

Both are checked once, when made; nothing downstream asks again whether the samples are finite, mono or empty.

Shapes: S samples.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unibrivl.audio.errors import AudioError
from unibrivl.audio.resample import resample

LOWEST_RATE_HZ = 1_000  # below it a header is wrong far more often than a sound is slow
HIGHEST_RATE_HZ = 1_000_000  # ultrasound recorders stop at 500 kHz


def check_rate(rate_hz: Any, what: str = "rate_hz", source: str = "") -> int:
    """`rate_hz` as an int, or an `AudioError`: a whole number of Hz (16000.0 will do) within the plausible range."""
    if isinstance(rate_hz, (bool, np.bool_)) or not isinstance(rate_hz, numbers.Real):
        raise AudioError(f"{what} must be a whole number of Hz, such as 16000, not {rate_hz!r}", source)
    value = float(rate_hz)
    if not math.isfinite(value) or value != int(value):
        raise AudioError(f"{what} must be a whole number of Hz, such as 16000, not {rate_hz!r}", source)
    if not LOWEST_RATE_HZ <= value <= HIGHEST_RATE_HZ:
        raise AudioError(
            f"{what} is {int(value)} Hz; a sound has between {LOWEST_RATE_HZ} and {HIGHEST_RATE_HZ} Hz", source
        )
    return int(value)


@dataclass(frozen=True, eq=False, repr=False)
class Waveform:
    """A mono sound: samples and the rate they were taken at.

    Args:
        samples (`np.ndarray`): float32, one axis, contiguous, at least one sample, all finite; full scale is [-1, 1].
        rate_hz (`int`): samples per second.
        damage (`str`, *optional*): what is wrong with the file it came from although these samples could be read
            ("cut off: ..."). Empty for a sound file.
    """

    samples: np.ndarray
    rate_hz: int
    damage: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate_hz", check_rate(self.rate_hz))
        samples = self.samples
        kind = type(self).__name__
        if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
            found = f"{samples.dtype} of shape {samples.shape}" if isinstance(samples, np.ndarray) else type(samples)
            raise AudioError(
                f"{kind} holds a float32 array with one axis, not {found}. load_audio(array, source_rate_hz=...) "
                "makes one from any array"
            )
        if not samples.size:
            raise AudioError(f"{kind} needs at least one sample")
        if not math.isfinite(samples.max()) or not math.isfinite(samples.min()):
            raise AudioError(f"{kind} holds NaN or infinite samples")
        if not samples.flags.c_contiguous:
            object.__setattr__(self, "samples", np.ascontiguousarray(samples))

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.rate_hz

    def resample(self, rate_hz: int) -> Waveform:
        """The same sound at another rate (soxr HQ); itself when the rate is already right."""
        rate_hz = check_rate(rate_hz)
        if rate_hz == self.rate_hz:
            return self
        return replace(self, samples=resample(self.samples, self.rate_hz, rate_hz), rate_hz=rate_hz)

    def __repr__(self) -> str:
        damage = f", damage={self.damage!r}" if self.damage else ""
        return f"{type(self).__name__}({self.duration_s:.3f} s at {self.rate_hz} Hz{damage})"


@dataclass(frozen=True, eq=False, repr=False)
class Window(Waveform):
    """A piece of a longer sound: a `Waveform` that knows when it began.

    Times come from the sample index, so the end of one window and the start of the next are the same float when they
    are the same instant.

    Args:
        start (`int`): index of the first sample in the sound it was cut from, at `rate_hz`.
    """

    start: int = 0

    @property
    def start_s(self) -> float:
        return self.start / self.rate_hz

    @property
    def end_s(self) -> float:
        return (self.start + len(self.samples)) / self.rate_hz

    def resample(self, rate_hz: int) -> Window:
        """The same piece at another rate; its start moves to the nearest sample of that rate."""
        rate_hz = check_rate(rate_hz)
        if rate_hz == self.rate_hz:
            return self
        samples = resample(self.samples, self.rate_hz, rate_hz)
        return replace(self, samples=samples, rate_hz=rate_hz, start=round(self.start * rate_hz / self.rate_hz))

    def __repr__(self) -> str:
        damage = f", damage={self.damage!r}" if self.damage else ""
        return f"Window({self.start_s:.3f} s to {self.end_s:.3f} s at {self.rate_hz} Hz{damage})"
