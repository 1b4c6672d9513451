"""`unibrivl index PATH... --out DIR`: sounds and pictures into an index that `unibrivl search` asks.

Exit code 0 when every file is in it, 1 when something could not be embedded (DIR/errors.csv lists it), 2 when the
question was wrong, 130 when it was stopped: what was embedded by then is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibrivl.cli.embedding import (
    MOST_SHOWN,
    add_embedder_arguments,
    add_file_arguments,
    asked_embedder,
    read_paths,
    stopped_by_sigterm,
)

if TYPE_CHECKING:
    from unibrivl.search import Index


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Run it again when files have come, changed, moved or gone: only what is new is embedded. Stop it whenever "
        "you like: the same command goes on. Exit code: 0 all is in it, 1 some files could not be embedded, 2 wrong "
        "question, 130 stopped."
    )
    add_file_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder of the index")
    parser.add_argument("--model", help="a folder, a name on the Hub, or embedded (default: that of the index)")
    parser.add_argument("--whole", action="store_true", help="one vector for a sound, and none for its windows")
    parser.add_argument(
        "--engine",
        help="what searches: exact (default), faiss, postgres or qdrant; of an index that is there, without PATH, "
        "another one is made of its vectors",
    )
    parser.add_argument(
        "--engine-option", action="append", default=[], metavar="NAME=VALUE", help="for the engine, such as kind=hnsw"
    )
    parser.add_argument("--half", action="store_true", help="store vectors in half precision: half the disk")
    parser.add_argument("--keep-missing", action="store_true", help="keep what is no longer there")
    add_embedder_arguments(parser)
    parser.add_argument("--restart", action="store_true", help="remove the index that is there and make it anew")
    parser.add_argument("--quiet", action="store_true", help="no bar and no summary; errors are still told")


def run(args: argparse.Namespace) -> int:
    with stopped_by_sigterm():
        return index(args)


def index(args: argparse.Namespace) -> int:
    paths, out = read_paths(args), Path(args.out)
    if not paths and (args.restart or not (args.engine or args.engine_option)):
        raise ValueError("nothing to index: name files or folders, or give them with --from-file")

    from unibrivl.search import Index, change_engine, remove, update
    from unibrivl.search.index import ABOUT, read_about

    there = read_about(out) if (out / ABOUT).exists() or not paths else None
    other = None if there is None or args.restart else other_engine(args, there)
    if not paths:
        change_engine(out, *other) if other else Index.open(out, write=True).close()
        if not args.quiet:
            print(f"{out}: searched by {read_about(out)['engine']}, made of the vectors that are there")
        return 0

    from unibrivl.data.places import stands_for_many
    from unibrivl.embedder.bulk import check_inputs
    from unibrivl.embedder.inputs import find_inputs
    from unibrivl.search.engines import check_for_index

    if there is None or args.restart:
        check_for_index(args.engine or "exact", options_of(args))  # before anything is loaded or removed
    take_settings(args, None if args.restart else there)
    inputs = find_inputs(paths, kind=args.kind)
    embedder = asked_embedder(args)
    check_inputs(embedder, inputs)
    if there is not None and args.restart:
        remove(out)
        there = None
    try:
        if other:
            change_engine(out, *other)
        with open_index(args, embedder) if there is None else Index.open(out, write=True) as opened:
            report = update(
                opened,
                embedder,
                inputs,
                folders=[path for path in paths if stands_for_many(path)],
                windows=not args.whole,
                keep_missing=args.keep_missing,
                progress=False if args.quiet else None,
            )
    except KeyboardInterrupt:
        print(
            f"unibrivl index: stopped; what is embedded is kept in {out}, and the same command"
            f"{' without --restart' if args.restart else ''} goes on from there",
            file=sys.stderr,
        )
        return 130
    if not args.quiet:
        for line in summary(report, args.out):
            print(line)
    for line in failed(report, args.out):
        print(line, file=sys.stderr)
    return 1 if report.failures else 0


def take_settings(args: argparse.Namespace, there: dict[str, Any] | None) -> None:
    """What an index was made with holds for what is added to it; what is asked for and differs is refused."""
    if there is None:
        args.model = args.model or "embedded"
    else:
        settings, args.model = there["settings"], args.model or there["model"]
        for name in ("window_s", "revision"):
            if getattr(args, name) is None and args.model == there["model"]:
                setattr(args, name, settings.get(name))
        if args.whole and settings.get("windows", True):
            raise ValueError(f"{args.out} has windows of its sounds: leave --whole out, or make it anew (--restart)")
        args.whole = not settings.get("windows", True)
        if args.half and there["dtype"] != "float16":
            raise ValueError(f"{args.out} has whole precision: leave --half out, or make it anew (--restart)")
    if os.path.isdir(args.model):
        args.model = os.path.abspath(args.model)


def other_engine(args: argparse.Namespace, there: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The engine that is asked for, and its options, where an index has another one, or other options."""
    engine, options = args.engine or there["engine"], options_of(args)
    if engine == there["engine"] and not args.engine_option:
        options = there["engine_options"]
    return None if (engine, options) == (there["engine"], there["engine_options"]) else (engine, options)


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """What --engine-option says: numbers and true or false as such, all else as words."""
    options: dict[str, Any] = {}
    for word in args.engine_option:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--engine-option takes NAME=VALUE, got {word!r}")
        known = {"true": True, "false": False}
        options[name] = int(value) if value.lstrip("-").isdigit() else known.get(value, value)
    return options


def open_index(args: argparse.Namespace, embedder: Any) -> Index:
    from unibrivl.search import Index

    return Index.create(
        args.out,
        fingerprint=embedder.fingerprint,
        model=args.model,
        engine=args.engine or "exact",
        engine_options=options_of(args),
        dtype="float16" if args.half else "float32",
        settings={"windows": not args.whole, "window_s": args.window_s, "revision": args.revision},
    )


def summary(report: Any, out: str) -> Iterator[str]:
    told = [(report.embedded, "embedded now"), (report.unchanged, "unchanged"), (report.moved, "moved")]
    yield ", ".join(f"{count} {what}" for count, what in [*told, (report.removed, "gone")] if count) or "nothing to do"
    yield f"{out}: {report.entries} files"


def failed(report: Any, out: str) -> Iterator[str]:
    from unibrivl.audio.errors import printable

    if report.failures:
        yield f"unibrivl index: {len(report.failures)} could not be embedded, listed in {Path(out) / 'errors.csv'}:"
        yield from (f"  {printable(path)}: {printable(error)}" for path, _, error in report.failures[:MOST_SHOWN])
        if len(report.failures) > MOST_SHOWN:
            yield f"  and {len(report.failures) - MOST_SHOWN} more"
