"""`unibrivl eval BENCHMARK --model M --data FOLDER`: a row of the papers' tables, made again.

Vectors and scores are kept below `--out`; the same command goes on where it was stopped, and scores nothing twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from unibrivl.evaluation import BENCHMARKS
    from unibrivl.evaluation.prompts import PROMPTS

    listed = "; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items())
    parser.epilog = f"Benchmarks are {listed}."
    parser.add_argument("benchmark", choices=BENCHMARKS, metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    parser.add_argument("--model", required=True, help='a folder, a name on the Hub, or "embedded"')
    parser.add_argument("--data", required=True, metavar="FOLDER", help="of the data set, as its makers lay it out")
    parser.add_argument("--prompts", choices=PROMPTS, default="label", help="how labels are put into words")
    parser.add_argument("--limit", type=int, metavar="N", help="clips of each class in each fold at most, to try it")
    parser.add_argument("--seed", type=int, default=2021, help="of what is drawn (default: 2021)")
    parser.add_argument("--out", default="runs/eval", metavar="FOLDER", help="vectors and scores (default: runs/eval)")
    parser.add_argument(
        "--restart", action="store_true", help="score anew; vectors that are kept are used all the same"
    )
    parser.add_argument("--device", help="cpu, cuda, mps (default: cuda where there is one)")


def run(args: argparse.Namespace) -> int:
    import torch

    from unibrivl.evaluation import Settings, evaluate, load_benchmark, markdown
    from unibrivl.evaluation.reported import REPORTED

    settings = Settings(args.prompts, args.limit, args.seed)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    encoder = encoder_for(args.model, load_benchmark(args.benchmark).NEEDS, device)
    scores = evaluate(args.benchmark, encoder, args.data, args.out, settings, restart=args.restart)
    print(markdown(scores, REPORTED), end="")
    for one in scores[:1]:
        if one.missing:
            print(f"{len(one.missing)} clips are missing: {', '.join(one.missing[:5])}, ...", file=sys.stderr)
    return 0


def encoder_for(model: str, needs: Sequence[str], device: str) -> Any:
    """What a benchmark can ask: an embedder, or a model that writes captions or transcripts."""
    from unibrivl.embedder import load
    from unibrivl.embedder.writing import load_captioner, load_recogniser

    if "captions" in needs:
        return load_captioner(model, device)
    if "transcripts" in needs:
        return load_recogniser(model, device)
    embedder = load(model)
    embedder.matcher.model.to(device)
    return Named(embedder, model)


class Named:
    """An embedder under the name it was asked for as, without a bar of its own."""

    def __init__(self, embedder, name: str):
        self.embedder, self.name = embedder, name
        self.fingerprint = embedder.fingerprint

    def encode_audio(self, paths):
        return self.embedder.encode_audio(paths, progress=False)

    def encode_image(self, paths):
        return self.embedder.encode_image(paths, progress=False)

    def encode_text(self, texts):
        return self.embedder.encode_text(texts)
