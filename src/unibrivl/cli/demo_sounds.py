"""The sounds of `unibrivl demo`, made by this project: things that are synthesised here, and words from a synthesiser.

`SOUNDS` lists them, each with the label that it should be heard as. Every recipe is a function of a random generator
with a fixed seed, so a sound is the same on every machine; they last five seconds, as ESC-50's clips do, and end in
silence where the thing does. The spoken digits are files beside this one: `sounds/README.md` says how they were made.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unibrivl.audio import Waveform, load_audio

RATE_HZ = 16_000
SECONDS = 5.0
LENGTH = int(RATE_HZ * SECONDS)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class DemoSound:
    """
    Args:
        name (`str`): what it is called on the page.
        label (`str`): what the embedded model should hear first, as its label banks write it.
        make: of the recipe; None for a spoken word, whose file has the name.
        shown (`bool`): whether it is one of the handful of `unibrivl demo`.
    """

    name: str
    label: str
    make: Callable[[np.random.Generator], np.ndarray] | None = None
    shown: bool = True

    def waveform(self) -> Waveform:
        if self.make is None:
            return load_audio(Path(__file__).parent / "sounds" / f"{self.name}.flac")
        samples = self.make(np.random.default_rng([ord(letter) for letter in self.name]))
        return Waveform((0.8 * samples / np.abs(samples).max()).astype(np.float32), RATE_HZ)


# ---- what sounds are made of


def seconds() -> np.ndarray:
    return np.arange(LENGTH) / RATE_HZ


def noise(random: np.random.Generator, gain: Callable[[np.ndarray], np.ndarray], length: int = LENGTH) -> np.ndarray:
    """Noise of about unit deviation whose spectrum is `gain` of a frequency in Hz."""
    shape = gain(np.fft.rfftfreq(length, 1 / RATE_HZ))
    shaped = np.fft.irfft(np.fft.rfft(random.standard_normal(length)) * shape, length)
    return shaped / shaped.std()


def band(low_hz: float, high_hz: float, tilt: float = 0.0) -> Callable[[np.ndarray], np.ndarray]:
    """A gain that is soft at both ends and falls between them with the power `tilt` of the frequency."""

    def gain(frequency: np.ndarray) -> np.ndarray:
        at = np.maximum(frequency, 1.0)
        return at**-tilt / np.sqrt((1 + (low_hz / at) ** 4) * (1 + (at / high_hz) ** 4))

    return gain


def added(whole: np.ndarray, piece: np.ndarray, at_s: float, gain: float = 1.0) -> None:
    """A piece is added to a whole where it fits."""
    start = int(at_s * RATE_HZ)
    piece = piece[: max(0, len(whole) - start)]
    whole[start : start + len(piece)] += gain * piece


def struck(pitches_hz: Sequence[float], decay_s: float, length_s: float, random: np.random.Generator) -> np.ndarray:
    """A blow: decaying tones, and a click before them."""
    time = np.arange(int(length_s * RATE_HZ)) / RATE_HZ
    tones = sum(np.sin(2 * np.pi * pitch * time + random.uniform(0, 6)) for pitch in pitches_hz)
    click = 2 * random.standard_normal(len(time)) * np.exp(-time / (decay_s / 5))
    return (tones + click) * np.exp(-time / decay_s)


def curve(length: int, *points: tuple[float, float]) -> np.ndarray:
    """A line through (share of the length, value)."""
    places, values = zip(*points, strict=True)
    return np.interp(np.linspace(0, 1, length), places, values)


def voiced(
    pitch_hz: np.ndarray, formants: Sequence[tuple[float, float, float]], tilt: float, random: np.random.Generator
) -> np.ndarray:
    """Harmonics of a pitch that moves, through resonances.

    Args:
        formants: centre and width in Hz, and gain, of each.
        tilt (`float`): harmonic n has the power -tilt of n.
    """
    wobble = 1 + 0.01 * noise(random, band(2, 30), len(pitch_hz))
    phase = 2 * np.pi * np.cumsum(pitch_hz * wobble) / RATE_HZ
    sound = np.zeros(len(pitch_hz))
    for number in range(1, int(0.45 * RATE_HZ / pitch_hz.min()) + 1):
        at: np.ndarray = number * pitch_hz
        loud = 0.05 + sum(gain / (1 + ((at - centre) / width) ** 2) for centre, width, gain in formants)
        sound += loud * (at < 0.46 * RATE_HZ) * number**-tilt * np.sin(number * phase)
    return sound / np.abs(sound).max()


# ---- things


def ticking_clock(random: np.random.Generator) -> np.ndarray:
    """Four blows a second on small metal parts, tick higher than tock, over the hush of a room."""
    sound = 0.004 * noise(random, band(50, 3000, 0.5))
    for number in range(20):
        pitches = (2400, 3900, 5600) if number % 2 else (2050, 3300, 5100)
        blow = struck(pitches, 0.007, 0.08, random)
        added(sound, blow, 0.1 + 0.25 * number, 0.5 if number % 2 else 0.4)
        added(sound, struck(pitches, 0.004, 0.04, random), 0.122 + 0.25 * number, 0.15)
    return sound


def rain(random: np.random.Generator) -> np.ndarray:
    """A steady hiss, and two hundred drops a second that strike close by."""
    sound = noise(random, band(400, 7000, 0.15))
    for at in random.uniform(0, SECONDS - 0.05, 1000):
        drop = struck([random.uniform(1500, 6500)], random.uniform(0.001, 0.004), 0.03, random)
        added(sound, drop, at, random.exponential(0.8))
    return sound


def sea_waves(random: np.random.Generator) -> np.ndarray:
    """Two waves: low noise that swells slowly, then bright foam that breaks fast and draws back hissing."""
    time = seconds()
    swell, foam = np.zeros(LENGTH), np.zeros(LENGTH)
    for crest in (1.3, 4.0):
        swell += np.exp(-(((time - crest) / 1.0) ** 2))
        foam += np.where(time < crest, np.exp(-(((time - crest) / 0.35) ** 2)), np.exp(-(time - crest) / 0.9))
    low, high = noise(random, band(40, 900, 0.6)), noise(random, band(600, 6000, 0.5))
    return (0.25 + swell) * low + (0.12 + 0.9 * foam) * high


def crackling_fire(random: np.random.Generator) -> np.ndarray:
    """A soft roar, many small crackles, and now and then a loud snap."""
    sound = 0.05 * noise(random, band(30, 500, 0.7)) + 0.012 * noise(random, band(800, 7000))
    for at in random.uniform(0, SECONDS - 0.05, 160):
        length = int(random.uniform(0.001, 0.012) * RATE_HZ)
        burst = random.standard_normal(length) * np.exp(-np.arange(length) / (length / 4))
        added(sound, burst, at, min(1.0, 0.05 * (1 + random.pareto(1.1))))
    return sound


def helicopter(random: np.random.Generator) -> np.ndarray:
    """A rotor: thirteen thumps a second of low noise, each with a slap, over an engine's hum and hiss."""
    time = seconds()
    phase: np.ndarray = (13 * time) % 1
    thump = np.exp(-phase / 0.18) - np.exp(-phase / 0.03)
    thump /= thump.max()
    sound = (0.15 + thump) * noise(random, band(40, 260, 0.3))
    sound += (0.08 + 0.6 * thump**2) * noise(random, band(200, 1200, 1.2))
    for number in range(1, 9):
        sound += 0.25 / number * np.sin(2 * np.pi * 26 * number * time + random.uniform(0, 6)) * (0.5 + thump)
    return sound + 0.03 * np.sin(2 * np.pi * 1250 * time) + 0.02 * noise(random, band(800, 6000, 0.5))


def chainsaw(random: np.random.Generator) -> np.ndarray:
    """A two-stroke engine that revs up, cuts and strains: a harsh comb of harmonics, and noise at every firing."""
    rev = curve(LENGTH, (0, 70), (0.08, 75), (0.16, 165), (0.3, 150), (0.55, 140), (0.62, 170), (0.9, 155), (1, 90))
    rev = rev * (1 + 0.02 * noise(random, band(1, 12)))
    phase = 2 * np.pi * np.cumsum(rev) / RATE_HZ
    sound = np.zeros(LENGTH)
    for number in range(1, 45):
        at = number * rev
        loud = number**-0.4 * (0.35 + 1 / (1 + ((at - 1100) / 700) ** 2) + 0.8 / (1 + ((at - 3200) / 1200) ** 2))
        sound += loud * (at < 7400) * np.sin(number * phase + random.uniform(0, 6))
    firing = np.exp(-(((phase / (2 * np.pi)) % 1) / 0.25))
    return sound / sound.std() + 1.1 * firing * noise(random, band(500, 7000, 0.2))


def rooster(random: np.random.Generator) -> np.ndarray:
    """Cock-a-doodle-doo: three short calls and a long one that climbs, holds and falls, throat wide open."""
    sound = 0.003 * noise(random, band(100, 5000, 0.4))
    calls = (
        (0.30, 0.16, ((0, 480), (0.4, 640), (1, 560)), 0.5),
        (0.52, 0.20, ((0, 620), (0.5, 820), (1, 760)), 0.8),
        (0.78, 0.26, ((0, 740), (0.4, 900), (1, 820)), 0.9),
        (1.12, 1.15, ((0, 700), (0.15, 960), (0.5, 930), (0.8, 760), (1, 480)), 1.0),
    )
    for at, length_s, pitch, gain in calls:
        length = int(length_s * RATE_HZ)
        call = voiced(curve(length, *pitch), ((1150, 350, 0.8), (2300, 500, 1.0), (3600, 700, 0.6)), 0.2, random)
        call += 0.05 * noise(random, band(1000, 6000), length)
        added(sound, call * curve(length, (0, 0), (0.08, 1), (0.75, 0.9), (1, 0)), at, gain)
    return sound


def barking_dog(random: np.random.Generator) -> np.ndarray:
    """Woof, woof: a pitch that jumps up and falls within a sixth of a second, a little hoarse, and then nothing."""
    sound = np.zeros(LENGTH)
    for at, gain in ((0.1, 1.0), (0.55, 0.9), (1.6, 1.0), (2.05, 0.85)):
        length = int(random.uniform(0.16, 0.2) * RATE_HZ)
        pitch = curve(length, (0, 400), (0.25, 740), (0.6, 620), (1, 310)) * random.uniform(0.95, 1.05)
        bark = voiced(pitch, ((750, 300, 1.0), (1500, 400, 0.8), (2700, 700, 0.35)), 0.3, random)
        bark += 0.08 * noise(random, band(500, 4500, 0.4), length)
        bark *= curve(length, (0, 0), (0.06, 1), (0.4, 0.8), (1, 0))
        added(sound, bark, at, gain)
        for echo, late in ((0.12, 0.05), (0.06, 0.11), (0.03, 0.19)):
            added(sound, bark, at + late, gain * echo)
    return sound


def sneeze(random: np.random.Generator) -> np.ndarray:
    """Ah - tchoo: a breath in that rises, a burst of air through the teeth, and a voice that falls behind it."""
    sound = 0.001 * noise(random, band(100, 3000))
    length = int(0.55 * RATE_HZ)
    breath = noise(random, band(700, 3500, 0.3), length) * curve(length, (0, 0), (0.7, 0.12), (1, 0.02))
    added(sound, breath, 0.1)
    length = int(0.12 * RATE_HZ)
    burst = noise(random, band(2200, 7600), length) * curve(length, (0, 0), (0.04, 1), (0.5, 0.8), (1, 0.25))
    added(sound, burst, 0.72, 0.5)
    length = int(0.3 * RATE_HZ)
    voice = voiced(curve(length, (0, 420), (0.3, 330), (1, 190)), ((450, 200, 1), (1300, 400, 0.6)), 0.5, random)
    voice += 0.25 * noise(random, band(600, 5000, 0.3), length)
    added(sound, voice * curve(length, (0, 0), (0.1, 1), (0.5, 0.5), (1, 0)), 0.8, 0.9)
    return sound


def crying_baby(random: np.random.Generator) -> np.ndarray:
    """Four cries on a trembling pitch that rises and falls, with a gasp between them."""
    sound = 0.002 * noise(random, band(100, 4000, 0.3))
    for at, length_s in ((0.1, 0.95), (1.3, 1.1), (2.65, 0.9), (3.8, 1.05)):
        length = int(length_s * RATE_HZ)
        tremble = 1 + 0.025 * np.sin(2 * np.pi * 6.5 * np.arange(length) / RATE_HZ)
        pitch = curve(length, (0, 390), (0.2, 490), (0.6, 470), (1, 360)) * tremble * random.uniform(0.96, 1.05)
        cry = voiced(pitch, ((1050, 350, 1.0), (2900, 600, 0.7), (4200, 800, 0.4)), 0.25, random)
        cry += 0.04 * noise(random, band(1000, 6000), length)
        added(sound, cry * curve(length, (0, 0), (0.1, 1), (0.8, 0.8), (1, 0)), at)
        gasp = int(0.16 * RATE_HZ)
        added(sound, noise(random, band(800, 4000), gasp) * np.hanning(gasp), at + length_s + 0.04, 0.06)
    return sound


# All that the demo has; what the shipped model does not name is left out of this table.
SOUNDS = (
    DemoSound("rooster", "a rooster", rooster),
    DemoSound("barking dog", "a dog", barking_dog),
    DemoSound("ticking clock", "a clock", ticking_clock),
    DemoSound("helicopter", "a helicopter", helicopter),
    DemoSound("chainsaw", "a chainsaw", chainsaw),
    DemoSound("sea waves", "sea waves", sea_waves),
    DemoSound("rain", "rain", rain),
    DemoSound("crackling fire", "a fire", crackling_fire),
    DemoSound("crying baby", "a baby", crying_baby),
    DemoSound("sneeze", "a person sneezing", sneeze),
    *(DemoSound(word, word, shown=word in ("two", "seven")) for word in DIGITS),
)


def demo_sound(name: str) -> Waveform:
    """A sound by its name."""
    by_name = {one.name: one for one in SOUNDS}
    if name not in by_name:
        raise ValueError(f"there is no demo sound {name!r}: there are {', '.join(by_name)}")
    return by_name[name].waveform()
