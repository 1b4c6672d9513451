"""What the training loop costs over the bare forward pass, backward pass and step of the same model and batches.

Both run in turns over the same batch, made beforehand: examples are the recipe's business. The loop clips, averages
the weights, sums its metrics and writes a row every ten steps, as runs do; the bare steps do forward, backward, AdamW.
Clipping and the average are asked for by the configuration, so the price without them is the loop's own, and the limit
holds for it; the price with them is reported beside it. Writes `results/loop.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import torch
from machine import describe
from small_model import small_model
from tqdm import tqdm

from unibrivl.training.config import RunConfig
from unibrivl.training.journal import Window
from unibrivl.training.loop import optimizer_step, write_row
from unibrivl.training.objectives.in_batch import InBatchLoss
from unibrivl.training.parts import Parts
from unibrivl.training.run import Run

RESULTS = Path(__file__).resolve().parent / "results" / "loop.json"
LIMIT = 0.05  # of the bare step's time
BATCH = 4
LOG_EVERY = 10


def build(config: RunConfig) -> Parts:
    model = small_model()
    return Parts(model, InBatchLoss(model), list(range(BATCH)), collate)


def collate(examples: list) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "input_values": 0.1 * torch.randn(BATCH, 8000, generator=generator),
        "pixel_values": torch.randn(BATCH, 3, 64, 64, generator=generator),
    }


def start(folder: str, name: str, **fields) -> Run:
    config = RunConfig(recipe="bench", output_dir=f"{folder}/{name}", batch_size=BATCH, log_every=LOG_EVERY)
    run = Run(replace(config, **fields), build)
    run.batches = repeat(collate([]))
    return run


def looped(run: Run) -> float:
    """Seconds a step, over one window of metrics and the row at its end."""
    window, clock = Window(), time.perf_counter()
    with tqdm(total=LOG_EVERY, disable=True) as bar:
        for _ in range(LOG_EVERY):
            optimizer_step(run, window)
            run.progress.step += 1
            bar.update()
        write_row(run, window, time.monotonic() - 1, bar)
    return (time.perf_counter() - clock) / LOG_EVERY


def bare(run: Run) -> float:
    batch, clock = next(run.batches), time.perf_counter()
    for _ in range(LOG_EVERY):
        loss = sum(run.objective(run.model, batch).values())
        loss.backward()
        run.optimizer.step()
        run.optimizer.zero_grad()
    return (time.perf_counter() - clock) / LOG_EVERY


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="windows of ten steps of each form")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        forms = {
            "bare": (bare, start(folder, "bare")),
            "loop": (looped, start(folder, "loop", clip=None)),
            "loop_clip_ema": (looped, start(folder, "full", clip=1.0, ema=0.999)),
        }
        for form, run in forms.values():
            form(run)  # the first steps allocate
        seconds: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(args.rounds):
            for name, (form, run) in forms.items():
                seconds[name].append(form(run))
    # of the same round: neighbours in time share what else the machine does
    overheads = {
        name: statistics.median(mine / base - 1 for mine, base in zip(seconds[name], seconds["bare"], strict=True))
        for name in ("loop", "loop_clip_ema")
    }
    found = {
        "machine": describe(),
        "threads": args.threads,
        "step_s": {name: round(statistics.median(times), 4) for name, times in seconds.items()},
        "overhead": {name: round(value, 4) for name, value in overheads.items()},
        "limit": LIMIT,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    good = overheads["loop"] <= LIMIT
    print("all limits met" if good else "A LIMIT WAS MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
