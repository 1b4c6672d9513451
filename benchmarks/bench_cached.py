"""Steps with cached targets against steps with the live, frozen image tower: BriVL's B5 at 360 pixels, batches of 16.

The sound side is SpeechLM Base as the recipe has it, the objective CXLoss with its momentum copy, the step the loop's
own (`optimizer_step`: clipping, AdamW, averages of the copy). Both forms take the same sounds, which lie ready; the
live form gets pictures that lie ready too, so decoding and resizing, which the cache also saves, are not counted. The
cached form reads its 16 rows from the memory-mapped file in every step. Weights are random, those of B5 with
statistics as if trained (see bench_brivl.py). Forms run in turns, and the median of the ratios of neighbours counts.

A picture costs the live form some 0.1 s, so what the cache gains depends on what a sound costs beside it: on its
length, and on how much of the sound tower trains. The table therefore has three ways to train and several lengths;
AudioSet's clips are of 10 s. `limit` is what a cache can gain at most, (cached + pictures alone) / cached: for the
goal of 8 the sounds of a batch, forward, backward, momentum copy and step, would have to cost a seventh of its
pictures. "no sound" trains f alone towards sounds that are given, which shows that the cache itself costs nothing: it
is no way to train. Writes `results/cached.json` and fails where the gain stays below 0.85 of its limit. The whole
tower with sounds of 10 s takes some 15 GB of memory; `--lengths` leaves lengths out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from bench_brivl import build as brivl_tower
from machine import describe
from tqdm import tqdm

from unibrivl.modeling import SpeechLMConfig, SpeechLMModel, UniBriVLModel
from unibrivl.training.adapters import adapt
from unibrivl.training.config import AdapterConfig, RunConfig
from unibrivl.training.journal import Window
from unibrivl.training.loop import optimizer_step
from unibrivl.training.objectives.cx import CXLoss
from unibrivl.training.parts import Parts
from unibrivl.training.run import Run
from unibrivl.training.target_cache import TargetCache, Tower

RESULTS = Path(__file__).resolve().parent / "results" / "cached.json"
BATCH, SIDE, RATE_HZ, PICTURES = 16, 360, 16_000, 256
GOAL = 8.0  # steps per second, cached over live
LEAST = 0.85  # of what is possible
METHODS = {"whole tower": "full", "LoRA": "lora", "head alone": "head"}


def build(config: RunConfig) -> Parts:
    audio = SpeechLMModel(SpeechLMConfig())
    model = UniBriVLModel.from_pretrained_towers(audio, brivl_tower(), text=False)
    model = adapt(model, config.adapter)
    return Parts(model, CXLoss(model, queue_size=1024), list(range(BATCH)), list)


def sounds(seconds: float) -> torch.Tensor:
    return 0.1 * torch.randn(BATCH, int(seconds * RATE_HZ), generator=torch.Generator().manual_seed(0))


def cache_in(folder: Path, width: int) -> tuple[TargetCache, list[str]]:
    """A cache of as many rows as a small folder has; which numbers they hold costs nothing."""
    chance = np.random.default_rng(0)
    paths = [folder / f"{number}.txt" for number in range(PICTURES)]
    for number, path in enumerate(paths):
        path.write_text(str(number))

    def embed(found: list, seeds: list | None) -> np.ndarray:
        rows = chance.standard_normal((len(found), width))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    cache = TargetCache(folder / "cache", Tower("0" * 64, width, str, embed))
    names = list(map(str, paths))
    cache.prepare(names)
    return cache, names


class Forms:
    """The two forms of a step, over one run: the same weights, moments and queues, one step after the other."""

    def __init__(self, run: Run, seconds: float, cache: TargetCache, names: list[str]):
        self.run, self.input_values = run, sounds(seconds)
        self.pixel_values = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        self.cache, self.names, self.step = cache, names, 0

    def batch(self, cached: bool) -> dict[str, torch.Tensor]:
        places = [(BATCH * self.step + row) % PICTURES for row in range(BATCH)]
        pictures = {"pixel_values": self.pixel_values}
        if cached:
            rows = np.stack([self.cache.row(self.names[place]) for place in places])
            pictures = {"image_embeds": torch.from_numpy(rows)}
        return {"input_values": self.input_values, "sample_id": torch.tensor(places), **pictures}

    def seconds(self, cached: bool) -> float:
        self.step += 1
        self.run.progress.step = self.step
        start = time.perf_counter()
        self.run.batches = iter([self.batch(cached)])
        optimizer_step(self.run, Window())
        return time.perf_counter() - start


def compared(forms: Forms, rounds: int, pictures_s: float) -> dict[str, float]:
    pairs = [(forms.seconds(True), forms.seconds(False)) for _ in range(rounds + 1)][1:]
    cached_s = statistics.median(cached for cached, _ in pairs)
    return {
        "cached_s": round(cached_s, 3),
        "live_s": round(statistics.median(live for _, live in pairs), 3),
        "ratio": round(statistics.median(live / cached for cached, live in pairs), 2),
        "limit": round((cached_s + pictures_s) / cached_s, 2),
    }


def tower_seconds(model: UniBriVLModel, rounds: int) -> float:
    """What the live tower takes for the pictures of a batch."""
    pixel_values = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    times = []
    with torch.no_grad():
        for _ in range(rounds + 1):
            start = time.perf_counter()
            model.get_native_image_features(pixel_values)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def without_sound(model: UniBriVLModel, forms: Forms, rounds: int) -> dict[str, float]:
    """Forward and backward of f and a step of it, on pictures that are live or cached."""
    projection = model.image_to_shared
    optimizer = torch.optim.AdamW(projection.parameters())
    target_BE = torch.nn.functional.normalize(torch.randn(BATCH, model.config.embed_dim), dim=-1)

    def seconds(cached: bool) -> float:
        start = time.perf_counter()
        batch = forms.batch(cached)
        if cached:
            native_BV = batch["image_embeds"]
        else:
            with torch.no_grad():
                native_BV = model.get_native_image_features(batch["pixel_values"]).pooler_output
        (1 - (model.project_image(native_BV) * target_BE).sum(1).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    pairs = [(seconds(True), seconds(False)) for _ in range(rounds + 1)][1:]
    return {
        "cached_s": round(statistics.median(cached for cached, _ in pairs), 5),
        "live_s": round(statistics.median(live for _, live in pairs), 3),
        "ratio": round(statistics.median(live / cached for cached, live in pairs)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="counted pairs of each row")
    parser.add_argument("--lengths", default="10,5,2,1", help="of the sounds, in seconds")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lengths, table = [float(length) for length in args.lengths.split(",")], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in tqdm(args.methods.split(","), desc="methods", disable=None):
            config = RunConfig(
                recipe="bench", output_dir=f"{folder}/{METHODS[name]}", batch_size=BATCH,
                adapter=AdapterConfig(method=METHODS[name]),
            )  # fmt: skip
            run = Run(config, build)
            if not table:
                model = run.parts.model.get_base_model() if METHODS[name] != "full" else run.parts.model
                cache, names = cache_in(Path(folder), model.config.native_dim)
                pictures_s = tower_seconds(model, args.rounds)
                rest = without_sound(model, Forms(run, 1.0, cache, names), args.rounds)
            table[name] = {}
            for length in lengths:
                table[name][f"{length:g} s"] = compared(Forms(run, length, cache, names), args.rounds, pictures_s)
                print(name, f"{length:g} s", table[name][f"{length:g} s"], flush=True)
            del run
    found = {
        "machine": describe(),
        "threads": args.threads,
        "batch": BATCH,
        "pictures_alone_s": round(pictures_s, 3),
        "steps": table,
        "no sound": rest,
        "goal": GOAL,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    rows = [row for of_method in table.values() for row in of_method.values()]
    reached = any(row["ratio"] >= GOAL for row in rows)
    print(f"{'somewhere' if reached else 'nowhere'} {GOAL:g} times as fast; the most that is possible is `limit`")
    good = all(row["ratio"] >= LEAST * row["limit"] for row in rows)
    print("all limits met" if good else "A LIMIT WAS MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
