"""What a second process brings: the same batches, by one process of one thread and by two of one thread each.

Three processes live side by side and work in turns, so that neighbours in time share what else the machine does: one
alone with whole batches, and two that share them by DDP over gloo, as `accelerate launch` starts them. A step is the
training loop's own, metrics included. In a third turn the two work without exchanging gradients: what is lost there is
no communication but the machine (memory, cache, clock) and what every process does for itself, above all AdamW, whose
time is reported too. Writes `results/processes.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from itertools import repeat
from operator import truediv
from pathlib import Path

import torch
from machine import describe
from small_model import small_model
from torch import multiprocessing

from unibrivl.training.config import RunConfig
from unibrivl.training.journal import Window
from unibrivl.training.loop import optimizer_step, write_row
from unibrivl.training.objectives.in_batch import InBatchLoss
from unibrivl.training.parts import Parts
from unibrivl.training.run import Run

RESULTS = Path(__file__).resolve().parent / "results" / "processes.json"
LIMIT = 1.6  # times the examples a second of one process
SHORTEST_STEP_S = 0.1  # of the two: below this it is no training step that one would share out
BATCH, SAMPLES = 8, 16_000


def build(config: RunConfig) -> Parts:
    model = small_model()
    return Parts(model, InBatchLoss(model), list(range(BATCH)), list)


def batch_of(rows: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "input_values": 0.1 * torch.randn(rows, SAMPLES, generator=generator),
        "pixel_values": torch.randn(rows, 3, 64, 64, generator=generator),
    }


def work(orders, rank: int, world: int, port: int, folder: str, steps: int) -> None:
    """A process of the run: at each order some steps, and back the seconds that a step took."""
    torch.set_num_threads(1)
    os.environ |= {"ACCELERATE_USE_CPU": "true", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                   "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    if world == 1:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            del os.environ[name]
    run = Run(RunConfig(recipe="bench", output_dir=folder, batch_size=BATCH, clip=None), build)
    run.batches = repeat(batch_of(BATCH // world, rank))
    window, bar, adamw = Window(), Silent(), Stopwatch(run.optimizer)
    orders.send("ready")
    while (order := orders.recv()) != "end":
        if world > 1:
            run.together.require_backward_grad_sync = order == "together"
        adamw.seconds, begin = 0.0, time.perf_counter()
        for _ in range(steps):
            optimizer_step(run, window)
            run.progress.step += 1
        write_row(run, window, time.monotonic() - 1, bar)
        orders.send(((time.perf_counter() - begin) / steps, adamw.seconds / steps))
    if world > 1:
        torch.distributed.destroy_process_group()


class Stopwatch:
    """Seconds that an optimiser's own steps take."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.seconds, self.bare_step = 0.0, optimizer.step
        optimizer.step = self.step

    def step(self, *arguments, **named):
        begin = time.perf_counter()
        self.bare_step(*arguments, **named)
        self.seconds += time.perf_counter() - begin


class Silent:
    """In place of the progress bar."""

    def set_postfix(self, **values) -> None:
        pass


def start(folder: str, name: str, world: int, steps: int) -> list:
    """(pipe, process) of each rank, ready to work."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    found = []
    for rank in range(world):
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, rank, world, port, f"{folder}/{name}", steps))
        process.start()
        found.append((here, process))
    for pipe, _ in found:
        pipe.recv()
    return found


def turn(workers: list, order: str) -> tuple[float, float]:
    """Seconds a step, and of AdamW in it, of the slowest."""
    for pipe, _ in workers:
        pipe.send(order)
    return max(pipe.recv() for pipe, _ in workers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="turns of each form")
    parser.add_argument("--steps", type=int, default=5, help="steps of a turn")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one, two = (start(folder, name, world, args.steps) for name, world in (("one", 1), ("two", 2)))
        forms = {"one": (one, "alone"), "two": (two, "together"), "two_without_exchange": (two, "apart")}
        seconds: dict[str, list[float]] = {name: [] for name in forms}
        adamw: dict[str, list[float]] = {name: [] for name in forms}
        for number in range(args.rounds + 1):
            for name, (workers, order) in forms.items():
                spent, of_adamw = turn(workers, order)
                if number:  # the first steps allocate
                    seconds[name].append(spent)
                    adamw[name].append(of_adamw)
        for pipe, process in (*one, *two):
            pipe.send("end")
            process.join()
    ratios = {
        name: round(statistics.median(map(truediv, seconds["one"], seconds[name])), 3)
        for name in ("two", "two_without_exchange")
    }
    step_s = {name: round(statistics.median(times), 4) for name, times in seconds.items()}
    found = {
        "machine": describe(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "batch": BATCH,
        "step_s": step_s,
        "adamw_s": {name: round(statistics.median(times), 4) for name, times in adamw.items()},
        "times_one_process": ratios,
        "limit": LIMIT,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    good = ratios["two"] >= LIMIT and step_s["two"] >= SHORTEST_STEP_S
    print("all limits met" if good else "A LIMIT WAS MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
