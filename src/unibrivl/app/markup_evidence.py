"""Evidence as HTML: the drawing of it, a sentence that says what it shows, and its numbers as tables.

Shapes: T stretches of the sound, R regions along each side.
"""

from __future__ import annotations

from html import escape

import numpy as np

from unibrivl.app.drawing import png_of
from unibrivl.app.markup import address
from unibrivl.embedder import Evidence

WIDTH = 860  # pixels of the drawing
ROWS, COLUMNS = ("upper", "", "lower"), ("left", "", "right")
MOST_PAIRS = 5
SHOWN = 0.0005  # less is a zero in the numbers beside it


def sentence(found: Evidence) -> str:
    """Which seconds and which part of the picture made the score."""
    begin_s, end_s = found.best_seconds
    heard, heard_cost = f"{begin_s:.2f} to {end_s:.2f} s of the sound", float(found.seconds_T.max())
    seen, seen_cost = "", 0.0
    if found.regions_RR is not None:
        side, region = found.regions_RR.shape[0], int(found.regions_RR.argmax())
        seen, seen_cost = place(region, side), float(found.regions_RR.max())
    score = f"the score is {found.score:+.3f}"
    if max(heard_cost, seen_cost) < SHOWN:
        return f"{score}, and no part alone has made it: hiding any part of the sound or the picture costs nothing."
    if seen_cost < SHOWN:
        return (
            f"{score}, made most by {heard}: hiding them costs {heard_cost:.3f}. No part of the picture counts alone."
        )
    if heard_cost < SHOWN:
        return f"{score}, made most by {seen}: hiding it costs {seen_cost:.3f}. No moment of the sound counts alone."
    return (
        f"{score}, made most by {heard} and {seen}: hiding these seconds costs {heard_cost:.3f}, hiding this part "
        f"{seen_cost:.3f}."
    )


def drawn(found: Evidence, words: str, name: str) -> str:
    """The drawing, with the sentence as its text, and a way to keep it."""
    source = address(png_of(found.picture(WIDTH)), "png")
    text = f"The waveform, the picture under a heat map, and seconds by regions: {words}"
    return (
        f'<figure class="best evidence"><img src="{source}" alt="{escape(text)}">'
        f"<figcaption>Red is what the score loses when it is hidden, blue what it gains; green "
        "frames count most together. "
        f'<a download="{escape(name)}.png" href="{source}">Save picture</a></figcaption></figure>'
    )


def tables(found: Evidence) -> str:
    """All that the drawing shows, in numbers."""
    return (
        '<details class="numbers"><summary>The numbers as tables</summary>'
        f"{seconds_table(found)}{regions_table(found)}{pairs_table(found)}</details>"
    )


def seconds_table(found: Evidence) -> str:
    rows = "".join(
        f'<tr><th scope="row">{begin:.2f} to {end:.2f} s</th><td class="number">{signed(cost)}</td></tr>'
        for (begin, end), cost in zip(found.times_T2, found.seconds_T, strict=True)
    )
    return (
        '<table class="heard"><caption>What hiding each stretch of the sound costs</caption><thead><tr>'
        f'<th scope="col">Stretch</th><th scope="col" class="number">Cost</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def regions_table(found: Evidence) -> str:
    if found.regions_RR is None:
        return ""
    side = found.regions_RR.shape[0]
    head = "".join(f'<th scope="col" class="number">{column}</th>' for column in range(1, side + 1))
    rows = "".join(
        f'<tr><th scope="row">{row}</th>'
        + "".join(f'<td class="number">{signed(cost)}</td>' for cost in costs)
        + "</tr>"
        for row, costs in enumerate(found.regions_RR, 1)
    )
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Regions">'
        '<table class="heard regions"><caption>What hiding each region of the picture costs: rows from the top, '
        f'columns from the left</caption><thead><tr><th scope="col">Row</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def pairs_table(found: Evidence) -> str:
    """The moments and regions that count most together."""
    if found.map_TRR is None:
        return ""
    side, rows = found.map_TRR.shape[1], []
    for cell in np.argsort(-found.map_TRR, axis=None, kind="stable")[:MOST_PAIRS]:
        stretch, region = divmod(int(cell), side * side)
        begin, end = found.times_T2[stretch]
        row, column = divmod(region, side)
        rows.append(
            f'<tr><th scope="row">{begin:.2f} to {end:.2f} s</th><td>row {row + 1}, column {column + 1}</td>'
            f'<td class="number">{signed(found.map_TRR.flat[cell])}</td></tr>'
        )
    return (
        '<table class="heard"><caption>What counts most together: lost beyond what each costs alone</caption>'
        '<thead><tr><th scope="col">Stretch</th><th scope="col">Region</th>'
        '<th scope="col" class="number">Cost</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def signed(cost: float) -> str:
    """With its sign; what is shown as zero has none below it."""
    return f"{round(float(cost), 3) + 0.0:+.3f}"


def place(region: int, side: int) -> str:
    """Where in the picture a region is, in words."""
    row, column = (3 * (2 * index + 1) // (2 * side) for index in divmod(region, side))
    words = f"{ROWS[row]} {COLUMNS[column]}".strip()
    if not words:
        return "the middle of the picture"
    return f"the {words} part of the picture"


__all__ = ["drawn", "sentence", "tables"]
