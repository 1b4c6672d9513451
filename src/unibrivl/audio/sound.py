"""Sound: what every source looks like once it is open -- a rate, a number of channels, and blocks of frames.

A file decoded by soundfile, a soundtrack decoded by PyAV and an array in memory all answer to it, so limits, channels
and resampling are written once (mono.py) and the doctor reads all of them alike.

Shapes: N frames of a block, C channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

BLOCK_FRAMES = 65_536
BLOCK_VALUES = 262_144  # 1 MiB of float32: with many channels a block has fewer frames


class Sound(ABC):
    """An open source of samples.

    Attributes:
        name (`str`): the file or object, fit for a message.
        rate_hz (`int`): samples per second, already found plausible.
        channels (`int`): channels per frame.
        claimed_frames (`int`, *optional*): the length the source says it has; never trusted for an allocation.
        container, coding (`str`): for reports: "WAV", "PCM_16".
        damage (`str`): what is wrong although samples come; complete once `blocks` has ended.
    """

    name: str
    rate_hz: int
    channels: int
    claimed_frames: int | None = None
    container: str = ""
    coding: str = ""
    damage: str = ""

    @abstractmethod
    def blocks(self, num_frames: int) -> Iterator[np.ndarray]:
        """All frames in order, as float32 of shape (N, C) with 1 <= N <= `num_frames`.

        A block may be overwritten by the next one: copy what is to be kept.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of decoder and file."""

    @property
    def can_jump(self) -> bool:
        """Whether any frame can be gone to without decoding those before it."""
        return False

    def jump(self, frame: int) -> bool:
        """Let `blocks` begin at a frame; False, and nothing has happened, where only decoding leads there."""
        return False

    @property
    def block_frames(self) -> int:
        """A block size that is quick and keeps a block to a mebibyte whatever the number of channels."""
        return max(1, min(BLOCK_FRAMES, BLOCK_VALUES // self.channels))
