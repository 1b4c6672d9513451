"""Two workers of Ray against one, a thread each: how much faster the same sounds become the same vectors.

    python benchmarks/bench_ray.py

Sounds are noise of one to nine seconds, the model is the embedded one, each worker is held to one thread by a Ray of
as many cores as workers. Starting Ray and loading the model are timed beside it: they are paid once. The ratio is
taken pair by pair, one and two in turn, and the median counts. A process alone is timed too, for what Ray costs.
Writes `results/ray.json` and fails below the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from machine import describe

from unibrivl.cli.embedding import load_embedder
from unibrivl.embedder import embed_files, read_vectors
from unibrivl.embedder.bulk_ray import RayCrew

RESULTS = Path(__file__).resolve().parent / "results" / "ray.json"
LIMIT, DIFFERENCE_LIMIT, RATE_HZ = 1.6, 1e-5, 16_000


def write_noise(folder: Path, count: int) -> list[str]:
    generator, paths = np.random.default_rng(0), []
    for number in range(count):
        path = folder / f"{number:04}.wav"
        samples = 0.1 * generator.standard_normal(round(generator.uniform(1, 9) * RATE_HZ))
        soundfile.write(path, samples, RATE_HZ)
        paths.append(str(path))
    return paths


def timed(embedder, paths: list[str], out: Path, crew: RayCrew | None) -> float:
    began = time.perf_counter()
    embed_files(embedder, paths, out, restart=True, progress=False, crew=crew)
    return time.perf_counter() - began


def with_workers(actors: int, embedder, paths: list[str], folder: Path) -> tuple[float, float]:
    """Seconds until all workers have embedded something, and seconds of work after that."""
    import ray

    make = partial(load_embedder, "embedded", {}, "cpu")
    began = time.perf_counter()
    ray.init(num_cpus=actors, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        with RayCrew(make, actors) as crew:
            timed(embedder, paths[:16], folder / "warm.parquet", crew)
            start_s = time.perf_counter() - began
            return start_s, timed(embedder, paths, folder / f"{actors}.parquet", crew)
    finally:
        ray.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=int, default=1500)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    torch.set_num_threads(1)
    embedder, pairs, alone = load_embedder("embedded", {}, "cpu"), [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_noise(folder, args.sounds)
        for _ in range(args.pairs):
            alone.append(timed(embedder, paths, folder / "alone.parquet", None))
            pairs.append([with_workers(actors, embedder, paths, folder) for actors in (1, 2)])
        vectors = [read_vectors(folder / f"{one}.parquet").vectors for one in ("alone", 1, 2)]
    difference = max(float(np.abs(one - vectors[0]).max()) for one in vectors[1:])
    ratio = statistics.median(one[1] / two[1] for one, two in pairs)
    found = {
        "machine": describe(),
        "sounds": args.sounds,
        "ratio": round(ratio, 3),
        "ratios": [round(one[1] / two[1], 3) for one, two in pairs],
        "seconds_one": [round(one[1], 2) for one, _ in pairs],
        "seconds_two": [round(two[1], 2) for _, two in pairs],
        "seconds_to_start_two": [round(two[0], 2) for _, two in pairs],
        "seconds_without_ray": [round(one, 2) for one in alone],
        "difference": difference,
        "limits": {"ratio": LIMIT, "difference": DIFFERENCE_LIMIT},
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="ascii")
    print(json.dumps({name: value for name, value in found.items() if name != "machine"}, indent=1))
    return int(ratio < LIMIT or difference > DIFFERENCE_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
