"""Coloured tones: a small world in which a sound says what a picture shows. Nothing is downloaded, all is computed.

    pitch  -> colour      8 pitches from 180 Hz up, a third apart, and 8 hues
    timbre -> shape       5: pure, hollow (odd harmonics), full (all), bell (not harmonic), noise about the pitch
    moment -> place       when in the clip it is struck, and 6 places in the picture, two rows of three

That makes 240 combinations. Half of them, those whose numbers add up to an odd one (or to an even one, where that is
asked for), never occur in training: whoever finds the picture of an unheard combination has understood the parts. What
does not matter differs each time: loudness, phase, detuning and noise of the sound; position by a pixel, size,
brightness and background of the picture.

Shapes: S samples, B batch, H and W sides of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unibrivl.training.sampler import Draw, derive

RATE_HZ, SAMPLES = 8000, 6400
SIDE, CELL = 36, 12  # three places beside each other
PITCHES, TIMBRES, MOMENTS = 8, 5, 6
LOWEST_HZ, RATIO = 180.0, 1.25  # OURS: overtones of the highest stay under 4 kHz
STEP_S = 0.12  # OURS: six moments and time for the last to fade
NOISE = 0.003  # OURS: some 40 dB below the tone
# harmonics of the pitch with their loudness; noise has none
SPECTRA = (
    ((1.0, 1.0),),
    ((1.0, 1.0), (3.0, 0.5)),
    ((1.0, 1.0), (2.0, 0.7), (3.0, 0.5), (4.0, 0.35)),  # OURS: as a sawtooth begins
    ((1.0, 1.0), (2.4, 0.7), (4.4, 0.4)),  # OURS: overtones that are no multiples, as of a bell
    (),
)
HUES = np.array(
    [[220, 40, 40], [240, 140, 30], [230, 220, 50], [60, 190, 60], [40, 200, 200], [50, 80, 220], [150, 50, 200],
     [230, 90, 180]],
    dtype=np.float32,
)  # fmt: skip


@dataclass(frozen=True)
class Combination:
    pitch: int
    timbre: int
    moment: int

    @property
    def number(self) -> int:
        return (self.pitch * TIMBRES + self.timbre) * MOMENTS + self.moment


def combinations(held_out: bool, rule: str = "odd") -> list[Combination]:
    """120 to learn from, or the 120 others, whose numbers add up to an odd or even one as the rule says."""
    everything = [
        Combination(pitch, timbre, moment)
        for pitch in range(PITCHES)
        for timbre in range(TIMBRES)
        for moment in range(MOMENTS)
    ]
    return [one for one in everything if (one.pitch + one.timbre + one.moment) % 2 == (held_out == (rule == "odd"))]


def sound(what: Combination, chance: np.random.Generator) -> np.ndarray:
    """0.8 s of it, (S,) float32."""
    seconds = np.arange(SAMPLES, dtype=np.float32) / RATE_HZ
    pitch_hz = LOWEST_HZ * RATIO**what.pitch * chance.uniform(0.98, 1.02)  # OURS: a third of a semitone
    if SPECTRA[what.timbre]:
        tone: np.ndarray = np.zeros(SAMPLES, dtype=np.float32)
        for multiple, loudness in SPECTRA[what.timbre]:
            phase = chance.uniform(0, 2 * np.pi)
            tone += loudness * np.sin(2 * np.pi * pitch_hz * multiple * seconds + phase, dtype=np.float32)
    else:
        slow = np.interp(seconds * 200, np.arange(SAMPLES // 40 + 2), chance.standard_normal(SAMPLES // 40 + 2))
        tone = slow.astype(np.float32) * np.sin(2 * np.pi * pitch_hz * seconds, dtype=np.float32)
    since = seconds - STEP_S * (what.moment + 0.4 + chance.uniform(-0.2, 0.2))  # OURS: moments do not touch
    envelope = np.clip(100 * since, 0, 1) * np.exp(-np.maximum(since, 0) / STEP_S)  # OURS: struck fast, then fades
    noise = NOISE * chance.standard_normal(SAMPLES, dtype=np.float32)
    return (chance.uniform(0.1, 0.4) * tone * envelope + noise).astype(np.float32)  # OURS: 12 dB of loudness


def picture(what: Combination, chance: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8."""
    row, column = divmod(what.moment, 3)
    centre_y = (row + 0.5) * CELL + chance.uniform(-1, 1)
    centre_x = (column + 0.5) * CELL + chance.uniform(-1, 1)
    radius = chance.uniform(4.0, 5.0)  # OURS: it stays in its place
    grid = np.arange(SIDE, dtype=np.float32) + 0.5
    y, x = (grid[:, None] - centre_y) / radius, (grid[None] - centre_x) / radius
    far, wide, high = np.hypot(x, y), np.abs(x), np.abs(y)
    thin = 0.35  # OURS: an arm of the cross, and the bar, is a third of it
    inside = (
        far < 1,
        (wide < 1) & (high < thin),
        (high < 1) & (wide < (y + 1) / 2),
        (np.maximum(wide, high) < 1) & (np.minimum(wide, high) < thin),
        (far < 1) & (far > 0.5),
    )[what.timbre]
    colour = HUES[what.pitch] * chance.uniform(0.8, 1.0)  # OURS: brightness does not matter
    canvas: np.ndarray = np.full((SIDE, SIDE, 3), chance.uniform(0, 60), dtype=np.float32)
    canvas[inside] = colour
    return np.clip(canvas + 3 * chance.standard_normal(canvas.shape, dtype=np.float32), 0, 255).astype(np.uint8)


class ColouredTones:
    """Pairs of a sound and a picture. An index is a combination and a draw of what does not matter.

    Args:
        held_out (`bool`): the combinations that training leaves out.
        copies (`int`): how often each combination occurs in an epoch.
        rule (`str`): which sums training leaves out, "odd" or "even".
    """

    def __init__(self, held_out: bool = False, copies: int = 8, rule: str = "odd"):
        self.combinations, self.copies = combinations(held_out, rule), copies

    def __len__(self) -> int:
        return len(self.combinations) * self.copies

    def __getitem__(self, draw: Draw) -> dict:
        what = self.combinations[draw.index % len(self.combinations)]
        chance = np.random.default_rng(draw.seed)
        return {"audio": sound(what, chance), "image": picture(what, chance), "label": what.number}

    def all(self, seed: int) -> list[dict]:
        """Every example once, the same on every call."""
        return [self[Draw(index, 0, derive(seed, index))] for index in range(len(self))]
