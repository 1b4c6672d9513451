"""`unibrivl replay IMAGE --audio SOUND...`: the picture once more, by the receipt inside it.

Exit code 0 when the pixels are equal bit for bit, 1 when they are not (what is different is said first, then by how
much), 2 when the question was wrong: no receipt, no model, a picture that cannot be made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from unibrivl.cli.generate import add_model_arguments

    parser.epilog = (
        "On the machine that drew it, with the same versions, the pixels are equal. Exit code: 0 equal bit for bit, 1 "
        "different, 2 wrong question."
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a PNG that `unibrivl generate` or save_png wrote")
    parser.add_argument("--audio", nargs="+", default=[], metavar="SOUND", help="the sound, or all of them in order")
    add_model_arguments(parser, required=False)
    parser.add_argument("--out", type=Path, metavar="PNG", help="where to write the new picture, with a new receipt")
    parser.add_argument("--quiet", action="store_true", help="no bar")


def run(args: argparse.Namespace) -> int:
    from PIL import Image

    from unibrivl.audio.errors import printable
    from unibrivl.cli.generate import load_pipeline, quiet_libraries

    quiet_libraries()
    from unibrivl.pipelines.receipt_unibrivl import arguments_of, pixel_difference, read_receipt, replay, save_png

    receipt = read_receipt(args.image)
    arguments_of(receipt, args.audio)  # what is wrong with it is said before a model is loaded
    model, matcher, revision = where_from(receipt, args)
    # what a stranger's picture names is loaded from safetensors alone
    careful = {} if args.model else {"use_safetensors": True}
    machine = receipt["machine"]
    pipe = load_pipeline(
        model, matcher, args.device or usable(machine["device"]), args.dtype or machine["dtype"], args.offload,
        kind=receipt["pipeline"] if "words" in receipt else "", **careful, **revision,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=args.quiet or None, desc=printable(args.image.name)[:24], leave=False)
    image, new, different = replay(pipe, receipt, args.audio)
    with Image.open(args.image) as before:
        apart = pixel_difference(before, image)
    if args.out is not None:
        save_png(image, new, args.out)
        print(f"written to {printable(args.out)}")
    for line in different:
        print(f"different: {printable(line)}")
    if not apart:
        print("the pixels are equal bit for bit")
        return 0
    if not different:
        print("different: nothing that the receipt knows of; was the picture edited, or drawn on another machine?")
    print(f"the pixels are not equal: {apart}")
    return 1


def usable(device: str) -> str | None:
    """The receipt's device if it is here; what comes out elsewhere says that it was another."""
    import torch

    here = device == "cpu" or (device == "cuda" and torch.cuda.is_available())
    return device if here else None


def where_from(receipt: dict[str, Any], args: argparse.Namespace) -> tuple[str, str | None, dict[str, Any]]:
    """Base, matcher and revision: the caller's, or names on the Hub that the receipt holds."""
    names = {"base": receipt.get("base"), "matcher": receipt["models"].get("matcher", {}).get("name")}
    model, matcher, revision = args.model, args.matcher, {}
    if model is None:
        model, _, commit = (names["base"] or "").partition("@")
        if model.count("/") != 1 and model != "embedded":
            raise ValueError(
                f"the picture was drawn by {names['base'] or 'a base without a name'}, a folder on some machine: say "
                "where it is with --model"
            )
        revision = {"revision": commit} if commit else {}
        if matcher is None and names["matcher"] and names["matcher"] != names["base"]:
            matcher, _, commit = names["matcher"].partition("@")
            if matcher.count("/") != 1:
                raise ValueError(
                    f"the matcher was {matcher}, a folder on some machine: say where it is with --matcher"
                )
            if commit:
                revision["matcher_kwargs"] = {"revision": commit}
    return model, matcher, revision
