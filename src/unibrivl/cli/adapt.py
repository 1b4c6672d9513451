"""`unibrivl adapt AUDIO --images DIR --out word.safetensors`: one sound becomes a word of a Stable Diffusion."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        'Plain diffusers reads the file: pipe.load_textual_inversion("word.safetensors"), then pipe("a photo of '
        '<audio>"). The same command with the same seed learns the same word.'
    )
    parser.add_argument("audio", metavar="AUDIO", help="a sound file")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--images", type=Path, metavar="DIR", help="pictures of the sound: all of them count")
    chosen.add_argument("--bank", type=Path, metavar="DIR", help="many pictures: those that fit the sound best count")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="word.safetensors, or a folder")
    parser.add_argument(
        "--model", default="embedded", metavar="M",
        help="a base of Stable Diffusion; default: `embedded`, the model of this package",
    )  # fmt: skip
    parser.add_argument("--matcher", metavar="R", help="for --bank, where the base holds none: UniBriVL or PE-AV")
    parser.add_argument("--top-k", type=int, default=5, metavar="N", help="pictures of the bank (default: 5)")
    parser.add_argument("--words", type=int, default=1, metavar="K", help="vectors that are learned (default: 1)")
    parser.add_argument("--start", default="sound", metavar="WORD", help="what it begins as (default: sound)")
    parser.add_argument("--token", default="<audio>", help="what stands for it in a prompt (default: <audio>)")
    parser.add_argument("--steps", type=int, default=300, metavar="N", help="default: 300")
    parser.add_argument("--learning-rate", type=float, default=5e-3, metavar="R", help="default: 0.005")
    parser.add_argument("--batch-size", type=int, default=4, metavar="B", help="default: 4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    parser.add_argument("--quiet", action="store_true", help="no bar and no summary")


def run(args: argparse.Namespace) -> int:
    from unibrivl.cli.generate import quiet_libraries

    check_place(args.out)
    quiet_libraries()
    from unibrivl.training.adapt_audio import adapt_audio

    cue = adapt_audio(
        load(args.model, args.matcher, args.device),
        args.audio,
        args.images,
        image_bank=args.bank,
        top_k=args.top_k,
        num_words=args.words,
        start=args.start,
        token=args.token,
        steps=args.steps,
        learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        seed=args.seed,
        progress=not args.quiet,
    )
    place = cue.save(args.out)
    if not args.quiet:
        error, count = cue.about["error"], len(cue.about["pictures"])
        sizes = " + ".join(f"{len(one)} x {one.shape[1]}" for one in cue.vectors.values())
        print(f"{args.token}, {sizes} numbers, from {count} picture{'s' if count > 1 else ''} -> {place}")
        print(f"error {error['first']:.4g} at first, {error['last']:.4g} in the end")
    return 0


def check_place(out: Path) -> None:
    """Said before anything is learned."""
    if out.suffix not in ("", ".safetensors"):
        raise ValueError(f"--out {out} must end in .safetensors, or be a folder")


def load(model: str, matcher: str | None, device: str | None) -> Any:
    """The pipeline of a base, with a matcher or without."""
    from unibrivl.cli.generate import checked_device, pipeline_class
    from unibrivl.embedded import embedded
    from unibrivl.utils import require

    diffusers = require("diffusers", "diffusion", "learning the word of a sound")
    import torch

    where = checked_device(device)
    place = str(embedded()) if model == "embedded" else model
    parts = diffusers.DiffusionPipeline.load_config(place)
    given = {} if matcher is None else {"matcher": matcher}
    # what is learned needs 32 bits, on a GPU too
    return pipeline_class(parts).from_pretrained(place, dtype=torch.float32, **given).to(where)
