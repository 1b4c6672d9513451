"""Spoken captions for the small world's pictures: said by voices of a free synthesiser, in noise, written down with
errors.

    pip install espeakng-loader==0.2.4 soxr
    python benchmarks/spoken_captions.py --data PACKS --out runs/spoken

Pictures are those of the packs' variant `open`, each with a caption of its own wording. Voices of the test part, and
its pictures, are not in the training part. Writes `metadata.csv` (a table that `unibrivl.data.load` takes), sounds,
pictures, and transcripts. These are the captions with words exchanged, left out and put in, more of them in louder
noise (`RATES`). With `--asr pocketsphinx` (pip install pocketsphinx==5.1.1) they are a real recogniser's with its own
general language model: it gets nine words of ten wrong of these voices, and takes two seconds a caption. A second call
with the same arguments goes on where the first was stopped.

The folder holds copies of the packs' pictures: keep it to yourself.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from speaker import Speaker
from tqdm import tqdm

from unibrivl.data.transcripts import Transcript, TranscriptFile, file_for, the_transcripts
from unibrivl.embedder.transcribe import transcribe_files
from unibrivl.metrics import word_error_rate
from unibrivl.training.recipes.small_world import SmallWorld, SmallWorldData, pixels_of, texts_of

RATE_HZ = 16_000
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-us-nyc", "en-gb-x-gbcwmd")
VOICES = {"train": ("m1", "m2", "m3", "m4", "m5", "f1", "f2", "f3"), "test": ("m6", "m7", "f4", "f5")}
OPENINGS = ("", "", "this is ", "here is ", "I see ", "look, ", "there is ", "it shows ")
RATES = (0.75, 0.1)  # chance of an error in a word, at the lowest and the highest ratio of speech to noise
STRANGE = (
    "the and that what where when lovely today have given thought coffee machine why haven't three right into with "
    "for was other great people house later never again little money paper garden window morning water street"
).split()
FIELDS = ("id", "audio", "image", "text", "label", "split", "voice", "snr_db")


class PocketSphinx:
    """The recogniser as something that `transcribe_files` asks."""

    sampling_rate, batch_size = RATE_HZ, 16

    def __init__(self) -> None:
        module = importlib.import_module("pocketsphinx")
        self.settings = {"asr_model": "pocketsphinx", "asr_revision": version_of(module), "language": "en-us"}
        self.decoder = module.Decoder(samprate=float(RATE_HZ), loglevel="FATAL")

    def __call__(self, clips: Sequence[np.ndarray]) -> list[str]:
        return [self.write(clip) for clip in clips]

    def write(self, clip: np.ndarray) -> str:
        self.decoder.start_utt()
        self.decoder.process_raw((np.clip(clip, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        self.decoder.end_utt()
        found = self.decoder.hyp()
        return "" if found is None else found.hypstr


def version_of(module: Any) -> str:
    from importlib.metadata import version

    return version(module.__name__)


def in_noise(clip_S: np.ndarray, snr_db: float, chance: np.random.Generator) -> np.ndarray:
    """With noise of a room's colour, whose power falls with frequency, before and behind too."""
    padded_S = np.pad(clip_S, tuple(int(chance.uniform(0.05, 0.4) * RATE_HZ) for _ in range(2)))
    white = np.fft.rfft(chance.standard_normal(len(padded_S)))
    noise_S = np.fft.irfft(white / np.sqrt(np.arange(1, len(white) + 1)), len(padded_S))
    level = np.sqrt((clip_S**2).mean() / (noise_S**2).mean() / 10 ** (snr_db / 10))
    mixed_S = padded_S + level * noise_S
    return (0.5 * mixed_S / np.abs(mixed_S).max()).astype(np.float32)


def captions(world: SmallWorld, part: str, each: int, most: int, chance: np.random.Generator) -> list[tuple]:
    """(picture, text), every picture `each` times, at most `most` pictures of a label and kind."""
    counts: dict[tuple[str, str], int] = {}
    found = []
    pictures = world.pictures(part)  # type: ignore[arg-type]
    for place in chance.permutation(len(pictures)):
        one = pictures[int(place)]
        key = one.kind, one.label
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= most:
            texts = texts_of(one.kind, one.label)
            found += [(one, OPENINGS[chance.integers(len(OPENINGS))] + texts[chance.integers(len(texts))])
                      for _ in range(each)]  # fmt: skip
    return found


def make(
    world: SmallWorld, out: Path, split: str, given: list[tuple], snr: tuple[float, float], speak: Speaker
) -> list:
    """The rows of one part; files that are there stay."""
    chance = np.random.default_rng([20260101, split == "test"])
    seen = dict.fromkeys(one.id for one, _ in given)
    items = {one.id: one for one, _ in given}
    pixels = pixels_of([items[name] for name in seen], f"{split} pictures")
    for folder in ("pictures", "sounds"):
        (out / folder / split).mkdir(parents=True, exist_ok=True)
    pictures = {}
    for name, picture in zip(seen, pixels, strict=True):
        pictures[name] = f"pictures/{split}/{len(pictures):05}.png"
        Image.fromarray(picture.transpose(1, 2, 0)).save(out / pictures[name])
    rows = []
    for number, (one, text) in enumerate(tqdm(given, desc=f"{split} captions")):
        voice = f"{ACCENTS[chance.integers(len(ACCENTS))]}+{VOICES[split][chance.integers(len(VOICES[split]))]}"
        how = int(chance.integers(120, 190)), int(chance.integers(25, 75)), int(chance.integers(20, 80))
        snr_db, seed = float(chance.uniform(*snr)), int(chance.integers(1 << 30))
        name = f"sounds/{split}/{number:05}.flac"
        if not (out / name).exists():
            speak.become(voice, *how)
            mixed_S = in_noise(speak(text, RATE_HZ), snr_db, np.random.default_rng(seed))
            soundfile.write(out / name, mixed_S, RATE_HZ, subtype="PCM_16", format="FLAC")
        rows.append((f"{split}-{number:05}", name, pictures[one.id], text, f"{one.kind} {one.label}", split, voice,
                     round(snr_db, 1)))  # fmt: skip
    return rows


def with_errors(rows: Sequence[tuple], snr: tuple[float, float], path: Path) -> None:
    """Transcripts of all rows, as if by a recogniser that noise disturbs."""
    settings = {"asr_model": "captions with errors", "asr_revision": None, "rates": list(RATES), "snr_db": list(snr)}
    words = sorted({word for row in rows for word in row[3].split()} | set(STRANGE))
    kept = TranscriptFile(file_for(path, settings), settings, restart=True)
    found = []
    for number, (_, audio, _, text, _, _, _, snr_db) in enumerate(rows):
        chance = np.random.default_rng([20260102, number])
        rate = float(np.interp(snr_db, snr, RATES))
        heard: list[str] = []
        for word in text.split():
            kind = chance.random() / rate  # below 1 it is an error
            other = words[chance.integers(len(words))]
            heard += [other] if kind < 0.6 else [] if kind < 0.85 else [word, other] if kind < 1 else [word]
        look = os.stat(path / audio)
        found.append(Transcript(audio, " ".join(heard), look.st_size, look.st_mtime_ns))
    kept.add(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the packs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train-each", type=int, default=2, help="captions of a training picture")
    parser.add_argument("--most", type=int, default=40, help="training pictures of a label and kind")
    parser.add_argument("--test-most", type=int, default=12, help="test pictures of a label and kind")
    parser.add_argument("--snr", type=float, nargs=2, default=(0.0, 20.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--asr", choices=("errors", "pocketsphinx"), default="errors")
    args = parser.parse_args()
    world, speak = SmallWorld(SmallWorldData(args.data, "open")), Speaker()
    chance = np.random.default_rng(20260101)
    rows = [
        *make(world, args.out, "train", captions(world, "world", args.train_each, args.most, chance), args.snr, speak),
        *make(world, args.out, "test", captions(world, "test", 1, args.test_most, chance), args.snr, speak),
    ]
    with open(args.out / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([FIELDS, *rows])
    if args.asr == "pocketsphinx":
        transcribe_files(PocketSphinx(), args.out)
    else:
        with_errors(rows, tuple(args.snr), args.out)
    _, written = the_transcripts(args.out, "pocketsphinx" if args.asr == "pocketsphinx" else "captions with errors")
    for split in ("train", "test"):
        some = [row for row in rows if row[5] == split]
        rate = word_error_rate([row[3] for row in some], [written[row[1].replace(os.sep, "/")].text for row in some])
        pictures = len({row[2] for row in some})
        print(f"{split}: {len(some)} captions of {pictures} pictures, word error rate {rate.rate:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
