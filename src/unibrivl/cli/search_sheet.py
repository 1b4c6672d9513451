"""What a search found, on one page: what was asked for above, and below it pictures and the windows of sounds."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unibrivl.cli.contact_sheet import (
    CARD,
    INK,
    LINE,
    MARGIN,
    PAPER,
    SOFT,
    WIDTH,
    Row,
    Shown,
    draw_panel,
    fitted,
    font,
    place,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from unibrivl.search import Hit, Query

COLUMNS, GAP, HEAD = 5, 24, 120
PANEL = 240  # pixels, the height of a sound that was asked for
MOST_S = 30.0  # drawn of a sound
CAPTION = 78


def search_sheet(query: Query, hits: Sequence[Hit], sounds: Sequence[str | os.PathLike]) -> Image:
    """The page.

    Args:
        sounds: those that were asked for, which are drawn above what was found.
    """
    from PIL import Image, ImageDraw

    side = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS
    lines = -(-len(hits) // COLUMNS)
    above = HEAD + len(sounds) * (PANEL + GAP)
    page = Image.new("RGB", (WIDTH, above + lines * (side + CAPTION + GAP) + MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    parts = [f"{part.name}" + (f" x {part.weight:g}" if part.weight != 1 else "") for part in query.parts]
    pen.text((MARGIN, 36), fitted(pen, " + ".join(parts), font(30), WIDTH - 2 * MARGIN), fill=INK, font=font(30))
    pen.text((MARGIN, 80), f"{len(hits)} found, best first; the number is the cosine", fill=SOFT, font=font(17))
    for number, sound in enumerate(sounds):
        panel = drawn_sound(os.fspath(sound), None, None, WIDTH - 2 * MARGIN, PANEL)
        page.paste(panel, (MARGIN, HEAD + number * (PANEL + GAP)))
    for number, hit in enumerate(hits):
        where = MARGIN + number % COLUMNS * (side + GAP), above + number // COLUMNS * (side + CAPTION + GAP)
        place(page, pen, Shown(drawn(hit, side), hit.score, caption(hit)), number + 1, where, side)
    return page


def caption(hit: Hit) -> str:
    name = os.path.basename(hit.path)
    return name if hit.begin_s is None else f"{hit.begin_s:.1f} to {hit.end_s:.1f} s of {name}"


def drawn(hit: Hit, side: int) -> Image:
    """A square of what was found, or of why it cannot be shown: files come and go after they were indexed."""
    from unibrivl.data.pictures import open_picture
    from unibrivl.data.places import local_file

    try:
        with local_file(hit.path) as path:
            if hit.kind == "audio":
                return drawn_sound(path, hit.begin_s, hit.end_s, side, side)
            return open_picture(path)
    except (ValueError, OSError) as error:
        return card(side, side, str(error))


def drawn_sound(path: str, begin_s: float | None, end_s: float | None, width: int, height: int) -> Image:
    from PIL import ImageDraw

    from unibrivl.audio.part import load_part

    begin_s = begin_s or 0.0
    sound = load_part(path, begin_s, min(end_s or math.inf, begin_s + MOST_S))
    drawing: Any = card(width, height)
    loudest = max(float(abs(sound.samples).max(initial=0.0)), 1e-9)
    row = Row(sound.samples, sound.rate_hz, "", begin_s, [], [])
    draw_panel(drawing, ImageDraw.Draw(drawing), row, loudest, (12, 12, width - 16, height - 8))
    return drawing


def card(width: int, height: int, text: str = "") -> Image:
    from PIL import Image, ImageDraw

    from unibrivl.cli.contact_sheet import wrapped

    drawing = Image.new("RGB", (width, height), CARD)
    pen = ImageDraw.Draw(drawing)
    pen.rectangle((0, 0, width - 1, height - 1), outline=LINE)
    for number, line in enumerate(wrapped(pen, text, font(15), width - 24, 6)):
        pen.text((12, 12 + 20 * number), line, fill=SOFT, font=font(15))
    return drawing
