"""`unibrivl explain AUDIO IMAGE --model M --out FILE.png`: which seconds and which regions made their score.

Exit code 0 when it was drawn, 2 when the question was wrong.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Parts of both are hidden, one at a time, and the score is watched: warm is what it would lose, blue what it "
        "would gain. docs/explain.md says how to read it, and what it cannot tell."
    )
    parser.add_argument("audio", metavar="AUDIO", help="a sound")
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="a picture")
    parser.add_argument("--text", metavar="T", help="a text, in the place of IMAGE: then only seconds are told")
    parser.add_argument("--model", default="embedded", help='folder, or name on the Hub (default: "embedded")')
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the picture of it, such as why.png")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the numbers, too")
    parser.add_argument(
        "--stretch-s", type=float, metavar="S", help="seconds hidden at a time (default: 0.5, by the sound's length)"
    )
    parser.add_argument(
        "--regions", type=int, default=7, metavar="R", help="along each side of the picture (default: 7)"
    )
    parser.add_argument(
        "--fill", choices=("quietest", "silence"), default="quietest",
        help="what hidden stretches become: the sound's own quietest one, or silence (default: quietest)",
    )  # fmt: skip
    parser.add_argument("--batch-size", type=int, metavar="N", help="sounds or pictures at a time")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    parser.add_argument("--quiet", action="store_true", help="no bars and no summary; errors are still told")


def run(args: argparse.Namespace) -> int:
    from PIL import Image

    from unibrivl.cli.embedding import asked_embedder

    if (args.image is None) == (args.text is None):
        raise ValueError("name a picture, or a text with --text, and not both")
    if args.out.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"{args.out} has no suffix of a picture: name it why.png")
    args.window_s = args.workers = None
    embedder = asked_embedder(args)
    found = embedder.evidence(
        args.audio, args.image, text=args.text, stretch_s=args.stretch_s, regions=args.regions, fill=args.fill,
        progress=False if args.quiet else None,
    )  # fmt: skip
    found.picture().save(args.out)
    if args.json is not None:
        found.to_json(args.json)
    if not args.quiet:
        begin, end = found.best_seconds
        print(f"score {found.score:.4f}; without {begin:.2f} to {end:.2f} s it loses {found.seconds_T.max():.4f}")
        pair = found.best_pair
        if pair is not None and found.regions_RR is not None:
            left, top, right, bottom = found.best_region
            print(f"without pixels {left},{top} to {right},{bottom} it loses {found.regions_RR.max():.4f}")
            left, top, right, bottom = pair[1]
            print(f"{pair[0][0]:.2f} to {pair[0][1]:.2f} s and {left},{top} to {right},{bottom} count most together")
        print(args.out if args.json is None else f"{args.out}, {args.json}")
    return 0
