"""What `unibrivl edit` and `unibrivl stylize` share: a base whose prompts take sounds as words, and its pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

METHODS = ("p2p", "sdedit", "ledits++")


def add_word_arguments(parser: argparse.ArgumentParser) -> None:
    heard = parser.add_mutually_exclusive_group(required=True)
    heard.add_argument("--audio", metavar="FILE", help="a sound: what <audio> stands for")
    heard.add_argument(
        "--cue", type=Path, metavar="FILE", help="its word instead: a file of `unibrivl adapt`, or a textual inversion"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="where the picture goes: .png, with a receipt for `unibrivl replay`, or .jpg",
    )
    parser.add_argument(
        "--model", default="embedded", metavar="M",
        help="a base of Stable Diffusion 1 or 2; default: `embedded`, the model of this package",
    )  # fmt: skip
    parser.add_argument("--adapter", metavar="A", help="makes words of sounds: a folder, or a name on the Hub")
    parser.add_argument("--ears", metavar="E", help="the audio encoder of the adapter, if the base does not hold it")
    parser.add_argument("--weight", type=float, default=1.0, metavar="W", help="how strongly the sound counts")
    parser.add_argument("--method", choices=METHODS, default="p2p", help="default: p2p, prompt-to-prompt")
    parser.add_argument("--strength", type=float, metavar="S", help="of sdedit, 0 to 1: how much may change")
    parser.add_argument("--cross", type=float, metavar="SHARE", help="of p2p: steps that keep the attention to words")
    parser.add_argument("--self", type=float, dest="itself", metavar="SHARE", help="of p2p: steps that keep places")
    parser.add_argument(
        "--keep-size", action="store_true", help="the picture as large as it is, and not as large as the base draws"
    )
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="default: 50")
    parser.add_argument("--guidance-scale", type=float, metavar="W", help="default: the base's")
    parser.add_argument("--negative-prompt", metavar="PROMPT", help="what not to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    parser.add_argument("--quiet", action="store_true", help="no bars and no summary")


def check_place(out: Path) -> None:
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out {out} must end in .png or .jpg")


def load(args: argparse.Namespace) -> Any:
    """The pipeline for editing, with an adapter if a sound has to become a word."""
    import torch

    from unibrivl.cli.generate import checked_device, quiet_libraries
    from unibrivl.embedded import embedded
    from unibrivl.utils import require

    require("diffusers", "diffusion", "drawing pictures")
    quiet_libraries()
    from unibrivl.pipelines import AudioTokenEditPipeline

    place = str(embedded()) if args.model == "embedded" else args.model
    given = {"audio_adapter": args.adapter, "audio_encoder": args.ears}
    where = checked_device(args.device)
    dtype = torch.float16 if where.type == "cuda" else torch.float32
    pipe = AudioTokenEditPipeline.from_pretrained(
        place, dtype=dtype, **{name: value for name, value in given.items() if value is not None}
    ).to(where)
    pipe.set_progress_bar_config(disable=args.quiet or None)
    return pipe


def with_words(pipe: Any, model: str, adapter: str | None, ears: str | None, offload: bool = False) -> Any:
    """A pipeline for editing with the components of one that is loaded; None where no adapter was found for it.

    Args:
        model: where `pipe` was loaded from.
        adapter, ears (*optional*): folders, or names on the Hub, of what the model does not hold.
        offload (`bool`): whether the components come and go, which edits do not stand.
    """
    from unibrivl.pipelines import AudioTokenEditPipeline, UniBriVLPipeline

    if type(pipe) is not UniBriVLPipeline or offload:
        if adapter is not None:
            why = "--offload" if offload else f"a {type(pipe).__name__}"
            raise ValueError(f"pictures are edited with a base of Stable Diffusion 1 or 2, and not with {why}")
        return None
    named = {name: one for name, one in {"audio_adapter": adapter, "audio_encoder": ears}.items() if one is not None}
    words = AudioTokenEditPipeline.from_pretrained(model, dtype=pipe.unet.dtype, **pipe.components, **named)
    if words.audio_adapter is None:
        if ears is not None:
            raise ValueError("--ears are those of an adapter: name it too, with --adapter")
        return None
    words.to(pipe.device)
    words.ears  # noqa: B018  # what does not belong together is said now, and not to a visitor
    words.set_progress_bar_config(disable=True)
    return words


def fit(picture: Any, pipe: Any, args: argparse.Namespace) -> Any:
    """A picture as large as the base draws, unless it shall stay as it is."""
    from unibrivl.pipelines.fitting_audio_token import fitted, grid_of
    from unibrivl.pipelines.ledits_audio_token import SIDES

    if args.keep_size:
        return picture
    side, step = grid_of(pipe)
    return fitted(picture, side, SIDES if args.method == "ledits++" else step)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments for `AudioTokenEditPipeline`."""
    import torch

    from unibrivl.modeling import AudioCue

    given = {
        "audio": AudioCue.load(args.cue) if args.cue else args.audio,
        "audio_weights": args.weight,
        "strength": args.strength,
        "cross_replace_steps": args.cross,
        "self_replace_steps": args.itself,
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance_scale,
        "negative_prompt": args.negative_prompt,
        "generator": torch.Generator().manual_seed(args.seed),
    }
    return {name: value for name, value in given.items() if value is not None}


def save(picture: Any, receipt: dict[str, Any], out: Path, quiet: bool) -> int:
    """A PNG has its receipt inside; a JPEG has none."""
    from unibrivl.pipelines.receipt_unibrivl import save_png

    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".png":
        save_png(picture, receipt, out)
    else:
        picture.save(out)
    if not quiet:
        print(f"{picture.width} x {picture.height} -> {out}")
    return 0
