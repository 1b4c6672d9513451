"""A contact sheet: what was heard, as waveform and spectrogram, beside the pictures drawn for it, best first.

Drawn with numpy and Pillow alone, in one type face, on a page of fixed width whose height follows from what is on it.
"""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unibrivl.audio.picture import FLOOR_DB, RAMP, spectrogram_db
from unibrivl.audio.waveform import Waveform

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

WIDTH, MARGIN, GAP = 1680, 56, 28
SOUND_WIDTH, BEST = 560, 480  # pixels: the sound's panel, the side of the best picture
CAPTION = 66  # under a picture: a line with rank and score, two of the prompt
PAPER, CARD, INK, SOFT, LINE = (250, 249, 246), (255, 255, 255), (28, 33, 43), (112, 118, 128), (226, 224, 217)
WAVE, ACCENT = (38, 70, 120), (187, 55, 84)


@dataclass(frozen=True)
class Shown:
    """One finished candidate."""

    image: Image
    score: float
    prompt: str


@dataclass(frozen=True)
class Row:
    """A sound, a window of one, or one at some gain, and what was drawn for it.

    Args:
        samples (`np.ndarray`): at `rate_hz`, at the loudness at which it was heard.
        title (`str`): what the row is called; empty for the only one.
        start_s (`float`): where the sound begins in its file.
        finished (`list[Shown]`): best first.
        given_up (`list[str]`): prompts of the candidates that were not finished.
    """

    samples: np.ndarray
    rate_hz: int
    title: str
    start_s: float
    finished: list[Shown]
    given_up: list[str]


def contact_sheet(title: str, about: str, rows: list[Row]) -> Image:
    """The page for one sound."""
    from PIL import Image, ImageDraw

    loudest = max(float(np.abs(row.samples).max()) for row in rows)
    alone = all(len(row.finished) < 2 for row in rows)  # nothing stands beside the best: the sound takes that room
    strips = [draw_row(row, loudest, alone) for row in rows]
    head = 132
    height = head + sum(strip.height + GAP for strip in strips) + MARGIN - GAP
    page = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, 44), fitted(pen, title, font(34), WIDTH - 2 * MARGIN), fill=INK, font=font(34))
    pen.text((MARGIN, 92), fitted(pen, about, font(17), WIDTH - 2 * MARGIN), fill=SOFT, font=font(17))
    top = head
    for strip in strips:
        page.paste(strip, (MARGIN, top))
        top += strip.height + GAP
    return page


def draw_row(row: Row, loudest: float, alone: bool = False) -> Image:
    """The sound on the left, the best picture beside it, the others around and below."""
    from PIL import Image, ImageDraw

    inner, pad = WIDTH - 2 * MARGIN, 24
    sound_width = inner - 2 * pad - GAP - BEST if alone else SOUND_WIDTH
    right = pad + sound_width + GAP
    side_left = right + BEST + GAP
    beside = row.finished[1:5]
    side_columns = 1 if len(beside) < 2 else 2
    cell = (inner - side_left - pad - 16 * (side_columns - 1)) // side_columns
    below = row.finished[5:]
    columns = 6
    small = (inner - 2 * pad - (columns - 1) * 16) // columns
    head = 40 if row.title else 0
    lines = -(-len(below) // columns)
    beside_lines = -(-len(beside) // side_columns)
    main = max(BEST + CAPTION, beside_lines * (cell + CAPTION + 8))
    height = pad + head + main + lines * (small + CAPTION + 16) + pad // 2
    card = Image.new("RGB", (inner, height), PAPER)
    pen = ImageDraw.Draw(card)
    pen.rounded_rectangle([0, 0, inner - 1, height - 1], radius=14, fill=CARD, outline=LINE)
    if row.title:
        pen.text((pad, pad - 4), row.title, fill=INK, font=font(22))
    top = pad + head
    draw_panel(card, pen, row, loudest, (pad, top, pad + sound_width, top + BEST - 92))
    draw_prompts(pen, row, (pad, top + BEST - 64), sound_width)
    if not row.finished:
        return card
    place(card, pen, row.finished[0], 1, (right, top), BEST)
    for number, shown in enumerate(beside):
        across, down = number % side_columns, number // side_columns
        where = side_left + across * (cell + 16), top + down * (cell + CAPTION + 8)
        place(card, pen, shown, number + 2, where, cell)
    for number, shown in enumerate(below):
        where = pad + number % columns * (small + 16), top + main + 8 + number // columns * (small + CAPTION + 16)
        place(card, pen, shown, number + 6, where, small)
    return card


def place(card: Image, pen: ImageDraw, shown: Shown, rank: int, where: tuple[int, int], side: int) -> None:
    """A picture within a square of this side, and its caption; one that is not square keeps its shape."""
    from PIL import Image

    scale = side / max(shown.image.size)
    width, height = (max(1, round(length * scale)) for length in shown.image.size)
    picture = shown.image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    left, top = where
    card.paste(picture, where)
    if rank == 1:
        pen.rectangle([left - 3, top - 3, left + width + 2, top + height + 2], outline=ACCENT, width=3)
    big, below = (18 if rank == 1 else 15), top + height
    pen.text((left, below + 8), f"{rank}", fill=ACCENT if rank == 1 else SOFT, font=font(big))
    pen.text((left + width, below + 8), f"{shown.score:+.3f}", fill=INK, font=font(big), anchor="ra")
    for number, line in enumerate(wrapped(pen, shown.prompt, font(big - 2), side, 2)):
        pen.text((left, below + 12 + big + number * (big + 2)), line, fill=SOFT, font=font(big - 2))


def draw_prompts(pen: ImageDraw, row: Row, where: tuple[int, int], width: int) -> None:
    """How many candidates each prompt had, and how many of them were finished."""
    begun = Counter([shown.prompt for shown in row.finished] + row.given_up)
    done = Counter(shown.prompt for shown in row.finished)
    left, top = where
    lines = begun.most_common(5)
    lines.sort(key=lambda one: -done[one[0]])
    pen.text((left, top), f"{sum(begun.values())} candidates, {sum(done.values())} finished", fill=INK, font=font(15))
    for number, (prompt, count) in enumerate(lines):
        y = top + 24 + number * 19
        share = f"{done[prompt]} of {count}"
        pen.text((left, y), fitted(pen, prompt, font(14), width - 80), fill=SOFT, font=font(14))
        pen.text((left + width, y), share, fill=INK if done[prompt] else SOFT, font=font(14), anchor="ra")


def draw_panel(card: Image, pen: ImageDraw, row: Row, loudest: float, box: tuple[int, int, int, int]) -> None:
    """Waveform above spectrogram, both on the scale of the loudest row, with seconds and kilohertz."""
    from PIL import Image

    left, top, right, bottom = box
    left, bottom = left + 46, bottom - 26
    inner, wave_height = right - left, (bottom - top) // 3 - 8
    middle = top + wave_height / 2
    pen.line([(left, middle), (right, middle)], fill=LINE)
    pieces = np.array_split(row.samples, min(inner, len(row.samples)))
    for index, piece in enumerate(pieces):
        x = left + index * inner // len(pieces)
        low, high = float(piece.min()) / loudest, float(piece.max()) / loudest
        pen.line([(x, middle - high * wave_height / 2), (x, middle - low * wave_height / 2)], fill=WAVE)

    spec_top = top + wave_height + 16
    peak = max(float(np.abs(row.samples).max()), 1e-9)
    level = 1 - (spectrogram_db(row.samples, columns=inner) + 20 * np.log10(peak / loudest)) / FLOOR_DB
    position = np.clip(level[::-1], 0, 1) * (len(RAMP) - 1)
    lower = np.minimum(position.astype(int), len(RAMP) - 2)
    share = (position - lower)[..., None]
    colours = (RAMP[lower] * (1 - share) + RAMP[lower + 1] * share).astype(np.uint8)
    spectrum = Image.fromarray(colours).resize((inner, bottom - spec_top), Image.Resampling.BILINEAR)
    card.paste(spectrum, (left, spec_top))

    small = font(13)
    for part in range(3):
        y = bottom - 1 - part * (bottom - 1 - spec_top) / 2
        pen.line([(left - 5, y), (left - 1, y)], fill=SOFT)
        khz = f"{row.rate_hz / 2000 * part / 2:.3g}" + (" kHz" if part == 2 else "")
        pen.text((left - 8, y), khz, fill=SOFT, font=small, anchor=("rs", "rm", "rt")[part])
    seconds = len(row.samples) / row.rate_hz
    for part in range(5):
        x = left + part * (inner - 1) // 4
        pen.line([(x, bottom), (x, bottom + 4)], fill=SOFT)
        label = f"{row.start_s + seconds * part / 4:.3g}" + (" s" if part == 4 else "")
        pen.text((x, bottom + 8), label, fill=SOFT, font=small, anchor=("la", "ma", "ma", "ma", "ra")[part])


def rows_of(waveform: Waveform, output: Any, times: list | None, gains: list[float] | None) -> list[Row]:
    """The rows of a pipeline's output that kept its candidates.

    Args:
        waveform (`Waveform`): the whole sound.
        times (*optional*): of each sound of the call, where it was cut into windows.
        gains (*optional*): decibels of each, where its loudness was swept.
    """
    count = max((one.sound for one in output.candidates), default=0) + 1
    rows = []
    for sound in range(count):
        mine = [one for one in output.candidates if one.sound == sound]
        samples, start_s, title = waveform.samples, 0.0, ""
        if times is not None:
            start_s, end_s = times[sound]
            samples = samples[round(start_s * waveform.rate_hz) : max(1, round(end_s * waveform.rate_hz))]
            title = f"{start_s:.1f} to {end_s:.1f} s"
        elif gains is not None:
            samples = samples * np.float32(10 ** (gains[sound] / 20))
            title = f"{gains[sound]:+g} dB" if gains[sound] else "0 dB"
        finished = [Shown(one.image, one.score, one.prompt or "") for one in mine if one.image is not None]
        given_up = [one.prompt or "" for one in mine if one.image is None]
        rows.append(Row(samples, waveform.rate_hz, title, start_s, finished, given_up))
    return rows


def font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def fitted(pen: ImageDraw, text: str, face: Any, width: int) -> str:
    """The text on one line, cut with three dots where it is too long."""
    if pen.textlength(text, font=face) <= width:
        return text
    lengths = range(len(text))
    fits = bisect.bisect_left(lengths, True, key=lambda end: pen.textlength(f"{text[:end]}...", font=face) > width)
    return text[: max(0, fits - 1)].rstrip() + "..."


def wrapped(pen: ImageDraw, text: str, face: Any, width: int, most: int) -> list[str]:
    """The text on at most `most` lines."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < most - 1:
        line = words.pop(0)
        while words and pen.textlength(f"{line} {words[0]}", font=face) <= width:
            line += " " + words.pop(0)
        lines.append(fitted(pen, line, face, width))
    if words:
        lines.append(fitted(pen, " ".join(words), face, width))
    return lines
