"""What the page takes: sounds up to a length and size, so many people at once; and refusals a person can read.

A refusal never names a folder of the server, and says what to do instead.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from unibrivl.audio import Waveform, read_blocks
from unibrivl.audio.errors import AudioError, printable

MEGABYTE = 1 << 20  # as Gradio counts, whose own refusal may come first
BLOCK_S = 1.0  # so much is decoded of a sound beyond its limit, and no more
MOST_BYTES = 1 << 28  # of decoded samples: 23 minutes of 48 kHz
MOST_NAME = 60


class Refusal(ValueError):
    """What a visitor can mend, as a sentence for the page."""


@dataclass(frozen=True)
class Limits:
    """
    Args:
        seconds (`float`): the longest sound.
        megabytes (`float`): the largest file.
        queue (`int`): visitors who may wait for their picture; the next one is asked to come again.
    """

    seconds: float = 30.0
    megabytes: float = 20.0
    queue: int = 8

    def __post_init__(self) -> None:
        for name in ("seconds", "megabytes", "queue"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"the limit of {name} must be a number above 0, got {value}")

    @property
    def bytes(self) -> int:
        return int(self.megabytes * MEGABYTE)

    def told(self) -> str:
        return f"up to {self.seconds:g} seconds and {self.megabytes:g} MB"


def read_upload(path: str | os.PathLike, limits: Limits, rate_hz: int | None, which: str = "The sound") -> Waveform:
    """A file that somebody has sent, as far as the limits let it.

    Args:
        which (`str`): what the page calls it, for refusals.
    """
    from unibrivl.pipelines.query_unibrivl import SILENT

    name = shown_name(path)
    try:
        if os.path.getsize(path) > limits.bytes:
            raise Refusal(f"{which} ({name}) is larger than {limits.megabytes:g} MB: choose a smaller file.")
        samples: list[np.ndarray] = []
        seconds = 0.0
        for window in read_blocks(path, BLOCK_S, rate_hz=rate_hz, max_bytes=MOST_BYTES):
            samples.append(window.samples)
            rate_hz, seconds = window.rate_hz, window.end_s
            if seconds > limits.seconds + 1e-3:
                raise Refusal(
                    f"{which} ({name}) is longer than {limits.seconds:g} seconds: cut it with the scissors below it, "
                    "or choose a shorter one."
                )
    except AudioError as error:
        raise Refusal(f"{which} ({name}) cannot be read: {error.reason}. Choose another file.") from error
    except FileNotFoundError as error:
        raise Refusal(f"{which} ({name}) is no longer here: choose it again.") from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise Refusal(f"{which} ({name}) cannot be read: {why}. Choose it again.") from error
    waveform = Waveform(np.concatenate(samples), int(rate_hz or 0))
    if float(np.abs(waveform.samples).max()) <= SILENT:
        raise Refusal(f"{which} ({name}) is silent: there is nothing in it to hear. Choose a part that sounds.")
    return waveform


def shown_name(path: str | os.PathLike) -> str:
    """The name of a file without its folders, on one line and not too long."""
    name = printable(os.path.basename(os.fspath(path)))
    return name if len(name) <= MOST_NAME else f"{name[: MOST_NAME - 4]}..."


def number(value: Any, name: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Refusal(f"{name} must be a number from {least:g} to {most:g}.")
    if not least <= value <= most:
        raise Refusal(f"{name} must be from {least:g} to {most:g}.")
    return float(value)


def whole(value: Any) -> Any:
    """4.0 as 4; anything else stays what it is, to be refused by its own name."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


__all__ = ["Limits", "Refusal", "number", "read_upload", "shown_name", "whole"]
