"""CAVT-MAE and UniBriVL on the small world, in one table: what each hears on the packs' test parts.

    python benchmarks/compare_small.py --data PACKS CAVT-MAE=runs/small_cavtmae/model UniBriVL=runs/small_sounds/model

Any folders that `unibrivl.load` takes, with sounds, pictures and texts, each under a name of its own. Label-text
classification of ESC-10, of all things that are taught and of spoken digits, and retrieval of photographs by sound,
as in `bars_embedded.py`. Writes `results/compare_small.json` (`--out`) and prints the table.

Shapes: N sounds, E width.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from bars_embedded import SECONDS, heard, named, retrieval, share
from machine import describe

from unibrivl.modeling.matching_models_unibrivl import load_model_and_processor, matcher_of
from unibrivl.training.recipes.small_sounds import clip
from unibrivl.training.recipes.small_world import CORE, DIGITS, SmallWorld, SmallWorldData

RESULTS = Path(__file__).resolve().parent / "results" / "compare_small.json"
COLUMNS = {"esc10_labels": "ESC-10", "all_labels": "all things", "digits_labels": "digits", "mrr": "photo MRR",
           "r_at_1": "photo R@1"}  # fmt: skip


def bars(folder: str, world: SmallWorld) -> dict[str, Any]:
    """What one model can do."""
    model, processor = load_model_and_processor(folder)
    listener = matcher_of(model.eval(), processor)
    tests = world.sounds("test")
    seconds = min(SECONDS, listener.longest_s or SECONDS)
    vectors_NE = heard(listener, [clip(one, seconds) for one in tests])
    taught = {one.label for one in world.sounds("train")}
    things = tuple(sorted({one.label for one in tests} & taught - set(DIGITS)))
    found: dict[str, Any] = {
        "model_type": model.config.model_type,
        "parameters": model.num_parameters(),
        "seconds": round(seconds, 3),
    }
    core = tuple(label for label in CORE if label in things)
    for name, labels in (("esc10_labels", core), ("all_labels", things), ("digits_labels", DIGITS)):
        rows = [row for row, one in enumerate(tests) if one.label in labels]
        right = [labels.index(tests[row].label) for row in rows]
        found[name] = {**share(named(listener, vectors_NE[rows], labels) == right), "classes": len(labels)}
    found["photos"] = retrieval(listener, world, tests, vectors_NE)
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| model | " + " | ".join(COLUMNS.values()) + " |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for name, row in found.items():
        cells = []
        for column in COLUMNS:
            if column in row:
                one = row[column]
                cells.append(f"{100 * one['value']:.1f} % ({100 * one['low']:.1f} to {100 * one['high']:.1f})")
            else:
                cells.append(f"{row['photos'][column]:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--data", required=True, help="folder of the packs")
    parser.add_argument("--variant", choices=("open", "research"), default="open")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(words)
    pairs = [one.partition("=") for one in args.models]
    if not all(name and folder for name, _, folder in pairs) or len({name for name, _, _ in pairs}) < len(pairs):
        parser.error("write NAME=FOLDER for each model, and no name twice")
    world = SmallWorld(SmallWorldData(args.data, args.variant))
    with torch.inference_mode():
        found = {name: bars(folder, world) for name, _, folder in pairs}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    written = {"machine": describe(), "variant": args.variant, "models": found}
    args.out.write_text(json.dumps(written, indent=2) + "\n")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
