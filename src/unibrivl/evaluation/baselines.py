"""Encoders that learned nothing: what any model has to beat before its score means something."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unibrivl.audio import load_audio

RATE_HZ, FRAME, HOP, BANDS = 16_000, 512, 256, 64
LOWEST_HZ = 50.0
QUIET = 1e-8  # power of a band below which nothing is told apart


class MelStatistics:
    """Mean and deviation of 64 log-mel bands over a sound: loudness and colour, nothing of order in time."""

    name, fingerprint = "mel-statistics", "mel-statistics-v1"

    def encode_audio(self, paths: Sequence[str]) -> np.ndarray:
        """(N, 128)."""
        return np.stack([self.told(load_audio(path, rate_hz=RATE_HZ).samples) for path in paths])

    def told(self, clip_S: np.ndarray) -> np.ndarray:
        padded_S = np.pad(clip_S, (0, max(0, FRAME - len(clip_S))))
        frames_TF = np.lib.stride_tricks.sliding_window_view(padded_S, FRAME)[::HOP] * np.hanning(FRAME)
        power_TF = np.abs(np.fft.rfft(frames_TF)) ** 2
        bands_TB = np.log(QUIET + power_TF @ bands().T)
        return np.concatenate([bands_TB.mean(0), bands_TB.std(0)])


def bands() -> np.ndarray:
    """(B, F): triangles that are even on the mel scale."""
    lowest, highest = (1127 * np.log1p(hz / 700) for hz in (LOWEST_HZ, RATE_HZ / 2))
    edges = 700 * np.expm1(np.linspace(lowest, highest, BANDS + 2) / 1127)
    hz_F = np.fft.rfftfreq(FRAME, 1 / RATE_HZ)
    below, centre, above = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return np.clip(np.minimum((hz_F - below) / (centre - below), (above - hz_F) / (above - centre)), 0, None)


BASELINES = {"mel-statistics": MelStatistics}
