"""`unibrivl embed PATH... --model MODEL --out vectors.parquet`: sounds, pictures and texts as vectors in one file.

Exit code 0 when everything was embedded, 1 when something could not be (vectors.parquet.errors.jsonl lists it), 2 when
the question was wrong, 130 when it was stopped: what was embedded by then is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from unibrivl.cli.embedding import (
    MOST_SHOWN,
    add_embedder_arguments,
    add_file_arguments,
    find_device,
    load_embedder,
    read_paths,
    settings_of,
    stopped_by_sigterm,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Stop it with Ctrl-C whenever you like: the same command goes on where it was, embeds what is new or has "
        "changed, and tries again what failed. Exit code: 0 all embedded, 1 some failed, 2 wrong question, 130 "
        "stopped."
    )
    add_file_arguments(parser)
    parser.add_argument("--texts", type=Path, metavar="FILE", help="a file with one text in a line, to embed too")
    parser.add_argument("--model", help="a folder that save_pretrained wrote, or a name on the Hub")
    parser.add_argument("--out", default="vectors.parquet", help="the file to write (default: vectors.parquet)")
    parser.add_argument("--root", type=Path, help="names in the file are relative to this folder")
    parser.add_argument("--windows", action="store_true", help="a row for every window of a sound, with its times")
    add_embedder_arguments(parser)
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="who embeds: this process (default), or the processes of Ray, one for a GPU or a core; either goes on "
        "where the other was stopped",
    )
    parser.add_argument("--actors", type=int, metavar="N", help="processes of --engine ray (default: GPUs, or cores)")
    parser.add_argument("--restart", action="store_true", help="embed everything anew, whatever is there")
    parser.add_argument("--quiet", action="store_true", help="no bar and no summary; errors are still told")


def run(args: argparse.Namespace) -> int:
    with stopped_by_sigterm():
        return embed(args)


def embed(args: argparse.Namespace) -> int:
    if not args.model:
        raise ValueError(
            "--model says what embeds: a folder that save_pretrained wrote or a name on the Hub, of UniBriVL, PE-AV "
            "(facebook/pe-av-small), CLAP, CLIP, SigLIP and their kin, or embedded, the small one of this package"
        )
    paths, texts = read_paths(args), read_texts(args.texts)
    if not paths and not texts:
        raise ValueError("nothing to embed: name files or folders, or give them with --from-file or --texts")

    from unibrivl.embedder.bulk import Stopped, check_out, embed_files

    if args.actors is not None and args.engine != "ray":
        raise ValueError("--actors goes with --engine ray: pass both, or leave it out")
    out = check_out(args.out)
    device = find_device(args.device)
    make = partial(load_embedder, args.model, settings_of(args))
    try:
        with contextlib.ExitStack() as stack:
            crew = None
            if args.engine == "ray":
                from unibrivl.embedder.bulk_ray import RayCrew

                gpus = device.startswith("cuda")  # a worker sees its own alone, whatever its number
                crew = RayCrew(partial(make, "cuda" if gpus else device), args.actors, gpus=gpus)
                stack.enter_context(crew)
            report = embed_files(
                make(device if crew is None else "cpu"),  # beside workers it says what is there, and embeds nothing
                paths,
                out,
                texts=texts,
                kind=args.kind,
                root=args.root,
                windows=args.windows,
                restart=args.restart,
                progress=False if args.quiet else None,
                crew=crew,
            )
    except Stopped as stopped:
        print(f"unibrivl embed: {stopped}", file=sys.stderr)
        return 130
    if not args.quiet:
        for line in summary(report, args.out):
            print(line)
    for line in failed(report, args.out):
        print(line, file=sys.stderr)
    return 1 if report.failures else 0


def read_texts(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def summary(report: Any, out: str) -> Iterator[str]:
    if not report.rows:
        yield f"{out}: not written, since nothing could be embedded"
        return
    if report.embedded or report.failures:
        yield f"{report.embedded} embedded now, {report.unchanged} were there and have not changed"
    else:
        yield f"nothing to do: all {report.unchanged} are there and have not changed"
    if report.others:
        yield f"{report.others} of earlier runs were not named now and stay; --restart leaves them out"
    yield f"{out}: {report.rows} rows of {report.width} numbers"


def failed(report: Any, out: str) -> Iterator[str]:
    from unibrivl.audio.errors import printable

    if report.failures:
        yield f"unibrivl embed: {len(report.failures)} could not be embedded, listed in {out}.errors.jsonl:"
        yield from (f"  {printable(one.id)}: {printable(one.error)}" for one in report.failures[:MOST_SHOWN])
        if len(report.failures) > MOST_SHOWN:
            yield f"  and {len(report.failures) - MOST_SHOWN} more"
