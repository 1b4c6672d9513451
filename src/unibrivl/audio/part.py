"""A part of a long sound: found by seeking where the file allows it, so that the rest is not decoded.

What comes out is the piece that `load_audio` would give between the same moments: the very samples, or, where the rate
is changed, the same to the last bit but one, for the resampler is given enough of what lies before and behind.

Shapes: N frames of a block, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from unibrivl.audio.errors import AudioError, SeekError
from unibrivl.audio.io import GIBIBYTE, load_audio, open_source
from unibrivl.audio.mono import MonoStream
from unibrivl.audio.sound import Sound
from unibrivl.audio.waveform import Waveform, check_rate

REACH = 512  # samples of the lower rate that the resampler looks either way, and some more


class Part(Sound):
    """The frames of an open sound from `first` up to `last`."""

    def __init__(self, whole: Sound, first: int, last: int | None) -> None:
        self._whole, self._first, self._last = whole, first, last
        self.name, self.rate_hz, self.channels = whole.name, whole.rate_hz, whole.channels
        self.container, self.coding, self.damage = whole.container, whole.coding, whole.damage

    def blocks(self, num_frames: int) -> Iterator[np.ndarray]:
        at = self._first if self._first and self._whole.jump(self._first) else 0
        if at == self._first and self._last is not None:
            num_frames = min(num_frames, self._last - at)  # a block more than is wanted would be decoded for nothing
        is_empty = True
        for block_NC in self._whole.blocks(num_frames):
            begin = max(0, self._first - at)
            end = len(block_NC) if self._last is None else min(len(block_NC), self._last - at)
            at += len(block_NC)
            self.damage = self._whole.damage
            if begin < end:
                is_empty = False
                yield block_NC[begin:end]
            if self._last is not None and at >= self._last:
                return
        self.damage = self._whole.damage
        if is_empty and at:
            raise AudioError("it ends before the part that is asked for", self.name)

    def close(self) -> None:
        self._whole.close()


def load_part(
    source: Any,
    start_s: float,
    end_s: float | None = None,
    *,
    rate_hz: int | None = None,
    source_rate_hz: int | None = None,
    channel: str | int = "mean",
    max_bytes: int = GIBIBYTE,
    allow_url: bool = False,
) -> Waveform:
    """Read what lies between two moments of a sound, as mono float32.

    WAV, AIFF and FLAC are read from `start_s` on; of others what comes before is decoded and dropped. Nothing behind
    `end_s` is read, so damage there is not seen.

    Args:
        start_s, end_s (`float`): seconds from the beginning; to the end if `end_s` is None. A sound that ends before
            `end_s` gives what there is, one that ends before `start_s` raises.
        source, rate_hz, source_rate_hz, channel, max_bytes, allow_url: as for `load_audio`.
    """
    if not (0 <= start_s < math.inf and (end_s is None or start_s < end_s < math.inf)):
        raise AudioError(f"a part is from a moment to a later one, not from {start_s} to {end_s} s")
    with open_source(source, source_rate_hz=source_rate_hz, max_bytes=max_bytes, allow_url=allow_url) as sound:
        rate_out = sound.rate_hz if rate_hz is None else check_rate(rate_hz)
        begin = round(start_s * rate_out)
        end = None if end_s is None else max(begin + 1, round(end_s * rate_out))
        if end is not None and 4 * (end - begin) > max_bytes:
            raise AudioError(f"{end_s:g} s are more than max_bytes={max_bytes}: ask for a shorter part", sound.name)
        first, last = frames_for(begin, end, sound.rate_hz, rate_out)
        part = Part(sound, first, last)
        stream = MonoStream(part, rate_hz, channel, math.inf)
        try:
            samples_S = collected(stream, max_bytes)
        except SeekError:
            whole = load_audio(source, rate_hz=rate_hz, channel=channel, max_bytes=max_bytes, allow_url=allow_url)
            return cut(whole.samples, begin, end, whole.rate_hz, whole.damage, sound.name)
        before = first * rate_out // sound.rate_hz  # of the output, which begins at a whole sample
        return cut(samples_S, begin - before, end and end - before, rate_out, part.damage, sound.name)


def duration_s(source: Any, *, allow_url: bool = False) -> float:
    """How long a sound is: what its header says where that is exact, else by decoding it."""
    with open_source(source, allow_url=allow_url) as sound:
        if sound.claimed_frames is not None and not sound.damage and sound.can_jump:
            return sound.claimed_frames / sound.rate_hz
        return sum(len(block_NC) for block_NC in sound.blocks(sound.block_frames)) / sound.rate_hz


def frames_for(begin: int, end: int | None, rate_in: int, rate_out: int) -> tuple[int, int | None]:
    """Which frames of the source make the samples from `begin` to `end`; the first falls on a sample of the output."""
    if rate_in == rate_out:
        return begin, end
    step = rate_in // math.gcd(rate_in, rate_out)
    reach = math.ceil(REACH * max(1.0, rate_in / rate_out))
    first = max(0, (begin * rate_in // rate_out - reach) // step * step)
    return first, None if end is None else math.ceil(end * rate_in / rate_out) + reach


def collected(stream: MonoStream, max_bytes: int) -> np.ndarray:
    chunks, num_bytes = list[np.ndarray](), 0
    for chunk_S in stream.chunks():
        num_bytes += chunk_S.nbytes
        if num_bytes > 2 * max_bytes:  # what the resampler is given besides may be more than a short part
            raise AudioError(f"the part needs more than max_bytes={max_bytes}: ask for a shorter one", stream.name)
        chunks.append(chunk_S)
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def cut(samples_S: np.ndarray, begin: int, end: int | None, rate_hz: int, damage: str, name: str) -> Waveform:
    piece_S = samples_S[begin:end]
    if not len(piece_S):
        raise AudioError("it ends before the part that is asked for", name)
    return Waveform(np.ascontiguousarray(piece_S), rate_hz, damage=damage)
