"""Steps with cached targets against steps with live, frozen towers: BriVL's B5 at 360 pixels, batches of 16.

The sound side is SpeechLM Base as the recipe has it, the objective CXLoss with its momentum copy, the step the loop's
own (`optimizer_step`: clipping, AdamW, averages of the copy). Both forms take the same sounds, which lie ready; the
live form gets pictures that lie ready too, so decoding and resizing, which the cache also saves, are not counted. The
cached form reads its 16 rows from the memory-mapped file in every step. Weights are random, those of B5 with
statistics as if trained (see bench_brivl.py). Forms run in turns, and the median of the ratios of neighbours counts.

A picture costs the live form some 0.1 s, so what the cache gains depends on what a sound costs beside it: on its
length, and on how much of the sound tower trains. The table therefore has three ways to train and several lengths;
AudioSet's clips are of 10 s. Where the head alone trains, what the sound tower says can be cached too: in the rows
"head alone, sounds cached" both towers are live in the one form and neither in the other, which reads the states of
all layers, `mb_a_step`, from memory-mapped files that the system holds in its page cache.

`limit` is what a cache can gain at most, (cached + saved) / cached. Saved are the pictures alone and, with cached
sounds, twice the sound tower alone, since the momentum copy hears them too. For the goal of 8 by pictures only, the
sounds of a batch, forward, backward, momentum copy and step, would have to cost a seventh of its pictures. "no sound"
trains f alone towards sounds that are given, which shows that the cache itself costs nothing: it is no way to train.
With cached sounds the head is what remains, forward, backward and in the copy: about a fifth of what live sounds cost.
The longer they are the less the pictures count, so the gain falls, and the goal is asked of sounds of 1 s. Writes
`results/cached.json` and fails where the gain stays below 0.85 of its limit, or below the goal where that is asked.
The whole tower with sounds of 10 s takes some 15 GB of memory; `--lengths` leaves lengths out.
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
import torch
from bench_brivl import build as brivl_tower
from machine import describe
from tqdm import tqdm

from unibrivl.modeling import SpeechLMConfig, SpeechLMModel, UniBriVLModel
from unibrivl.training.adapters import adapt
from unibrivl.training.config import AdapterConfig, RunConfig
from unibrivl.training.journal import Window
from unibrivl.training.loop import optimizer_step
from unibrivl.training.momentum import bare
from unibrivl.training.objectives.cx import CXLoss
from unibrivl.training.pairs import padded
from unibrivl.training.parts import Parts
from unibrivl.training.run import Run
from unibrivl.training.target_cache import TargetCache, Tower

RESULTS = Path(__file__).resolve().parent / "results" / "cached.json"
BATCH, SIDE, RATE_HZ, PICTURES, SOUNDS = 16, 360, 16_000, 256, 64
GOAL, GOAL_S = 8.0, 1.0  # steps per second, cached over live, with cached sounds of up to so many seconds
LEAST = 0.85  # of what is possible
SOUNDS_CACHED = "head alone, sounds cached"
METHODS = {"whole tower": "full", "LoRA": "lora", "head alone": "head", SOUNDS_CACHED: "head"}


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

    def embed(found: list, seeds: list | None) -> np.ndarray:
        rows = chance.standard_normal((len(found), width))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    cache = TargetCache(folder / "cache", Tower("0" * 64, width, str, embed))
    names = files(folder, PICTURES)
    cache.prepare(names)
    return cache, names


def files(folder: Path, number: int) -> list[str]:
    """So many of unlike content."""
    paths = [folder / f"{place}.txt" for place in range(number)]
    for place, path in enumerate(paths):
        path.write_text(str(place))
    return list(map(str, paths))


def frames_in(folder: Path, model: UniBriVLModel, seconds: float) -> tuple[TargetCache, list[str]]:
    """What the tower makes of a batch of sounds, as a cache of several batches."""
    with torch.no_grad():
        frames_BTW = model.audio_model.tower_frames(sounds(seconds))[0].numpy()

    def embed(found: list, seeds: list | None) -> list[np.ndarray]:
        return [frames_BTW[int(place) % BATCH] for place in found]

    tower = Tower(f"{seconds:g} s", frames_BTW.shape[2], lambda path: Path(path).read_text(), embed)
    cache, names = TargetCache(folder / "cache", tower), files(folder, SOUNDS)
    cache.prepare(names)
    return cache, names


class Forms:
    """The two forms of a step, over one run: the same weights, moments and queues, one step after the other.

    `frames` is a cache of what the sound tower says, and its names; without, both forms hear their sounds.
    """

    def __init__(
        self,
        run: Run,
        seconds: float,
        cache: TargetCache,
        names: list[str],
        frames: tuple[TargetCache, list[str]] | None = None,
    ):
        self.run, self.input_values, self.frames = run, sounds(seconds), frames
        self.pixel_values = torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        self.cache, self.names, self.step = cache, names, 0

    def batch(self, cached: bool) -> dict[str, torch.Tensor]:
        places = [(BATCH * self.step + row) % PICTURES for row in range(BATCH)]
        pictures, heard = {"pixel_values": self.pixel_values}, {"input_values": self.input_values}
        if cached:
            rows = np.stack([self.cache.row(self.names[place]) for place in places])
            pictures = {"image_embeds": torch.from_numpy(rows)}
            if self.frames is not None:
                frames, names = self.frames
                heard = padded([frames.block(names[place % SOUNDS]) for place in places])
        return {**heard, "sample_id": torch.tensor(places), **pictures}

    def seconds(self, cached: bool) -> float:
        self.step += 1
        self.run.progress.step = self.step
        start = time.perf_counter()
        self.run.batches = iter([self.batch(cached)])
        optimizer_step(self.run, Window())
        return time.perf_counter() - start


def compared(forms: Forms, rounds: int) -> dict[str, float]:
    """Both forms and the towers that the cache saves, in turns: whatever else the machine does meets all of them."""
    model = bare(forms.run.parts.model)
    turns = []
    for _ in range(rounds + 1):
        cached, live = forms.seconds(True), forms.seconds(False)
        saved = tower_seconds(model.get_native_image_features, forms.pixel_values)
        if forms.frames is not None:
            saved += 2 * tower_seconds(model.audio_model.tower, forms.input_values)
        turns.append((cached, live, saved))
    turns = turns[1:]
    return {
        "cached_s": round(statistics.median(cached for cached, _, _ in turns), 3),
        "live_s": round(statistics.median(live for _, live, _ in turns), 3),
        "ratio": round(statistics.median(live / cached for cached, live, _ in turns), 2),
        "limit": round(statistics.median((cached + saved) / cached for cached, _, saved in turns), 2),
    }


def tower_seconds(tower: Callable[[torch.Tensor], object], inputs: torch.Tensor) -> float:
    """What a live tower takes for the pictures, or the sounds, of a batch."""
    start = time.perf_counter()
    with torch.no_grad():
        tower(inputs)
    return time.perf_counter() - start


def with_sounds(run: Run, length: float, targets: tuple, rounds: int) -> dict[str, float]:
    """A row in which the sounds are cached too."""
    with tempfile.TemporaryDirectory() as folder:
        frames = frames_in(Path(folder), bare(run.parts.model), length)
        row = compared(Forms(run, length, *targets, frames), rounds)
        return {**row, "mb_a_step": round(frames[0].parts.num_bytes * BATCH / SOUNDS / 1e6, 1)}


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
    parser.add_argument("--methods", default=";".join(METHODS), help=f"of {'; '.join(METHODS)}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lengths, table = [float(length) for length in args.lengths.split(",")], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in tqdm(args.methods.split(";"), desc="methods", disable=None):
            config = RunConfig(
                recipe="bench", output_dir=f"{folder}/{name}", batch_size=BATCH,
                adapter=AdapterConfig(method=METHODS[name]),
            )  # fmt: skip
            run = Run(config, build)
            if not table:
                model = bare(run.parts.model)
                targets = cache_in(Path(folder), model.config.native_dim)
                rest = without_sound(model, Forms(run, 1.0, *targets), args.rounds)
            table[name] = {}
            for length in lengths:
                if name == SOUNDS_CACHED:
                    row = with_sounds(run, length, targets, args.rounds)
                else:
                    row = compared(Forms(run, length, *targets), args.rounds)
                table[name][f"{length:g} s"] = row
                print(name, f"{length:g} s", table[name][f"{length:g} s"], flush=True)
            del run
    found = {
        "machine": describe(),
        "threads": args.threads,
        "batch": BATCH,
        "steps": table,
        "no sound": rest,
        "goal": GOAL,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    rows = [row for of_method in table.values() for row in of_method.values()]
    good = all(row["ratio"] >= LEAST * row["limit"] for row in rows)
    print("all limits met" if good else "A LIMIT WAS MISSED")
    slow = [length for length, row in table.get(SOUNDS_CACHED, {}).items() if row["ratio"] < GOAL]
    print(f"below {GOAL:g} times as fast with cached sounds: {', '.join(slow) or 'nothing'}")
    missed = any(float(length.split()[0]) <= GOAL_S for length in slow)
    return 0 if good and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
