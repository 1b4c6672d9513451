"""A sound as a picture: its waveform above its spectrogram, drawn with numpy and Pillow alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unibrivl.audio.waveform import Waveform

if TYPE_CHECKING:
    from PIL.Image import Image

# colours of the spectrogram from silent to loud, and of the page
RAMP = np.array([[13, 8, 35], [84, 15, 109], [187, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float32)
PAPER, INK, GRID = (250, 250, 248), (30, 60, 110), (222, 222, 216)
FLOOR_DB = -80.0  # below the loudest bin; quieter is drawn as silence


def spectrogram_db(samples: np.ndarray, window: int = 512, columns: int = 800) -> np.ndarray:
    """Power in dB below the loudest bin, (window // 2 + 1, frames): a Hann window, at most about `columns` frames."""
    samples = np.pad(samples, (0, max(0, window - len(samples))))
    hop = max(window // 4, -(-(len(samples) - window) // columns))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1).T) ** 2
    loudest = power.max()
    if loudest == 0:
        return np.full(power.shape, FLOOR_DB)
    return np.maximum(10 * np.log10(np.maximum(power / loudest, 1e-12)), FLOOR_DB)


def draw_sound(waveform: Waveform, width: int = 900, height: int = 480) -> Image:
    """The picture of a sound, with seconds along the bottom and kilohertz at the side."""
    from PIL import Image, ImageDraw

    left, right, gap, bottom, top = 54, 16, 18, 30, 26
    inner = width - left - right
    wave_height = (height - top - bottom - gap) // 3
    spec_height = height - top - bottom - gap - wave_height
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)

    pieces = np.array_split(waveform.samples, min(inner, len(waveform.samples)))
    peak = max(float(np.abs(waveform.samples).max()), 1e-9)
    middle = top + wave_height / 2
    pen.line([(left, middle), (width - right, middle)], fill=GRID)
    for index, piece in enumerate(pieces):
        x = left + index * inner // len(pieces)
        low, high = float(piece.min()) / peak, float(piece.max()) / peak
        pen.line([(x, middle - high * wave_height / 2), (x, middle - low * wave_height / 2)], fill=INK)

    level = 1 - spectrogram_db(waveform.samples, columns=inner) / FLOOR_DB
    position = level[::-1] * (len(RAMP) - 1)
    lower = np.minimum(position.astype(int), len(RAMP) - 2)
    share = (position - lower)[..., None]
    colours = (RAMP[lower] * (1 - share) + RAMP[lower + 1] * share).astype(np.uint8)
    spectrum = Image.fromarray(colours).resize((inner, spec_height), Image.Resampling.BILINEAR)
    spec_top = top + wave_height + gap
    page.paste(spectrum, (left, spec_top))

    pen.text((left, 6), f"{waveform.duration_s:.2f} s at {waveform.rate_hz} Hz, peak {peak:.2f}", fill=INK)
    nyquist_khz = waveform.rate_hz / 2000
    for part in range(5):
        y = spec_top + spec_height - 1 - part * (spec_height - 1) / 4
        pen.line([(left - 5, y), (left, y)], fill=INK)
        label = f"{nyquist_khz * part / 4:.3g}" + (" kHz" if part == 4 else "")
        pen.text((left - 9, y), label, fill=INK, anchor="rm")
    for part in range(6):
        x = left + part * (inner - 1) // 5
        pen.line([(x, height - bottom), (x, height - bottom + 5)], fill=INK)
        label = f"{waveform.duration_s * part / 5:.3g}" + (" s" if part == 5 else "")
        pen.text((x, height - bottom + 8), label, fill=INK, anchor="rt" if part == 5 else "mt")
    return page
