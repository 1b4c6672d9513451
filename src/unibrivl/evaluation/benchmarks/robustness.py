"""How far vectors move when sounds are changed and what is heard stays the same: noise, a room, loudness, rate.

Any folder of sounds will do. Each change is made at 48 kHz in a file of 32-bit floats, so that nothing is clipped or
rounded, and the number is the mean cosine between the vectors of the changed and of the unchanged sound. Loudness is
no mere nuisance to UniBriVL, whose pictures are meant to follow it: read its curve beside the others, not as a fault.

Shapes: N clips, S samples, E numbers of a vector.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from unibrivl import data as datasets
from unibrivl.audio import Waveform, load_audio
from unibrivl.data import Listing
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import bootstrap

TITLE, PROTOCOL = "Robustness of the features", "robustness-v1"
NEEDS = ("audio",)
RATE_HZ = 48_000
GAINS_DB = (-20, -10, -6, 6, 12)
SNRS_DB = (30, 20, 10, 0)
DECAYS_S = (0.2, 0.5, 1.0)  # until the echo is 60 dB down
RATES_HZ = (8_000, 16_000, 22_050, 44_100)
Change = Callable[[np.ndarray, np.random.Generator], Waveform]


def load(folder: str | os.PathLike) -> Listing:
    return datasets.load(folder).filter(lambda one: bool(one.audio))


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    clips = [load_audio(one.audio, rate_hz=RATE_HZ).samples for one in listing]
    found = []
    with tempfile.TemporaryDirectory(prefix="unibrivl-robustness-") as folder:
        before_NE = heard(vectors, clips, unchanged, "unchanged", Path(folder), settings)
        for name, change in changes():
            after_NE = heard(vectors, clips, change, name, Path(folder), settings)
            cosine_N = (before_NE * after_NE).sum(1)
            interval = bootstrap(cosine_N, seed=0)
            found.append(Found(name, interval.value, len(clips), PROTOCOL, interval.low, interval.high, None,
                               settings.seed, {"least": float(cosine_N.min())}))  # fmt: skip
    return found


def heard(
    vectors: Vectors, clips: list[np.ndarray], change: Change, name: str, folder: Path, settings: Settings
) -> np.ndarray:
    """(N, E); the files are gone afterwards, so nothing of them is kept."""
    paths = []
    for number, clip_S in enumerate(clips):
        made = change(clip_S, np.random.default_rng([settings.seed, number]))
        path = folder / f"{number}.wav"
        soundfile.write(path, made.samples, made.rate_hz, subtype="FLOAT")
        paths.append(str(path))
    return Vectors(vectors.encoder, None, vectors.progress).of("audio", paths)


def changes() -> Iterator[tuple[str, Change]]:
    yield from ((f"cosine_gain_{one:+d}_dB", partial(louder, gain_db=one)) for one in GAINS_DB)
    yield from ((f"cosine_noise_{one}_dB", partial(noisy, snr_db=one)) for one in SNRS_DB)
    yield from ((f"cosine_echo_{one}_s", partial(in_room, decay_s=one)) for one in DECAYS_S)
    yield from ((f"cosine_rate_{one}_Hz", partial(at_rate, rate_hz=one)) for one in RATES_HZ)


def as_sound(clip_S: np.ndarray) -> Waveform:
    return Waveform(np.asarray(clip_S, dtype=np.float32), RATE_HZ)


def unchanged(clip_S: np.ndarray, chance: np.random.Generator) -> Waveform:
    return as_sound(clip_S)


def louder(clip_S: np.ndarray, chance: np.random.Generator, gain_db: float) -> Waveform:
    return as_sound(10 ** (gain_db / 20) * clip_S)


def noisy(clip_S: np.ndarray, chance: np.random.Generator, snr_db: float) -> Waveform:
    """With white noise; silence stays silent."""
    noise_S = chance.standard_normal(len(clip_S))
    return as_sound(clip_S + noise_S * np.sqrt((clip_S**2).mean() / 10 ** (snr_db / 10)))


def in_room(clip_S: np.ndarray, chance: np.random.Generator, decay_s: float) -> Waveform:
    """With noise behind it that falls by 60 dB within the decay; the sound itself is twice as loud as all of that."""
    times_R = np.arange(int(decay_s * RATE_HZ)) / RATE_HZ
    echo_R = chance.standard_normal(len(times_R)) * 10 ** (-3 * times_R / decay_s)
    echo_R[0] = 2 * np.sqrt((echo_R**2).sum())
    size = 1 << int(np.ceil(np.log2(len(clip_S) + len(echo_R))))
    mixed_S = np.fft.irfft(np.fft.rfft(clip_S, size) * np.fft.rfft(echo_R, size), size)[: len(clip_S)]
    return as_sound(mixed_S / echo_R[0])


def at_rate(clip_S: np.ndarray, chance: np.random.Generator, rate_hz: int) -> Waveform:
    return as_sound(clip_S).resample(rate_hz)
