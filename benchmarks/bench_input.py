"""How fast one core makes training batches from FLAC files: decode, resample to 16 kHz, augment, batch.

Clips of ten seconds at 16 kHz, 44.1 kHz and 48 kHz stereo, of modulated noise, which FLAC compresses least and decodes
slowest. All of every clip is decoded and heard; the augmentation is the default with everything on. Beside it stands
what bare libsndfile does with the same files, which nothing that decodes through it can exceed; the whole is timed as
it runs in training, and its stages one by one, in processor time, for it is what a core can do that is asked. Writes
`results/input.json`.

Last, ten seconds out of ten minutes: read whole and cut, and entered in the middle.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from machine import describe

from unibrivl.audio import load_audio, load_part
from unibrivl.audio.resample import resample
from unibrivl.training.augment_sound import SoundAugmentation

RESULTS = Path(__file__).resolve().parent / "results" / "input.json"
LIMIT = 500.0  # times real time, one core
RATE_HZ = 16_000
CLIP_S = 10.0
FORMATS = {"16 kHz mono": (16_000, 1), "44.1 kHz mono": (44_100, 1), "48 kHz stereo": (48_000, 2)}
AUGMENTATION = SoundAugmentation(crop_s=CLIP_S, noise_prob=1.0)
BATCH = 16


def write_clips(folder: Path, rate_hz: int, channels: int, count: int) -> list[Path]:
    """Noise whose loudness swings as speech does, 16 bits."""
    chance = np.random.default_rng(0)
    times_S = np.arange(int(CLIP_S * rate_hz)) / rate_hz
    paths = []
    for number in range(count):
        loudness_S = 0.05 + 0.1 * np.sin(2 * np.pi * (3 + 0.1 * number) * times_S) ** 2
        samples_SC = loudness_S[:, None] * chance.standard_normal((len(times_S), channels))
        path = folder / f"{rate_hz}_{number:03}.flac"
        soundfile.write(path, samples_SC.clip(-1, 1), rate_hz)
        paths.append(path)
    return paths


def batch_of(examples: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(examples))


def pipeline(paths: list[Path]) -> None:
    """As a worker of the loader does it."""
    for start in range(0, len(paths), BATCH):
        examples = []
        for number, path in enumerate(paths[start : start + BATCH], start):
            waveform = load_audio(path, rate_hz=RATE_HZ)
            examples.append(AUGMENTATION(waveform.samples, RATE_HZ, np.random.default_rng(number)))
        batch_of(examples)


def stages(paths: list[Path]) -> dict[str, Callable[[], object]]:
    """The pipeline's parts, each on what the one before it gave, and bare libsndfile."""
    decoded = [load_audio(path) for path in paths]
    heard = [one.resample(RATE_HZ).samples for one in decoded]
    augmented = [AUGMENTATION(one, RATE_HZ, np.random.default_rng(0)) for one in heard]
    return {
        "libsndfile": lambda: [soundfile.read(path, dtype="float32") for path in paths],
        "decode": lambda: [load_audio(path) for path in paths],
        "resample": lambda: [resample(one.samples, one.rate_hz, RATE_HZ) for one in decoded if one.rate_hz != RATE_HZ],
        "augment": lambda: [AUGMENTATION(one, RATE_HZ, np.random.default_rng(0)) for one in heard],
        "batch": lambda: [batch_of(augmented[start : start + BATCH]) for start in range(0, len(augmented), BATCH)],
        "pipeline": lambda: pipeline(paths),
    }


def measure(paths: list[Path], rounds: int) -> dict[str, float]:
    """Median processor seconds of each stage over rounds that take all stages in turn."""
    forms = stages(paths)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for form in forms.values():
        form()
    for _ in range(rounds):
        for name, form in forms.items():
            clock = time.process_time()
            form()
            seconds[name].append(time.process_time() - clock)
    return {name: statistics.median(times) for name, times in seconds.items()}


def long_file(folder: Path, rounds: int) -> dict[str, float]:
    """Milliseconds for ten seconds at 16 kHz out of ten minutes at 44.1 kHz."""
    chance = np.random.default_rng(0)
    path = folder / "long.flac"
    soundfile.write(path, 0.1 * chance.standard_normal(600 * 44_100), 44_100)
    forms: dict[str, Callable[[float], np.ndarray]] = {
        "whole": lambda start_s: load_audio(path, rate_hz=RATE_HZ).samples[round(start_s * RATE_HZ) :][:160_000],
        "part": lambda start_s: load_part(path, start_s, start_s + CLIP_S, rate_hz=RATE_HZ).samples,
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for start_s in chance.uniform(0, 590, rounds).round(2):
        given = {}
        for name, form in forms.items():
            clock = time.process_time()
            given[name] = form(float(start_s))
            seconds[name].append(time.process_time() - clock)
        assert np.abs(given["whole"] - given["part"]).max() < 1e-5
    return {name: round(1000 * statistics.median(times), 2) for name, times in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=32, help="files of each format")
    parser.add_argument("--rounds", type=int, default=7, help="times that each stage is run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict] = {}
    print(f"{'':<14}{'whole':>9}{'libsndfile':>12}   share of the whole (%)")
    with tempfile.TemporaryDirectory() as folder:
        for name, (rate_hz, channels) in FORMATS.items():
            paths = write_clips(Path(folder), rate_hz, channels, args.clips)
            seconds = measure(paths, args.rounds)
            heard_s, whole = CLIP_S * len(paths), seconds["pipeline"]
            parts = {stage: seconds[stage] / whole for stage in ("decode", "resample", "augment", "batch")}
            rows[name] = {
                "times_real_time": round(heard_s / whole, 1),
                "libsndfile_alone": round(heard_s / seconds["libsndfile"], 1),
                "shares": {stage: round(share, 3) for stage, share in parts.items()},
            }
            told = ", ".join(f"{stage} {100 * share:.0f}" for stage, share in parts.items())
            print(f"{name:<14}{heard_s / whole:>8.0f}x{heard_s / seconds['libsndfile']:>11.0f}x   {told}")
        long = long_file(Path(folder), args.rounds)
    print(f"10 s out of 10 min: {long['whole']:.0f} ms whole, {long['part']:.1f} ms entered in the middle")
    slowest = min(row["times_real_time"] for row in rows.values())
    found = {"machine": describe(), "clips": args.clips, "clip_s": CLIP_S, "formats": rows, "limit": LIMIT}
    found["long_file_ms"] = long
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    good = slowest >= LIMIT
    print("all limits met" if good else "A LIMIT WAS MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
