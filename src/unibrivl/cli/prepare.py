"""`unibrivl prepare VIDEOS... --out DIR`: videos as sounds and pictures that train, prepared once.

Exit code 0 when every video gave both, 1 when some did not (DIR/manifest.jsonl has the reasons), 2 when the question
was wrong, 130 when it was stopped: what was made by then is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

MOST_SHOWN = 5  # failures on the terminal; all of them are in the manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Stop it whenever you like: the same command goes on where it was. Exit code: 0 all prepared, 1 some videos "
        "have no sound or no picture, 2 wrong question, 130 stopped."
    )
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEOS", help="one folder or table that unibrivl.data loads, or video files"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--dataset", default="folder", metavar="NAME", help="which layout it has (default: folder)")
    parser.add_argument(
        "--frame",
        choices=("random", "middle"),
        default="random",
        help="drawn by the video's id, or the middle one",
    )
    parser.add_argument("--picture", choices=("jpg", "png"), default="jpg", help="their format (default: jpg)")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other frames (default: 0)")
    parser.add_argument("--rate", type=int, default=16_000, metavar="HZ", help="of the sounds (default: 16000)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per processor)")
    parser.add_argument("--quiet", action="store_true", help="no bar and no summary; errors are still told")


def run(args: argparse.Namespace) -> int:
    from unibrivl.audio.errors import printable
    from unibrivl.data.prepare import prepare_videos

    prepared = prepare_videos(
        listing_of(args.videos, args.dataset),
        args.out,
        rate_hz=args.rate,
        frame=args.frame,
        picture_format=args.picture,
        seed=args.seed,
        workers=usable_cores() if args.workers is None else args.workers,
        progress=False if args.quiet else None,
    )
    if not args.quiet:
        print(f"{prepared.summary()}; {prepared.made} of them now")
    if prepared.corrupt:
        print(f"unibrivl prepare: {len(prepared.corrupt)} are listed in {args.out}/manifest.jsonl:", file=sys.stderr)
        for entry in prepared.corrupt[:MOST_SHOWN]:
            print(f"  {printable(entry['id'])}: {printable(entry['reason'])}", file=sys.stderr)
        if len(prepared.corrupt) > MOST_SHOWN:
            print(f"  and {len(prepared.corrupt) - MOST_SHOWN} more", file=sys.stderr)
    return 0 if prepared.found == prepared.expected else 1


def listing_of(videos: list[str], dataset: str) -> Any:
    """A single folder or table is loaded, with its labels and segments; files are taken as they are."""
    from unibrivl.data import load
    from unibrivl.data.tables import SUFFIXES

    if len(videos) == 1 and (os.path.isdir(videos[0]) or videos[0].lower().endswith(SUFFIXES) or dataset != "folder"):
        return load(videos[0], dataset)
    if dataset != "folder":
        raise ValueError(f"--dataset {dataset} is for one folder, and {len(videos)} paths are given")
    return videos


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
