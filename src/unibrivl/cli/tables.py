"""`unibrivl tables [FOLDER]`: all scores that `unibrivl eval` left, beside what papers report."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default="runs/eval", metavar="FOLDER", help="default: runs/eval")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there, as Markdown")


def run(args: argparse.Namespace) -> int:
    from unibrivl.evaluation import markdown, read_scores
    from unibrivl.evaluation.reported import REPORTED

    files = sorted(path for path in Path(args.folder).glob("*/*.json"))
    if not files:
        raise ValueError(f"there are no scores in {args.folder}: `unibrivl eval BENCHMARK` makes them")
    table = markdown([one for path in files for one in read_scores(path)], REPORTED)
    if args.out:
        args.out.write_text(table, encoding="utf-8")
    print(table, end="")
    return 0
