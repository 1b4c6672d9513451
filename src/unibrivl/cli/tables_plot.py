"""Scores as one picture: a line each, with its interval, what guessing reaches, and what papers report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LINE, TOP, NAMES, SCALE, RIGHT = 26, 64, 380, 560, 70
INK, FAINT, PAPER = (31, 41, 55), (209, 213, 219), (255, 255, 255)
OURS, THEIRS = (79, 70, 229), (217, 119, 6)
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def plot(scores: Sequence[Any], reported: Mapping[tuple[str, str], Sequence[Any]], path: Path) -> int:
    """Draws the scores that are shares; how many were left out because they are distances or the like."""
    from PIL import Image, ImageDraw, ImageFont

    shares = [one for one in scores if 0 <= one.value <= 1]
    if not shares:
        raise ValueError("none of the scores is a share from 0 to 1: there is nothing to plot")
    face, small = ImageFont.load_default(14), ImageFont.load_default(12)
    height = TOP + LINE * len(shares) + 24
    page = Image.new("RGB", (NAMES + SCALE + RIGHT, height), PAPER)
    pen = ImageDraw.Draw(page)
    draw_legend(pen, small)
    for tick in TICKS:
        pen.line([(across(tick), TOP - 8), (across(tick), height - 20)], fill=FAINT)
        pen.text((across(tick), TOP - 20), f"{tick:g}", fill=INK, font=small, anchor="mm")
    for row, one in enumerate(shares):
        middle = TOP + LINE * row + LINE // 2
        name = shortened(f"{one.benchmark}  {one.metric}  {Path(one.model).name}", pen, face)
        pen.text((NAMES - 16, middle), name, fill=INK, font=face, anchor="rm")
        if one.chance is not None:
            pen.line([(across(one.chance), middle - 7), (across(one.chance), middle + 7)], fill=INK)
        for figure in reported.get((one.benchmark, one.metric), ()):
            place = across(figure.value)
            pen.ellipse([place - 4, middle - 4, place + 4, middle + 4], outline=THEIRS, width=2)
        if one.low is not None and one.high is not None:
            pen.line([(across(one.low), middle), (across(one.high), middle)], fill=OURS, width=3)
        place = across(one.value)
        pen.ellipse([place - 5, middle - 5, place + 5, middle + 5], fill=OURS)
        pen.text((NAMES + SCALE + 16, middle), f"{one.value:.3f}", fill=INK, font=face, anchor="lm")
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)
    return len(scores) - len(shares)


def draw_legend(pen: Any, face: Any) -> None:
    pen.ellipse([NAMES, 14, NAMES + 10, 24], fill=OURS)
    pen.text((NAMES + 18, 19), "measured, with its 95 % interval", fill=INK, font=face, anchor="lm")
    pen.ellipse([NAMES + 240, 15, NAMES + 248, 23], outline=THEIRS, width=2)
    pen.text((NAMES + 256, 19), "reported by papers", fill=INK, font=face, anchor="lm")
    pen.line([(NAMES + 410, 12), (NAMES + 410, 26)], fill=INK)
    pen.text((NAMES + 418, 19), "chance", fill=INK, font=face, anchor="lm")


def across(share: float) -> float:
    return NAMES + min(max(share, 0.0), 1.0) * SCALE


def shortened(text: str, pen: Any, face: Any) -> str:
    """As much of the end as fits."""
    while pen.textlength(text, font=face) > NAMES - 24 and len(text) > 8:
        text = f"...{text[4:]}" if text.startswith("...") else f"...{text[3:]}"
    return text
