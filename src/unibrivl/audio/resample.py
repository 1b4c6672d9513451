"""Sample-rate conversion: soxr HQ, fed in pieces of any size with the same result as in one piece."""

from __future__ import annotations

import numpy as np
import soxr


class Resampler:
    """Turns a stream of mono float32 chunks at one rate into chunks at another.

    The output does not depend on where the input was cut, and there is always at least one sample of it: a sound too
    short to make one (a single sample going down in rate) becomes its last value.
    """

    def __init__(self, source_rate_hz: int, rate_hz: int) -> None:
        self._soxr = soxr.ResampleStream(source_rate_hz, rate_hz, num_channels=1, dtype="float32", quality="HQ")
        self._last_value: np.ndarray = np.zeros(0, np.float32)
        self._num_out = 0

    def push(self, chunk_S: np.ndarray) -> np.ndarray:
        out_S = self._soxr.resample_chunk(np.ascontiguousarray(chunk_S))
        self._num_out += len(out_S)
        if not self._num_out:
            self._last_value = chunk_S[-1:].copy()
        return out_S

    def finish(self) -> np.ndarray:
        """The samples the filter still holds; call it once, after the last `push`."""
        out_S = self._soxr.resample_chunk(np.zeros(0, np.float32), last=True)
        return out_S if len(out_S) or self._num_out else self._last_value


def resample(samples_S: np.ndarray, source_rate_hz: int, rate_hz: int) -> np.ndarray:
    """A whole mono float32 array at another rate, equal to what `Resampler` gives for its pieces."""
    out_S = soxr.resample(samples_S, source_rate_hz, rate_hz, quality="HQ")
    return out_S if len(out_S) else samples_S[-1:].copy()
