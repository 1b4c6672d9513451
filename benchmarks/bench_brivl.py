"""BriVL's image tower (B5, 380 pixels) on a batch of eight, against the literal form of the original.

"Literal" (literal_brivl.py): transformers' EfficientNet as it stands, and for each picture the points of its 37
regions sampled from the map, the 1x1 convolution on all 16 points of every region, then the average. Three readings:

    batched CNN     CNN, attention and MLP on the batch, only the regions picture by picture: the original's code
    memory kept     the same where memory that was freed stays mapped: maps of 100 MB and more are otherwise mapped and
                    zeroed anew for every layer on Linux, which costs the literal form half its time and ours nothing
    all per image   every step picture by picture, as one would embed a folder with it

All use our attention block. The regions of one picture are sampled and convolved together, which favours the literal
form: a loop over regions is slower. The ratio of times is taken pair by pair, ours and theirs in turn, and the median
counts. Weights are random, with statistics of the normalisation measured on noise: without that activations of a new
network fade to numbers on which every CPU is slow. Writes `results/brivl.json` and fails if a limit is missed.

Where the time goes is measured apart: the CNN alone, the regions alone, the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from literal_brivl import literal_embedding, literal_embedding_each, literal_map, literal_regions
from machine import describe
from torch.utils.flop_counter import FlopCounterMode

from unibrivl.modeling import BriVLVisionConfig, BriVLVisionModel
from unibrivl.modeling.regions_brivl import grid_boxes, region_features

RESULTS = Path(__file__).resolve().parent / "results" / "brivl.json"
SPEED_LIMIT, DIFFERENCE_LIMIT = 1.5, 1e-4


def build() -> BriVLVisionModel:
    """B5 with weights as if trained: every layer keeps the size of what goes through it."""
    torch.manual_seed(0)
    model = BriVLVisionModel(BriVLVisionConfig())
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain average, over the one batch that follows
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
    with torch.no_grad():
        literal_map(model.train(), pictures(2))
    return model.eval()


def pictures(number: int) -> torch.Tensor:
    return torch.randn(number, 3, 380, 380, generator=torch.Generator().manual_seed(0))


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        function(*arguments)
    return time.perf_counter() - start


def paired(ours, other, runs: int) -> dict[str, float]:
    """Median seconds of both, and the median of other / ours pair by pair; in turn, after one round of warm-up."""
    pairs = [(seconds(ours), seconds(other)) for _ in range(runs + 1)][1:]
    ratios = [theirs / mine for mine, theirs in pairs]
    return {
        "ours_s": round(statistics.median(mine for mine, _ in pairs), 3),
        "other_s": round(statistics.median(theirs for _, theirs in pairs), 3),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "ratio_of_fastest": round(min(theirs for _, theirs in pairs) / min(mine for mine, _ in pairs), 3),
    }


def with_memory_kept(args) -> dict[str, float]:
    """The first comparison in a fresh process, whose C library (glibc) hands no memory back."""
    kept = {"MALLOC_MMAP_THRESHOLD_": str(4 * 2**30), "MALLOC_TRIM_THRESHOLD_": str(8 * 2**30)}
    numbers = {"--threads": args.threads, "--runs": args.runs, "--batch": args.batch}
    command = [sys.executable, __file__, "--first-only", *(str(part) for pair in numbers.items() for part in pair)]
    done = subprocess.run(command, env={**os.environ, **kept}, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def matmul_gflops() -> float:
    left, right = torch.randn(1152, 1824), torch.randn(1824, 304)
    fastest = min(seconds(torch.matmul, left, right) for _ in range(20))
    return round(2 * 1152 * 1824 * 304 / fastest / 1e9, 1)


def gflop(function, *arguments) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*arguments)
    return round(counter.get_total_flops() / 1e9, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="counted pairs of each comparison (default: 7)")
    parser.add_argument("--batch", type=int, default=8, help="pictures of a batch (default: 8)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads of both")
    parser.add_argument("--first-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, batch = build(), pictures(args.batch)
    if args.first_only:
        print(json.dumps(paired(lambda: model(batch), lambda: literal_embedding(model, batch), args.runs)))
        return 0
    boxes = grid_boxes(380, 6)
    with torch.inference_mode():
        map_BCHW, plain_map = model.backbone(batch), literal_map(model, batch)
        regions = model.region_projection(region_features(map_BCHW, boxes, 380, 4))
        wanted = literal_embedding(model, batch)
        found = model(batch)
        differences = {
            "embedding": (found.pooler_output - torch.nn.functional.normalize(wanted, dim=-1)).abs().max(),
            "map_relative": (map_BCHW - plain_map).abs().max() / plain_map.abs().max(),
        }
    each_boxes = boxes.expand(args.batch, -1, -1)
    speed = {
        "tower_vs_batched_cnn": paired(lambda: model(batch), lambda: literal_embedding(model, batch), args.runs),
        "tower_vs_batched_cnn_memory_kept": with_memory_kept(args),
        "tower_vs_all_per_image": paired(
            lambda: model(batch), lambda: literal_embedding_each(model, batch), args.runs
        ),
        "one_picture": paired(lambda: model(batch[:1]), lambda: literal_embedding(model, batch[:1]), 2 * args.runs),
        "cnn_vs_batched": paired(lambda: model.backbone(batch), lambda: literal_map(model, batch), args.runs),
        "regions": paired(
            lambda: model.region_projection(region_features(map_BCHW, boxes, 380, 4)),
            lambda: literal_regions(model, plain_map, each_boxes, 380),
            args.runs,
        ),
    }
    rest = statistics.median(seconds(model.attention_pool, regions) for _ in range(args.runs))
    tower_gflop, matmul = gflop(lambda: model(batch[:1])), matmul_gflops()
    found = {
        "machine": describe(),
        "threads": args.threads,
        "batch": args.batch,
        "speed": speed,
        "attention_s": round(rest, 3),
        "gflop_a_picture": {
            "tower": tower_gflop,
            "cnn": gflop(lambda: model.backbone(batch[:1])),
            "literal": gflop(lambda: literal_embedding(model, batch[:1])),
        },
        "matmul_gflops": matmul,
        "share_of_matmul_speed": round(tower_gflop * args.batch / speed["tower_vs_batched_cnn"]["ours_s"] / matmul, 3),
        "differences": {name: float(f"{value:.2e}") for name, value in differences.items()},
        "limits": {"speed": SPEED_LIMIT, "difference": DIFFERENCE_LIMIT},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    good = all(row["ratio"] >= SPEED_LIMIT for name, row in speed.items() if name.startswith("tower_vs"))
    good = good and max(differences.values()) <= DIFFERENCE_LIMIT
    print("all limits met" if good else "A LIMIT WAS MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
