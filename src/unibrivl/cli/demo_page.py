"""The page of `unibrivl demo`: a row for each sound, with what was heard and the pictures that were drawn for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unibrivl.audio.picture import draw_sound
from unibrivl.audio.waveform import Waveform
from unibrivl.cli.contact_sheet import ACCENT, CARD, INK, LINE, PAPER, SOFT, WAVE, Shown, fitted, font

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

MARGIN, GAP, PAD = 40, 16, 20
SOUND = (430, 200)  # of waveform and spectrogram
WORDS = 250  # of what was heard
SIDE, BETWEEN, BANKS_APART = 160, 10, 34  # of pictures
ROW = 34 + SOUND[1] + 2 * PAD
HEAD = 96
LABELS = 4


@dataclass(frozen=True)
class Heard:
    """
    Args:
        heard (`dict`): label -> probability, highest first.
        drawn (`dict`): name of a label bank -> pictures, best first.
    """

    name: str
    waveform: Waveform
    heard: dict[str, float]
    drawn: dict[str, list[Shown]]


def demo_page(rows: list[Heard]) -> Image:
    from PIL import Image, ImageDraw

    places = places_of(rows[0])
    inner = places[-1] + strip(rows[0].drawn, -1) + PAD
    width = inner + 2 * MARGIN
    page = Image.new("RGB", (width, HEAD + len(rows) * (ROW + GAP) + MARGIN - GAP), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, 30), "What it heard, and what it drew", fill=INK, font=font(30))
    pen.text(
        (width - MARGIN, 46), "pictures best first, with their matching scores", fill=SOFT, font=font(15), anchor="ra"
    )
    for number, row in enumerate(rows):
        top = HEAD + number * (ROW + GAP)
        pen.rounded_rectangle([MARGIN, top, MARGIN + inner - 1, top + ROW - 1], radius=12, fill=CARD, outline=LINE)
        draw_row(page, pen, row, top + PAD)
    return page


def places_of(row: Heard) -> list[int]:
    """Where the pictures of each bank begin."""
    left = PAD + SOUND[0] + GAP + WORDS + BANKS_APART
    places = []
    for number in range(len(row.drawn)):
        places.append(left)
        left += strip(row.drawn, number) + BANKS_APART
    return places


def strip(drawn: dict[str, list[Shown]], number: int) -> int:
    """How wide the pictures of a bank are together."""
    count = len(list(drawn.values())[number])
    return count * SIDE + (count - 1) * BETWEEN


def draw_row(page: Image, pen: ImageDraw, row: Heard, top: int) -> None:
    left = MARGIN + PAD
    pen.text((left, top - 4), fitted(pen, row.name, font(20), SOUND[0]), fill=INK, font=font(20))
    page.paste(draw_sound(row.waveform, *SOUND), (left, top + 30))
    draw_labels(pen, row, (left + SOUND[0] + GAP, top))
    for (bank, pictures), place in zip(row.drawn.items(), places_of(row), strict=True):
        across = MARGIN + place
        wide = len(pictures) * (SIDE + BETWEEN) - BETWEEN
        title = fitted(pen, f"{bank}: {pictures[0].prompt}", font(15), wide)
        pen.text((across, top), title, fill=SOFT, font=font(15))
        for number, shown in enumerate(pictures):
            x = across + number * (SIDE + BETWEEN)
            page.paste(shown.image.convert("RGB").resize((SIDE, SIDE)), (x, top + 34))
            if number == 0:
                pen.rectangle([x - 2, top + 32, x + SIDE + 1, top + 35 + SIDE], outline=ACCENT, width=2)
            pen.text((x + SIDE, top + 40 + SIDE), f"{shown.score:+.3f}", fill=INK, font=font(14), anchor="ra")


def draw_labels(pen: ImageDraw, row: Heard, where: tuple[int, int]) -> None:
    """The labels it took the sound for, with a bar for each probability."""
    left, top = where
    pen.text((left, top), "heard", fill=SOFT, font=font(15))
    for number, (label, share) in enumerate(list(row.heard.items())[:LABELS]):
        y = top + 38 + number * 46
        colour = ACCENT if number == 0 else WAVE
        pen.text((left, y), fitted(pen, label, font(16), WORDS - 60), fill=INK, font=font(16))
        pen.text((left + WORDS, y), f"{share:.2f}", fill=INK if number == 0 else SOFT, font=font(16), anchor="ra")
        pen.rectangle([left, y + 24, left + WORDS, y + 29], fill=LINE)
        pen.rectangle([left, y + 24, left + round(share * WORDS), y + 29], fill=colour)
