"""`unibrivl tables [FOLDER]`: all scores that `unibrivl eval` left, beside what papers report."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default="runs/eval", metavar="FOLDER", help="default: runs/eval")
    parser.add_argument("--benchmark", action="append", metavar="NAME", help="these alone; may be repeated")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there, as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that is known of the scores there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them there, as a PNG")


def run(args: argparse.Namespace) -> int:
    from unibrivl.cli.tables_plot import plot
    from unibrivl.evaluation import markdown, read_scores
    from unibrivl.evaluation.reported import REPORTED

    files = sorted(path for path in Path(args.folder).glob("*/*.json"))
    scores = [one for path in files for one in read_scores(path)]
    scores = [one for one in scores if not args.benchmark or one.benchmark in args.benchmark]
    scores.sort(key=lambda one: (one.benchmark, one.metric, one.model))
    if not scores:
        which = f" of {', '.join(args.benchmark)}" if args.benchmark else ""
        raise ValueError(f"there are no scores{which} in {args.folder}: `unibrivl eval BENCHMARK` makes them")
    table = markdown(scores, REPORTED)
    if args.out:
        args.out.write_text(table, encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in scores], indent=1) + "\n", encoding="utf-8")
    if args.plot and (left_out := plot(scores, REPORTED, args.plot)):
        print(f"{args.plot} leaves out {left_out} that are no shares", file=sys.stderr)
    print(table, end="")
    return 0
