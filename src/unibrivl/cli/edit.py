"""`unibrivl edit IMAGE --audio rooster.wav --source-prompt "a photo of a dog"`: a sound changes a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from unibrivl.cli.audio_words import add_word_arguments, check_place, fit, load, save, settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "p2p keeps the composition: the target attends as the source does for a share of the steps. sdedit blurs the "
        "picture by noise and draws on; ledits++ changes where the word looks, and needs no source prompt."
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a picture")
    parser.add_argument("--prompt", help='what should be there (default: "A photo of <audio>")')
    parser.add_argument("--source-prompt", metavar="PROMPT", help='what is there: "a photo of a dog" (p2p needs it)')
    parser.add_argument("--blend", action="store_true", help="of p2p: only where the sound's word looks")
    add_word_arguments(parser)


def run(args: argparse.Namespace) -> int:
    check_place(args.out)
    from unibrivl.data.pictures import open_picture

    picture = open_picture(args.image)
    pipe = load(args)
    from unibrivl.pipelines.edit_receipt_audio_token import with_receipt

    given = settings(args)
    if args.blend:
        given["local_blend"] = True
    if args.method == "sdedit":
        given = {name: value for name, value in given.items() if not name.endswith("replace_steps")}
    output, receipt = with_receipt(
        pipe, "edit", args.image.name, prompt=args.prompt, image=fit(picture, pipe, args),
        source_prompt=args.source_prompt, edit_method=args.method, **given,
    )  # fmt: skip
    return save(output.images[0], receipt, args.out, args.quiet)
