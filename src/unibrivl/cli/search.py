"""`unibrivl search DIR --audio|--image|--text ...`: what of an index fits a sound, a picture, a text, or a mixture.

Exit code 0 when something was found, 1 when the index holds nothing of the kind, 2 when the question was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unibrivl.search import Hit, Query

NAME_WIDTH = 24  # of a column that says why


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Several things are mixed: --audio dog.wav --text 'at night' --text-weight 0.5. Weights count in the order of "
        "their things, 1 where none is given, and below zero for what should not be there."
    )
    parser.add_argument("index", metavar="DIR", type=Path, help="what `unibrivl index` wrote")
    for name, what in (("audio", "a sound"), ("image", "a picture"), ("text", "words")):
        metavar = "TEXT" if name == "text" else "FILE"
        parser.add_argument(f"--{name}", action="append", default=[], metavar=metavar, help=f"{what} to search by")
        parser.add_argument(
            f"--{name}-weight", action="append", type=float, default=[], metavar="W", help=f"how much --{name} counts"
        )
    parser.add_argument("--top", type=int, default=10, metavar="N", help="how many files (default: 10)")
    parser.add_argument("--kind", choices=("audio", "image"), help="find only sounds, or only pictures")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw what was found on a contact sheet, a PNG")
    parser.add_argument("--model", help="the model's name, if it is no longer what the index calls it")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")


def run(args: argparse.Namespace) -> int:
    asked = {name: weighted(args, name) for name in ("audio", "image", "text")}
    if not any(asked.values()):
        raise ValueError("nothing is asked for: name a sound (--audio), a picture (--image) or words (--text)")
    if args.sheet is not None and args.sheet.suffix.lower() != ".png":
        raise ValueError(f"the sheet is a PNG, and {args.sheet.name} does not end in .png")

    from unibrivl.search import Index, encoded

    with Index.open(args.index) as index:
        embedder = load_embedder(args, index.about)
        index.check_model(embedder.fingerprint, args.model or "")
        kinds = [kind for kind in index.kinds() if args.kind in (None, kind)]
        query = encoded(embedder, kinds, **asked)
        hits = index.search(query, top=args.top, kind=args.kind)
    if args.json:
        print(json.dumps([asdict(hit) for hit in hits], indent=1))
    else:
        for line in table(hits, query):
            print(line)
    if args.sheet is not None:
        from unibrivl.cli.search_sheet import search_sheet

        search_sheet(query, hits, args.audio).save(args.sheet)
        if not args.json:
            print(f"{args.sheet}: {len(hits)} drawn")
    return 0 if hits else 1


def weighted(args: argparse.Namespace, name: str) -> list[tuple[str, float]]:
    things, weights = getattr(args, name), getattr(args, f"{name}_weight")
    if len(weights) > len(things):
        raise ValueError(f"{len(weights)} weights for {len(things)} of --{name}: leave out what has no thing")
    return list(zip(things, [*weights, *[1.0] * (len(things) - len(weights))], strict=True))


def load_embedder(args: argparse.Namespace, about: dict[str, Any]) -> Any:
    """The model of the index, with the windows of the index."""
    from unibrivl.cli.embedding import asked_embedder

    settings = about["settings"]
    told = argparse.Namespace(
        model=args.model or about["model"],
        device=args.device,
        window_s=settings.get("window_s"),
        revision=None if args.model else settings.get("revision"),
        batch_size=None,
        workers=None,
    )
    if not told.model:
        raise ValueError(f"{args.index} does not say which model it is of: name it with --model")
    return asked_embedder(told)


def table(hits: Sequence[Hit], query: Query) -> Iterator[str]:
    """Score, seconds where there are windows, file; of a mixture also how near each of its parts is."""
    from unibrivl.audio.errors import printable

    if not hits:
        yield "nothing of this kind is in the index"
        return
    why = [short(part.name) for part in query.parts] if len(query.parts) > 1 else []
    lines = [["score", *why, "seconds", "file"]]
    for hit in hits:
        seconds = "" if hit.begin_s is None or hit.end_s is None else f"{hit.begin_s:.1f} to {hit.end_s:.1f}"
        parts = [f"{cosine:+.3f}" for _, cosine in hit.parts] if why else []
        lines.append([f"{hit.score:+.3f}", *parts, seconds, printable(shown(hit.path))])
    if not any(line[-2] for line in lines[1:]):
        lines = [[*line[:-2], line[-1]] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()


def short(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"...{name[3 - NAME_WIDTH :]}"


def shown(path: str) -> str:
    """From here, where it lies below."""
    if not os.path.isabs(path):
        return path
    here = os.path.relpath(path)
    return path if here.startswith(os.pardir) else here
