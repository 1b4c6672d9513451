"""The mean and the standard deviation of the log-mel frames of many sounds: what a feature extractor takes off and
divides by. CAV-MAE's are AudioSet's; sounds of another kind have their own.

Frames of sounds alone count, and every bin of each; the rows behind the end of a short clip do not. Sums are in
float64, clip by clip, so that the order of the files and their number cost no digits.

Shapes: S samples, T frames, M mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from unibrivl.audio import AudioError, load_audio
from unibrivl.modeling.fbank_cavmae import FRAME_LENGTH, FRAME_SHIFT, RATE_HZ, kaldi_fbank

BLOCK = 60 * RATE_HZ // FRAME_SHIFT  # frames at once, of a long sound: a minute


@dataclass(frozen=True)
class FrameStatistics:
    """
    Args:
        mean, std (`float`): over all bins of all frames; for `CAVMAEFeatureExtractor(mean=..., std=...)`.
        sounds, frames (`int`): that were measured; sounds below 25 ms have no frame.
    """

    mean: float
    std: float
    sounds: int
    frames: int


def frame_statistics(
    paths: Iterable[str],
    num_mel_bins: int = 128,
    window: str = "hann",
    scale: float = 1.0,
    progress: Callable[[Iterable, int], Iterable] | None = None,
    refused: Callable[[AudioError], None] | None = None,
) -> FrameStatistics:
    """
    Args:
        paths: of sounds, of any format, rate and number of channels.
        num_mel_bins, window, scale: of the feature extractor that is to be set.
        progress (*optional*): called with the paths and their number, and gives them back one by one.
        refused (*optional*): called for a sound that cannot be read, which is then left out; otherwise it is raised.
    """
    paths = list(paths)
    count, mean, spread, frames, sounds = 0, 0.0, 0.0, 0, 0
    for path in paths if progress is None else progress(paths, len(paths)):
        try:
            samples_S = torch.from_numpy(load_audio(path, rate_hz=RATE_HZ).samples).double()
        except AudioError as error:
            if refused is None:
                raise
            refused(error)
            continue
        sounds += 1
        for first in range(0, len(samples_S) - FRAME_LENGTH + 1, BLOCK * FRAME_SHIFT):
            part_S = samples_S[first : first + (BLOCK - 1) * FRAME_SHIFT + FRAME_LENGTH]
            frames_TM = kaldi_fbank(part_S, window, num_mel_bins, scale)
            frames += len(frames_TM)
            # two groups' means and sums of squared differences give those of both together
            size, own = frames_TM.numel(), float(frames_TM.mean())
            gap, count = own - mean, count + size
            mean += gap * size / count
            spread += float((frames_TM - own).square().sum()) + gap * gap * size * (count - size) / count
    if not count:
        raise ValueError(f"no frame of 25 ms in {sounds} sounds: there is nothing to measure")
    return FrameStatistics(mean, math.sqrt(spread / count), sounds, frames)
