"""`unibrivl replay IMAGE --audio SOUND...`: the picture once more, by the receipt inside it.

One of `unibrivl edit` or `unibrivl stylize` needs no sound, whose words are in the receipt, and asks for the picture
that was changed: `unibrivl replay edited.png --picture dog.png`.

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
    parser.add_argument(
        "image", type=Path, metavar="IMAGE", help="a PNG that `unibrivl generate`, `edit` or `stylize` wrote"
    )
    parser.add_argument("--audio", nargs="+", default=[], metavar="SOUND", help="the sound, or all of them in order")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="the picture that was changed, of `unibrivl edit` and `stylize`"
    )
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
    edited = "kind" in receipt
    picture = seen(receipt, args)
    if not edited:
        arguments_of(receipt, args.audio)  # what is wrong with it is said before a model is loaded
    model, matcher, revision = where_from(receipt, args)
    # what a stranger's picture names is loaded from safetensors alone
    careful = {} if args.model else {"use_safetensors": True}
    machine = receipt["machine"]
    device, dtype = args.device or usable(machine["device"]), args.dtype or machine["dtype"]
    if edited:
        pipe = load_editor(model, device, dtype, **careful, **revision)
    else:
        kind = receipt["pipeline"] if "words" in receipt else ""
        pipe = load_pipeline(model, matcher, device, dtype, args.offload, kind=kind, **careful, **revision)
    pipe.set_progress_bar_config(disable=args.quiet or None, desc=printable(args.image.name)[:24], leave=False)
    if edited:
        from unibrivl.pipelines.edit_receipt_audio_token import replay_edit

        image, new, different = replay_edit(pipe, receipt, picture)
    else:
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


def seen(receipt: dict[str, Any], args: argparse.Namespace) -> Any:
    """The picture that was changed, after it was looked at whether it is the one."""
    from unibrivl.data.pictures import open_picture
    from unibrivl.pipelines.edit_receipt_audio_token import check_edit

    if "kind" not in receipt:
        if args.picture is not None:
            raise ValueError("--picture is of `unibrivl edit` and `stylize`: this picture was made from nothing")
        return None
    if args.audio:
        raise ValueError("the words of its sound are in the receipt of this picture: leave --audio out")
    if args.matcher is not None or args.offload:
        raise ValueError("an edited picture is made again without a matcher, and not with --offload: leave them out")
    picture = None if args.picture is None else open_picture(args.picture)
    if receipt.get("image") is not None and picture is None:
        name = receipt["image"].get("name") or "a picture"
        raise ValueError(f"{name} was changed here: say where it is with --picture")
    check_edit(receipt, picture)
    return picture


def load_editor(model: str, device: str | None, dtype: str, **kwargs: Any) -> Any:
    """The pipeline for editing; its words are in the receipt, so it needs neither adapter nor ears."""
    import torch

    from unibrivl.cli.generate import checked_device
    from unibrivl.embedded import embedded
    from unibrivl.pipelines import AudioTokenEditPipeline

    place = str(embedded()) if model == "embedded" else model
    where = checked_device(device)
    return AudioTokenEditPipeline.from_pretrained(place, dtype=getattr(torch, dtype), **kwargs).to(where)


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
