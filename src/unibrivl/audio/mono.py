"""From blocks of frames to mono chunks at the wanted rate: the limits, the channel rule and the resampler, once.

Shapes: N frames of a block, C channels, S samples of a mono chunk.
"""

from __future__ import annotations

import logging
import math
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np

from unibrivl.audio.arrays import refuse_impossible
from unibrivl.audio.errors import AudioError
from unibrivl.audio.resample import Resampler
from unibrivl.audio.sound import BLOCK_VALUES, Sound
from unibrivl.audio.waveform import check_rate

logger = logging.getLogger(__name__)

CANCELLED = 1e-3  # -30 dB: unrelated channels lose 3 dB when averaged, only mirrored ones lose thirty
UNSCALED_PEAK = 10.0  # 20 dB over full scale: integers that nobody divided


class MonoStream:
    """A `Sound` heard as one channel at one rate, chunk by chunk.

    The average of channels that mirror each other is nearly silent although each of them is not; such a sound raises
    once all of it has been heard, and names the way out.

    Args:
        sound (`Sound`): the open source.
        rate_hz (`int`, *optional*): the rate to hear it at; its own if None.
        channel (`"mean"` or `int`): the average of all channels, or one of them, counted from 0.
        max_duration_s (`float`): longer sounds raise.
    """

    def __init__(self, sound: Sound, rate_hz: int | None, channel: str | int, max_duration_s: float) -> None:
        self._sound = sound
        self.name = sound.name
        self.rate_hz = sound.rate_hz if rate_hz is None else check_rate(rate_hz)
        self._channel = check_channel(channel, sound.channels, sound.name)
        self._max_duration_s = check_limit(max_duration_s, "max_duration_s")
        self._mixed_energy = self._channel_energy = 0.0
        self._peak = 0.0
        claimed_s = (sound.claimed_frames or 0) / sound.rate_hz
        if claimed_s > self._max_duration_s:
            raise self._too_long(f"it says it lasts {claimed_s:.0f} s ({claimed_s / 3600:.1f} h)")

    @property
    def damage(self) -> str:
        """What is wrong with the source; complete once `chunks` has ended."""
        return self._sound.damage

    def chunks(self) -> Iterator[np.ndarray]:
        """All samples in order as new float32 arrays, none of them empty."""
        sound = self._sound
        resampler = None if self.rate_hz == sound.rate_hz else Resampler(sound.rate_hz, self.rate_hz)
        heard = 0
        for block_NC in sound.blocks(self._block_frames()):
            heard_before, heard = heard, heard + len(block_NC)
            if heard > self._max_duration_s * sound.rate_hz:
                raise self._too_long(f"it lasts more than {self._max_duration_s:.0f} s")
            self._peak = max(self._peak, refuse_impossible(block_NC, heard_before, sound.rate_hz, self.name))
            mono_S = self._mix(block_NC)
            if resampler is not None:
                mono_S = resampler.push(mono_S)
            elif np.may_share_memory(mono_S, block_NC):
                mono_S = mono_S.copy()
            if len(mono_S):
                yield mono_S
        if not heard:
            raise AudioError(f"it holds no samples{f' ({self.damage})' if self.damage else ''}", self.name)
        if resampler is not None and len(tail_S := resampler.finish()):
            yield tail_S
        self._last_words()

    def _block_frames(self) -> int:
        growth = self.rate_hz / self._sound.rate_hz
        return max(1, min(self._sound.block_frames, int(4 * BLOCK_VALUES / growth)))

    def _too_long(self, words: str) -> AudioError:
        return AudioError(
            f"{words}, and max_duration_s is {self._max_duration_s:g}. Raise max_duration_s, or read it in pieces "
            "with read_blocks",
            self.name,
        )

    def _mix(self, block_NC: np.ndarray) -> np.ndarray:
        channels = block_NC.shape[1]
        if channels == 1:
            return block_NC[:, 0]
        if self._channel != "mean":
            return np.ascontiguousarray(block_NC[:, self._channel])
        mono_S = block_NC[:, 0] + block_NC[:, 1]
        for index in range(2, channels):
            mono_S += block_NC[:, index]
        mono_S *= np.float32(1.0 / channels)
        self._mixed_energy += float(np.vdot(mono_S, mono_S))
        self._channel_energy += float(np.vdot(block_NC, block_NC)) / channels
        return mono_S

    def _last_words(self) -> None:
        if self._mixed_energy < CANCELLED * self._channel_energy:
            raise AudioError(
                f"its {self._sound.channels} channels cancel each other: their average is nearly silent although they "
                "are not. Pass channel=0 to hear one of them",
                self.name,
            )
        if self._peak > UNSCALED_PEAK:
            logger.warning(
                "%s: peaks at %.4g where full scale is 1; if these are integers, divide by their full scale",
                self.name,
                self._peak,
            )
        if self.damage:
            logger.warning("%s: %s", self.name, self.damage)


def check_channel(channel: Any, num_channels: int, name: str) -> Any:
    """`"mean"` or a channel that exists, or an `AudioError`."""
    if isinstance(channel, str) and channel == "mean":
        return channel
    if isinstance(channel, bool) or not isinstance(channel, numbers.Integral):
        raise AudioError(f'channel is "mean" or a number counted from 0, not {channel!r}')
    if not 0 <= int(channel) < num_channels:
        have = "only channel 0" if num_channels == 1 else f"channels 0 to {num_channels - 1}"
        raise AudioError(f"channel={channel} is asked for, and it has {have}", name)
    return int(channel)


def check_limit(value: Any, what: str) -> float:
    """A positive number (infinity allowed), or an `AudioError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(value) or value <= 0:
        raise AudioError(f"{what} must be a number above 0, not {value!r}")
    return float(value)
