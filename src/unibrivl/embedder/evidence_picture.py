"""Evidence, drawn: the waveform over a strip of heat, the picture under a veil of heat, and the map as a storyboard.

Warm is what the score would lose, blue what it would gain. Each of the three has a scale of its own, whose end is
written beside it, since a stretch, a region and a pair of them cost amounts that cannot be compared by eye. A frame in
both marks the pair that counts most. Drawn with numpy and Pillow alone, on a page whose height follows from its width.

Shapes: T stretches, R regions along each side, X columns of the page, H and W of a picture.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from unibrivl.embedder.evidence import Evidence

PAPER, INK, SOFT, LINE = (250, 249, 246), (28, 33, 43), (112, 118, 128), (226, 224, 217)
WAVE, MARK = (38, 70, 120), (16, 130, 90)
WARM, COLD = np.array([205, 40, 60], np.float32), np.array([40, 100, 200], np.float32)
VEIL = 0.75  # of the strongest heat: the picture stays to be seen
MARGIN, GAP, STRIP = 40, 32, 22
MOST_SHOWN = 6  # moments of the storyboard
SMALLEST = 480


def draw_evidence(found: Evidence, width: int = 1200) -> Image:
    """The page of one sound and one picture, or one text."""
    from PIL import Image, ImageDraw

    if width < SMALLEST:
        raise ValueError(f"width must be at least {SMALLEST} pixels, got {width}")
    inner = width - 2 * MARGIN
    side = 0 if found.image is None else round(inner * 0.3)
    left, right = MARGIN, width - MARGIN - (side + GAP if side else 0)
    shown = None if found.image is None else fitted_size(found.image.size, side, side * 3 // 2)
    top = 100
    wave_height = max(side - STRIP - 48, 160) if side else 200
    bottom = top + max(wave_height + STRIP + 48, 0 if shown is None else shown[1] + 24)
    board = 0 if found.map_TRR is None else storyboard_height(found, inner)
    page = Image.new("RGB", (width, bottom + (board + 40 if board else 0) + 20), PAPER)
    pen = ImageDraw.Draw(page)
    title = f"{found.names[0]} and {found.names[1]}" if found.text is None else f'{found.names[0]} and "{found.text}"'
    pen.text((MARGIN, 26), cut_to(pen, title, 24, inner - 170), fill=INK, font=font(24))
    pen.text((width - MARGIN, 26), f"score {found.score:+.3f}", fill=INK, font=font(24), anchor="ra")
    told = f"hiding {found.best_seconds[0]:.2f} to {found.best_seconds[1]:.2f} s costs {found.seconds_T.max():.3f}"
    if found.regions_RR is not None:
        told += f", hiding the region that counts most {found.regions_RR.max():.3f}"
    pen.text((MARGIN, 64), cut_to(pen, told, 15, inner), fill=SOFT, font=font(15))
    draw_seconds(page, pen, found, (left, top, right, top + wave_height + STRIP))
    if found.image is not None and shown is not None and found.regions_RR is not None and found.boxes_RR4 is not None:
        scale = scale_of(over_picture(found.regions_RR, found.boxes_RR4, found.image.size))
        veiled = under_heat(found.image, found.regions_RR, found.boxes_RR4, shown, scale)
        place = width - MARGIN - side + (side - shown[0]) // 2, top
        page.paste(veiled, place)
        outline(pen, found, place, shown)
        note = f"regions: full red is {scale:.3f}"
        pen.text((place[0], top + shown[1] + 6), note, fill=SOFT, font=font(13))
        draw_storyboard(page, pen, found, (MARGIN, bottom + 28), inner)
    return page


def draw_seconds(page: Image, pen: ImageDraw, found: Evidence, box: tuple[int, int, int, int]) -> None:
    """The waveform, a strip of heat below it, seconds below that."""
    from PIL import Image

    left, top, right, bottom = box
    columns, samples = right - left, found.sound.samples
    duration_s = len(samples) / found.sound.rate_hz
    heat_X = over_time(found.seconds_T, found.times_T2, columns, duration_s)
    scale = scale_of(heat_X)
    middle, half = top + (bottom - STRIP - top) / 2, (bottom - STRIP - top) / 2 - 6
    strip_1X3 = heated(np.full((1, columns, 3), 255, np.float32), heat_X[None] / scale, 1.0)
    behind_1X3 = heated(np.full((1, columns, 3), PAPER, np.float32), heat_X[None] / scale, 0.25)
    for colours, y, tall in ((behind_1X3, top, bottom - STRIP - top), (strip_1X3, bottom - STRIP, STRIP)):
        page.paste(Image.fromarray(colours.round().astype(np.uint8)).resize((columns, tall)), (left, y))
    peak = max(float(np.abs(samples).max()), 1e-9)
    for index, piece in enumerate(np.array_split(samples, min(columns, len(samples)))):
        x = left + index * columns // min(columns, len(samples))
        low, high = float(piece.min()) / peak, float(piece.max()) / peak
        pen.line([(x, middle - high * half), (x, middle - low * half)], fill=WAVE)
    pair = found.best_pair
    if pair is not None:
        marked = [left + round(moment / duration_s * (columns - 1)) for moment in pair[0]]
        pen.rectangle([marked[0], top, marked[1], bottom - 1], outline=MARK, width=3)
    moments = round_moments(duration_s)
    for moment in moments:
        x = left + round(moment / duration_s * (columns - 1))
        pen.line([(x, bottom), (x, bottom + 4)], fill=SOFT)
        label = f"{moment:g}" + (" s" if moment == moments[-1] else "")
        anchor = "la" if not moment else "ra" if x > right - 2 * font(13).getlength(label) else "ma"
        pen.text((x, bottom + 7), label, fill=SOFT, font=font(13), anchor=anchor)
    note = f"seconds: full red is {scale:.3f}" + (", green frames: the pair that counts most" if pair else "")
    pen.text((left, bottom + 26), cut_to(pen, note, 13, columns), fill=SOFT, font=font(13))


def round_moments(duration_s: float) -> list[float]:
    """Zero, and at most six moments after it at even steps of one, two or five."""
    tens = 10.0 ** (math.floor(math.log10(duration_s)) - 1)
    step = next(tens * many for many in (1, 2, 5, 10, 20) if duration_s < 6.5 * tens * many)
    return [round(number * step, 6) for number in range(int(duration_s / step + 1e-6) + 1)]


def storyboard_cells(found: Evidence, width: int) -> tuple[int, tuple[int, int]]:
    """How many moments there are, and the size of a picture."""
    assert found.image is not None
    count = min(MOST_SHOWN, len(found.seconds_T))
    room = (width - (MOST_SHOWN - 1) * 14) // MOST_SHOWN
    return count, fitted_size(found.image.size, room, room * 3 // 2)


def storyboard_height(found: Evidence, width: int) -> int:
    return storyboard_cells(found, width)[1][1] + 26


def draw_storyboard(page: Image, pen: ImageDraw, found: Evidence, where: tuple[int, int], width: int) -> None:
    """The map: the picture once for each part of the sound, warm where that part speaks of it."""
    assert found.image is not None and found.map_TRR is not None and found.boxes_RR4 is not None
    count, size = storyboard_cells(found, width)
    duration_s = len(found.sound.samples) / found.sound.rate_hz
    centres_T = found.times_T2.mean(1)
    slots_T = np.minimum((centres_T / duration_s * count).astype(int), count - 1)
    moments = [found.map_TRR[slots_T == slot] for slot in range(count)]
    frames = [one.mean(0) if len(one) else np.zeros_like(found.map_TRR[0]) for one in moments]
    scale = max(scale_of(over_picture(one, found.boxes_RR4, found.image.size)) for one in frames)
    best = int(slots_T[int(found.map_TRR.argmax()) // found.map_TRR[0].size])
    left, top = where
    pen.text((left, top - 22), f"both together, moment by moment: full red is {scale:.3f}", fill=SOFT, font=font(13))
    for slot, frame_RR in enumerate(frames):
        x = left + slot * ((width - (MOST_SHOWN - 1) * 14) // MOST_SHOWN + 14)
        page.paste(under_heat(found.image, frame_RR, found.boxes_RR4, size, scale), (x, top))
        if slot == best:
            pen.rectangle([x - 3, top - 3, x + size[0] + 2, top + size[1] + 2], outline=MARK, width=3)
        label = f"{duration_s * slot / count:.2f} to {duration_s * (slot + 1) / count:.2f} s"
        pen.text((x, top + size[1] + 6), label, fill=SOFT, font=font(13))


def outline(pen: ImageDraw, found: Evidence, place: tuple[int, int], size: tuple[int, int]) -> None:
    """The region of the best pair."""
    pair = found.best_pair
    assert pair is not None and found.image is not None
    across, down = size[0] / found.image.width, size[1] / found.image.height
    left, top, right, bottom = pair[1]
    corners = [place[0] + left * across, place[1] + top * down, place[0] + right * across, place[1] + bottom * down]
    pen.rectangle([corners[0], corners[1], corners[2] - 1, corners[3] - 1], outline=MARK, width=3)


def over_time(values_T: np.ndarray, times_T2: np.ndarray, columns: int, duration_s: float) -> np.ndarray:
    """The mean over the stretches that cover each column, (X,)."""
    middles_X = (np.arange(columns) + 0.5) / columns * duration_s
    covers_TX = (times_T2[:, :1] <= middles_X) & (middles_X < times_T2[:, 1:])
    return (values_T[:, None] * covers_TX).sum(0) / np.maximum(covers_TX.sum(0), 1)


def over_picture(values_RR: np.ndarray, boxes_RR4: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mean over the regions that cover each pixel, (H, W)."""
    sums_HW: np.ndarray = np.zeros((size[1], size[0]), np.float32)
    counts_HW: np.ndarray = np.zeros((size[1], size[0]), np.float32)
    for value, (left, top, right, bottom) in zip(values_RR.reshape(-1), boxes_RR4.reshape(-1, 4), strict=True):
        sums_HW[top:bottom, left:right] += value
        counts_HW[top:bottom, left:right] += 1
    return sums_HW / np.maximum(counts_HW, 1)


def under_heat(image: Image, values_RR: Any, boxes_RR4: Any, size: tuple[int, int], scale: float) -> Image:
    """The picture at a size, paled to grey, with heat on it."""
    from PIL import Image

    heat_HW = over_picture(values_RR, boxes_RR4, image.size) / scale
    smooth = Image.fromarray(heat_HW.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    resample = Image.Resampling.LANCZOS if image.width > size[0] else Image.Resampling.NEAREST
    grey = np.asarray(image.convert("L").resize(size, resample), np.float32)[..., None]
    pixels = 0.5 * np.asarray(image.convert("RGB").resize(size, resample), np.float32) + 0.5 * grey
    return Image.fromarray(heated(pixels, np.asarray(smooth), VEIL).round().clip(0, 255).astype(np.uint8))


def heated(pixels_HW3: np.ndarray, heat_HW: np.ndarray, veil: float) -> np.ndarray:
    """Colours mixed with warm or cold by how strong the heat is, -1 to 1."""
    heat_HW1 = np.clip(heat_HW, -1, 1)[..., None]
    colour = np.where(heat_HW1 > 0, WARM, COLD)
    share = veil * np.abs(heat_HW1)
    return pixels_HW3 * (1 - share) + colour * share


def scale_of(values: Any) -> float:
    return max(float(np.abs(values).max()), 1e-9)


def fitted_size(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    scale = min(width / size[0], height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def cut_to(pen: ImageDraw, text: str, size: int, width: int) -> str:
    """The text on one line, cut with three dots where it is too long."""
    text = " ".join(text.split())
    if pen.textlength(text, font=font(size)) <= width:
        return text
    while text and pen.textlength(text + "...", font=font(size)) > width:
        text = text[: max(0, len(text) * 9 // 10)]
    return text.rstrip() + "..."


def font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
