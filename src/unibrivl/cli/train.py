"""`unibrivl train --recipe NAME`: one run, as its recipe's configuration says and `--set` changes.

On several GPUs or machines: `accelerate launch -m unibrivl train --recipe NAME`. There are four options and no more:
what can be different about a run stands in its configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from unibrivl.training.recipes import RECIPES

    names = "; ".join(f"{name}: {summary}" for name, summary in RECIPES.items())
    parser.epilog = f"Recipes: {names}."
    parser.add_argument("--recipe", required=True, metavar="NAME", help="which run; see below")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change the configuration, once for each key"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, or begin without one")
    parser.add_argument(
        "--dry-run", action="store_true", help="print configuration, sizes and memory, and train nothing"
    )


def run(args: argparse.Namespace) -> int:
    from unibrivl.training.config import command_of, override
    from unibrivl.training.recipes import load_recipe

    recipe = load_recipe(args.recipe)
    default = recipe.config()
    config = override(default, args.set)
    if args.dry_run:
        for line in describe(config, recipe.build):
            print(line)
        return 0
    from unibrivl.training.loop import train

    def begun(started) -> None:
        for line in counted(started.parts.model):
            print(line)

    try:
        outcome = train(config, recipe.build, args.resume, command_of(config, default), begun)
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print(where_it_stands(config), file=sys.stderr)
        raise
    if os.environ.get("RANK", "0") == "0":
        for line in told(outcome, config):
            print(line)
    return 0


def where_it_stands(config) -> str:
    """What a stop by hand has left, and how to go on."""
    from unibrivl.training.checkpoint import Checkpoints

    folder = Path(config.output_dir).expanduser() / "checkpoints"
    last = Checkpoints(folder, config.keep, config.direction).last()
    if last is None:
        return f"stopped before the first checkpoint (save_every={config.save_every}): --resume begins anew"
    return f"the last checkpoint is {last}: the same command with --resume goes on from there"


def describe(config, build) -> Iterator[str]:
    """What the run would be: every key with its value, the model's size, and what stays in memory all the time."""
    from unibrivl.training.config import to_json
    from unibrivl.training.memory import estimate
    from unibrivl.training.run import seed_everything

    values = to_json(config)
    width = max(map(len, values))
    for key, value in values.items():
        yield f"  {key:<{width}}  {json.dumps(value)}"
    seed_everything(config.seed)
    parts = build(config)
    found = estimate(parts.model, parts.objective, config.ema is not None)
    yield ""
    yield from counted(parts.model)
    yield f"{len(parts.data):,} examples an epoch"
    for name in ("weights", "gradients", "moments", "average", "objective", "total"):
        yield f"  {name:<10} {getattr(found, name) / 1e6:>10.1f} MB"
    yield "activations come on top: they grow with batch_size and the length of the clips"
    if parts.foresee is not None:
        yield str(parts.foresee())


def counted(model) -> Iterator[str]:
    """How much of the model trains, and what an adapter takes on disk."""
    from unibrivl.cli.push import in_units
    from unibrivl.training.adapters import adapter_bytes, is_adapted, trains

    yield str(trains(model))
    if is_adapted(model):
        yield f"an adapter of {in_units(adapter_bytes(model))} is saved, and not the model"


def told(outcome, config) -> Iterator[str]:
    ended = f"stopped at step {outcome.step}, for want of a new best" if outcome.stopped else f"{outcome.step} steps"
    yield f"{ended}, {outcome.seconds:.0f} s of training -> {outcome.model}"
    if outcome.best is not None:
        yield f"best {config.primary}: {outcome.best:.4g} at step {outcome.best_step}"
    for name, value in outcome.metrics.items():
        yield f"  {name} {value:.4g}, at the last evaluation"
