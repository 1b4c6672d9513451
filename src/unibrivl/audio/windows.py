"""Every second is heard: a sound cut into windows, in order, to the last sample.

The rule, for whole sounds and for streams alike: window k starts at sample k * hop; windows follow each other until
one reaches the end of the sound, and that one is the last. It may be shorter than the others, and is never padded or
dropped. Nothing is random and no sample is left out, which is why a hop longer than the window is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unibrivl.audio.errors import AudioError
from unibrivl.audio.mono import MonoStream, check_limit
from unibrivl.audio.waveform import Waveform, Window


def split_windows(waveform: Waveform, window_s: float, hop_s: float | None = None) -> list[Window]:
    """Cut a waveform into windows that together cover every sample of it.

    Args:
        waveform (`Waveform`): from `load_audio`.
        window_s (`float`): seconds per window, rounded to whole samples.
        hop_s (`float`, *optional*): seconds from one start to the next; `window_s` if None. At most `window_s`.

    Returns:
        `list[Window]`: at least one; their samples are views of the waveform's, not copies. The last one carries the
        waveform's `damage`.
    """
    if not isinstance(waveform, Waveform):
        raise AudioError(f"split_windows cuts a Waveform, not {type(waveform).__name__}: call load_audio first")
    size, hop = window_sizes(window_s, hop_s, waveform.rate_hz)
    samples_S = waveform.samples
    num_hops = max(0, -(-(len(samples_S) - size) // hop))  # how often one must move on to reach the end
    return [
        Window(
            samples_S[start : start + size],
            waveform.rate_hz,
            damage=waveform.damage if start == num_hops * hop else "",
            start=start,
        )
        for start in range(0, num_hops * hop + 1, hop)
    ]


def window_sizes(window_s: float, hop_s: float | None, rate_hz: int) -> tuple[int, int]:
    """Window and hop in samples: to the nearest, at least one, and no gap between windows."""
    hop_s = window_s if hop_s is None else hop_s
    for value, what in ((window_s, "window_s"), (hop_s, "hop_s")):
        if check_limit(value, what) == float("inf"):
            raise AudioError(f"{what} must be finite")
    if hop_s > window_s:
        raise AudioError(
            f"hop_s={hop_s:g} is longer than window_s={window_s:g}: what lies between two windows would not be heard"
        )
    size, hop = (max(1, int(seconds * rate_hz + 0.5)) for seconds in (window_s, hop_s))
    return size, min(hop, size)


def cut_stream(stream: MonoStream, size: int, hop: int) -> Iterator[Window]:
    """The windows of a stream, by the rule above, holding little more than one window at a time."""
    buffer_S: np.ndarray = np.empty(size, np.float32)
    filled = 0  # samples in the buffer; the first of them is sample `start` of the sound
    start = 0
    for chunk_S in stream.chunks():
        while len(chunk_S):
            if filled == size:  # more follows, so this window is not the last
                yield Window(buffer_S.copy(), stream.rate_hz, start=start)
                filled -= hop
                buffer_S[:filled] = buffer_S[hop:].copy()
                start += hop
            taken = min(size - filled, len(chunk_S))
            buffer_S[filled : filled + taken] = chunk_S[:taken]
            filled += taken
            chunk_S = chunk_S[taken:]
    yield Window(buffer_S[:filled].copy(), stream.rate_hz, damage=stream.damage, start=start)
