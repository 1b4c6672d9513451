"""`unibrivl eval BENCHMARK --model M --data FOLDER`: a row of the papers' tables, made again.

Vectors and scores are kept below `--out`; the same command goes on where it was stopped, and scores nothing twice.
"""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from unibrivl.evaluation import BENCHMARKS
    from unibrivl.evaluation.baselines import BASELINES
    from unibrivl.evaluation.prompts import PROMPTS

    listed = "; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items())
    parser.epilog = f"Benchmarks are {listed}."
    parser.add_argument("benchmark", choices=BENCHMARKS, metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    parser.add_argument(
        "--model",
        required=True,
        help=f'a folder, a name on the Hub, "embedded", or {", ".join(BASELINES)}',
    )
    parser.add_argument("--data", required=True, metavar="FOLDER", help="of the data set, as its makers lay it out")
    parser.add_argument("--prompts", choices=PROMPTS, default="label", help="how labels are put into words")
    parser.add_argument("--limit", type=int, metavar="N", help="clips of each class in each fold at most, to try it")
    parser.add_argument("--seed", type=int, default=2021, help="of what is drawn (default: 2021)")
    parser.add_argument(
        "--judge", metavar="M", help="of pictures: a classifier of pictures, or a CLIP; not the model itself"
    )
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="draw pictures by so many seeds")
    parser.add_argument("--out", default="runs/eval", metavar="FOLDER", help="vectors and scores (default: runs/eval)")
    parser.add_argument(
        "--restart", action="store_true", help="score anew; vectors that are kept are used all the same"
    )
    parser.add_argument("--device", help="cpu, cuda, mps (default: cuda where there is one)")


def run(args: argparse.Namespace) -> int:
    from unibrivl.cli.encoders import named_encoder, named_judge
    from unibrivl.evaluation import Settings, evaluate, load_benchmark, markdown
    from unibrivl.evaluation.reported import REPORTED

    judge = named_judge(args.judge) if args.judge else None
    settings = Settings(args.prompts, args.limit, args.seed, args.repeats, judge)
    needs = {*load_benchmark(args.benchmark).NEEDS, *(() if judge is None else ("generate",))}
    encoder = named_encoder(args.model, args.device, needs)
    scores = evaluate(args.benchmark, encoder, args.data, args.out, settings, restart=args.restart)
    print(markdown(scores, REPORTED), end="")
    for one in scores[:1]:
        if one.missing:
            print(f"{len(one.missing)} clips are missing: {', '.join(one.missing[:5])}, ...", file=sys.stderr)
    return 0
