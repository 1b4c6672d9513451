"""`unibrivl study build|serve|report`: people say on a web page which of two pictures fits a sound.

The study of UniBriVL's section 5.1, with its figures beside yours. See docs/study.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

PORT = 8000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from unibrivl.evaluation.study.presets import CHECKS, PRESETS

    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    listed = "; ".join(f"{name}: {preset.about}" for name, preset in PRESETS.items())
    build = steps.add_parser(
        "build",
        help="a folder with the page, from a table of sounds and pictures",
        description="Write the folder of a study.",
        epilog=f"Presets are {listed}.",
    )
    build.add_argument("pairs", type=Path, metavar="PAIRS", help="table with sound, image, label, system (and test)")
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    build.add_argument("--preset", choices=PRESETS, default="unibrivl", help="which pictures meet (default: unibrivl)")
    build.add_argument("--seed", type=int, help="of pairs, order and sides (default: drawn, and written down)")
    build.add_argument(
        "--checks", type=int, default=CHECKS, metavar="N", help=f"attention checks, of photographs (default: {CHECKS})"
    )
    build.add_argument("--trials", type=int, metavar="N", help="trials for each participant (default: all)")
    build.add_argument("--title", help="of the page")
    build.add_argument(
        "--consent", type=Path, metavar="FILE", help="text that participants agree to, a paragraph a line"
    )
    serve = steps.add_parser(
        "serve", help="show the page and take answers", description="Show the page and take answers. Ctrl-C ends it."
    )
    serve.add_argument("folder", metavar="DIR", help="what build wrote")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    serve.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default: {PORT}; 0: one that is free")
    report = steps.add_parser(
        "report",
        help="what came of it, beside the paper's figures",
        description="Count the answers; the server may run meanwhile.",
    )
    report.add_argument("folder", metavar="DIR", help="what build wrote")
    report.add_argument("--csv", type=Path, metavar="FILE", help="write each answer there, too")
    report.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    return {"build": build, "serve": serve, "report": report}[args.step](args)


def build(args: argparse.Namespace) -> int:
    from unibrivl.evaluation.study import Study
    from unibrivl.evaluation.study import build as build_study

    words = {} if args.title is None else {"title": args.title}
    if args.consent is not None:
        words["consent"] = args.consent.read_text(encoding="utf-8").splitlines()
    folder = build_study(
        args.pairs,
        args.out,
        preset=args.preset,
        seed=args.seed,
        num_checks=args.checks,
        trials_each=args.trials,
        **words,
    )
    study = Study(folder)
    print(
        f"{folder}: {len(study.trials)} trials, {len(study.checks)} of them checks; each participant gets "
        f"{study.told['num_trials']}\nnow: unibrivl study serve {folder}"
    )
    return 0


def serve(args: argparse.Namespace) -> int:
    from unibrivl.cli.embedding import stopped_by_sigterm
    from unibrivl.cli.serve import wait
    from unibrivl.evaluation.study import served
    from unibrivl.utils.hosts import is_loopback

    if not 0 <= args.port < 65536:
        raise ValueError(f"--port must be from 0 to 65535, got {args.port}")
    if not is_loopback(args.host):
        print(
            f"unibrivl study: warning: {args.host} can be reached from other machines. There is no password and no "
            "encryption: whoever reaches it can take part, and more than once",
            file=sys.stderr,
        )
    with stopped_by_sigterm(), served(args.folder, args.host, args.port) as server:
        if server.answers.broken:
            print(f"lines of the log that are no answers and are skipped: {server.answers.broken}", file=sys.stderr)
        people = len(server.answers.answered)
        print(f"{people} people have answered so far\nopen {server.address}   (Ctrl-C ends it)", flush=True)
        wait()
    return 0


def report(args: argparse.Namespace) -> int:
    from unibrivl.evaluation.study import report as report_of

    found = report_of(args.folder)
    if args.csv is not None:
        found.write_csv(args.csv)
    print(json.dumps(found.told, indent=1) if args.json else found.markdown(), end="\n" if args.json else "")
    return 0


__all__ = ["add_arguments", "run"]
