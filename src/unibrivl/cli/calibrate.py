"""`unibrivl calibrate --model M --data FOLDER`: how sure a model may be, and when none of the labels fits.

Writes `calibration.json` beside the model, which `unibrivl.load` and `classify` use, and a picture of both heaps of
cosines.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help='a folder, a name on the Hub, or "embedded"')
    parser.add_argument(
        "--data", required=True, metavar="FOLDER", help="sounds with labels, such as a folder for each label, that it "
        "was not trained on",
    )  # fmt: skip
    parser.add_argument("--template", default="{label}", help='how a label is put into words (default: "{label}")')
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: the model's folder)")


def run(args: argparse.Namespace) -> int:
    from unibrivl import data as datasets
    from unibrivl.embedder import calibrate, load

    folder = args.out or Path(args.model)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder to write to: name one with --out")
    listing = datasets.load(args.data)
    sounds = {one.audio: str(one.label).replace("_", " ") for one in listing if one.audio and len(one.labels) == 1}
    if not sounds:
        raise ValueError(f"{args.data} holds no sounds with one label each")
    embedder = load(args.model, calibration=None)
    calibration, pairs = calibrate(embedder, sounds, args.template)
    path = calibration.save(folder, embedder.fingerprint)
    picture = histogram(pairs, calibration, folder / "calibration.png")
    print(
        f"{path}: scale {calibration.scale:.3f}, none of these below a cosine of {calibration.threshold:.3f}; "
        f"{pairs.error:.3f} of the pairs are on its wrong side ({len(sounds)} sounds, {picture})"
    )
    return 0


WIDTH, HEIGHT, EDGE, BINS = 720, 320, 48, 48
OWN, OTHER, INK, PAPER = (79, 70, 229), (217, 119, 6), (31, 41, 55), (255, 255, 255)


def histogram(pairs: Any, calibration: Any, path: Path) -> Path:
    """Both heaps, each as high as its share, and the threshold between them."""
    import numpy as np
    from PIL import Image, ImageDraw

    low, high = (float(end(np.concatenate([pairs.matched, pairs.unmatched]))) for end in (np.min, np.max))
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    heaps = [np.histogram(one, edges)[0] / len(one) for one in (pairs.matched, pairs.unmatched)]
    top = max(heap.max() for heap in heaps)
    page = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(page)

    def across(cosine: float) -> float:
        return EDGE + (cosine - edges[0]) / (edges[-1] - edges[0]) * (WIDTH - 2 * EDGE)

    for heap, colour, name, line in zip(heaps, (OWN, OTHER), ("their own label", "other labels"), (0, 1), strict=True):
        points = [(across((edges[place] + edges[place + 1]) / 2), HEIGHT - EDGE - share / top * (HEIGHT - 2 * EDGE))
                  for place, share in enumerate(heap)]  # fmt: skip
        pen.line(points, fill=colour, width=3)
        pen.text((WIDTH - EDGE, 12 + 16 * line), name, fill=colour, anchor="ra")
    pen.line([(EDGE, HEIGHT - EDGE), (WIDTH - EDGE, HEIGHT - EDGE)], fill=INK)
    for cosine, anchor in ((edges[0], "lm"), (edges[-1], "rm")):
        pen.text((across(cosine), HEIGHT - EDGE + 14), f"{cosine:.2f}", fill=INK, anchor=anchor)
    threshold = calibration.threshold
    if edges[0] <= threshold <= edges[-1]:
        place = across(threshold)
        pen.line([(place, EDGE), (place, HEIGHT - EDGE)], fill=INK)
        pen.text((place, HEIGHT - EDGE + 30), f"none of these below {threshold:.2f}", fill=INK, anchor="mm")
    pen.text((EDGE, 12), "cosines of sounds with texts", fill=INK)
    page.save(path)
    return path
