"""CAV-MAE's filterbank against transformers' `audio_utils.spectrogram`, which computes the same: ten seconds of sound.

    exact     float64 up to the spectrum, as the feature extractor runs it; the two differ by less than 2e-6
    float32   all in float32, for training that takes gradients through it
    batch     eight clips in one call, in float64; transformers one after the other

Ours and theirs run in turn, in processor time of one thread, and the ratio is taken pair by pair: a machine that is
busy with other things slows both. The median counts. Writes `results/fbank.json` and fails if a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from unibrivl.modeling.fbank_cavmae import kaldi_fbank

RESULTS = Path(__file__).resolve().parent / "results" / "fbank.json"
SPEED_LIMIT, DIFFERENCE_LIMIT = 2.0, 2e-6
CLIP_S, RATE_HZ, BATCH = 10, 16_000, 8


def clips(number: int) -> np.ndarray:
    """Tones over modulated noise, (number, samples) float64."""
    times_S = np.arange(CLIP_S * RATE_HZ) / RATE_HZ
    noise_BS = np.random.default_rng(0).standard_normal((number, len(times_S)))
    return 0.2 * np.sin(2 * np.pi * 440 * times_S) + 0.1 * np.sin(3 * times_S) ** 2 * noise_BS


def theirs(samples_S: np.ndarray, window: np.ndarray, bank: np.ndarray) -> np.ndarray:
    return spectrogram(
        samples_S, window, 400, 160, 512, power=2.0, center=False, preemphasis=0.97, mel_filters=bank, log_mel="log",
        mel_floor=float(np.finfo(np.float32).eps), remove_dc_offset=True,
    ).T  # fmt: skip


def milliseconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    with torch.inference_mode():
        function()
    return 1000 * (time.process_time() - start)


def paired(ours: Callable[[], object], other: Callable[[], object], runs: int) -> dict[str, float]:
    pairs = [(milliseconds(ours), milliseconds(other)) for _ in range(runs + 1)][1:]
    ratios = [long / short for short, long in pairs]
    return {
        "ours_ms": round(statistics.median(mine for mine, _ in pairs), 2),
        "other_ms": round(statistics.median(one for _, one in pairs), 2),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
        "ratio_of_fastest": round(min(one for _, one in pairs) / min(mine for mine, _ in pairs), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=25, help="counted pairs of each comparison (default: 25)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one bin lies between two frequencies, in the original too
        bank = mel_filter_bank(257, 128, 20, 8000, RATE_HZ, mel_scale="kaldi", triangularize_in_mel_space=True)
    window = window_function(400, "hann", periodic=False)
    batch = clips(BATCH)
    wide, narrow = torch.from_numpy(batch), torch.from_numpy(batch).float()
    speed = {
        "exact": paired(
            lambda: kaldi_fbank(wide[0], mel_dtype=torch.float32), lambda: theirs(batch[0], window, bank), args.runs
        ),
        "float32": paired(lambda: kaldi_fbank(narrow[0]), lambda: theirs(batch[0], window, bank), args.runs),
        "batch": paired(
            lambda: kaldi_fbank(wide, mel_dtype=torch.float32),
            lambda: [theirs(one, window, bank) for one in batch],
            max(3, args.runs // BATCH),
        ),
    }
    wanted = torch.from_numpy(theirs(batch[0], window, bank))
    differences = {
        "exact": float((kaldi_fbank(wide[0], mel_dtype=torch.float32) - wanted).abs().max()),
        "float32": float((kaldi_fbank(narrow[0]) - wanted).abs().max()),
    }
    found = {
        "machine": describe(),
        "threads": 1,
        "clip_s": CLIP_S,
        "batch": BATCH,
        "speed": speed,
        "differences": {name: float(f"{value:.2e}") for name, value in differences.items()},
        "limits": {"speed": SPEED_LIMIT, "difference": DIFFERENCE_LIMIT},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    good = all(row["ratio"] >= SPEED_LIMIT for row in speed.values()) and differences["exact"] <= DIFFERENCE_LIMIT
    print("all limits met" if good else "A LIMIT WAS MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
