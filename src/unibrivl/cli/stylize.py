"""`unibrivl stylize "a lighthouse" --audio storm.wav`: a picture in the style of a sound."""

from __future__ import annotations

import argparse
from pathlib import Path

from unibrivl.cli.audio_words import add_word_arguments, check_place, fit, load, save, settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = 'Draws "PROMPT in the style of <audio>"; with --image it changes that picture, and keeps its form.'
    parser.add_argument("prompt", nargs="?", help='what is drawn (default, with --image: "a photo")')
    parser.add_argument("--image", type=Path, metavar="FILE", help="a picture to change")
    add_word_arguments(parser)


def run(args: argparse.Namespace) -> int:
    check_place(args.out)
    if args.prompt is None and args.image is None:
        raise ValueError("say what to draw, or give a picture to change with --image")
    picture = None
    if args.image is not None:
        from unibrivl.data.pictures import open_picture

        picture = open_picture(args.image)
    pipe = load(args)
    if picture is not None:
        picture = fit(picture, pipe, args)
    from unibrivl.pipelines.edit_receipt_audio_token import with_receipt

    output, receipt = with_receipt(
        pipe, "stylize", args.image and args.image.name, prompt=args.prompt, image=picture, edit_method=args.method,
        **settings(args),
    )  # fmt: skip
    return save(output.images[0], receipt, args.out, args.quiet)
