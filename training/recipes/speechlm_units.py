"""Units of sounds: the class of every frame that SpeechLM's pre-training asks for, found without a transcript.

As HuBERT begins: frames of MFCC (or log-mel, or the hidden states of a model that was trained before) fall into
clusters by k-means, and a frame's cluster is its unit. Frames lie as those of SpeechLM's front end, 400 samples every
320, so unit t and frame t have heard the same. Units that others made (a Kaldi aligner, fairseq) come as a table.

Units are made once, by the main process, and kept in a folder that is named after the sounds and the settings.

Shapes: N frames of several clips, T frames of one, F features, K units.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from unibrivl.audio import AudioError
from unibrivl.data.records import DatasetError, Sample
from unibrivl.data.tables import read_rows

logger = logging.getLogger(__name__)

RATE_HZ, FIELD, HOP = 16_000, 400, 320  # of SpeechLM's front end
FFT_SIZE, NUM_MEL, NUM_CEPSTRA, LIFTER = 512, 40, 13, 22  # HuBERT: Kaldi's MFCC, of 40 bins here
LOWEST_POWER = 1e-10  # OURS: -100 dB, below 16 bits
FIT_FRAMES, FRAMES_OF_CLIP = 200_000, 2_000  # OURS: over an hour; one long clip is no cluster of its own
ROUNDS = 50  # OURS: k-means stops earlier, when no frame moves
BLOCK = 16_384  # frames at a time
WAIT_S = 300  # OURS: between two words of a process that waits for the units
HEAD_BYTES = 65_536  # of a file's either end, which stand for its content

Read = Callable[[Sample], np.ndarray]
Features = Callable[[np.ndarray], np.ndarray]


class Units:
    """
    Args:
        labels: of all clips one after the other, from 0.
        starts: where each clip's begin, and the end of the last.
        number (`int`): K.
        rate_hz (`int`): labels a second.
    """

    def __init__(self, labels: np.ndarray, starts: np.ndarray, number: int, rate_hz: int):
        self.labels, self.starts, self.number, self.rate_hz = labels, starts, number, rate_hz

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, clip: int) -> np.ndarray:
        return self.labels[self.starts[clip] : self.starts[clip + 1]]

    @property
    def counts(self) -> np.ndarray:
        """Labels of each clip; none where the clip could not be read."""
        return np.diff(self.starts)

    @classmethod
    def joined(cls, clips: Sequence[np.ndarray], number: int, rate_hz: int) -> Units:
        starts = np.cumsum([0, *map(len, clips)])
        return cls(np.concatenate([*clips, np.empty(0, np.int32)]).astype(np.int32), starts, number, rate_hz)

    def save(self, folder: Path, about: dict[str, Any], **arrays: np.ndarray) -> None:
        """All of it or nothing: written beside its place and renamed. Of two runs that do so the first wins."""
        partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:12]}.partial")
        try:
            self._fill(partial, about, arrays)
            os.rename(partial, folder)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            if not folder.exists():
                raise OSError(
                    f"{folder} could not be written: {error}. Make room or make it writable, or choose another folder "
                    "for the units (data.cache=FOLDER)"
                ) from error

    def _fill(self, partial: Path, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        partial.mkdir(parents=True)
        for name, array in {"labels": self.labels, "starts": self.starts, **arrays}.items():
            np.save(partial / f"{name}.npy", array)
        facts = {**about, "number": self.number, "rate_hz": self.rate_hz}
        (partial / "units.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Units:
        facts = json.loads((folder / "units.json").read_text(encoding="utf-8"))
        labels, starts = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("labels", "starts"))
        return cls(labels, np.asarray(starts), facts["number"], facts["rate_hz"])


# ---- from sound


def log_mel(samples: np.ndarray) -> np.ndarray:
    """(T, 40) of (S,) samples: frames that lie as those of SpeechLM's front end do."""
    from transformers.audio_utils import mel_filter_bank

    samples = np.pad(samples, (0, max(0, FIELD - len(samples))))
    filters_FM = mel_filter_bank(
        FFT_SIZE // 2 + 1,
        NUM_MEL,
        20.0,
        RATE_HZ / 2,
        RATE_HZ,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    ).astype(np.float32)  # HuBERT: Kaldi's bins, from 20 Hz
    frames_TS = np.lib.stride_tricks.sliding_window_view(samples, FIELD)[::HOP]
    window_S: np.ndarray = np.hanning(FIELD).astype(np.float32)
    found = []
    for start in range(0, len(frames_TS), BLOCK):
        power_TF = np.abs(np.fft.rfft(frames_TS[start : start + BLOCK] * window_S, FFT_SIZE)) ** 2
        found.append(np.log(np.maximum(power_TF.astype(np.float32) @ filters_FM, LOWEST_POWER)))
    return np.concatenate(found)


def mfcc(samples: np.ndarray) -> np.ndarray:
    """(T, 39): cepstra with their first and second differences over time."""
    mels_TM = log_mel(samples)
    order_C, bins_M = np.arange(NUM_CEPSTRA), np.arange(NUM_MEL) + 0.5
    cosines_MC = np.cos(np.pi / NUM_MEL * bins_M[:, None] * order_C) * np.sqrt(2 / NUM_MEL)
    cosines_MC[:, 0] /= np.sqrt(2)
    lifter_C = 1 + LIFTER / 2 * np.sin(np.pi * order_C / LIFTER)  # HuBERT: as Kaldi lifts them
    cepstra_TC = (mels_TM @ (cosines_MC * lifter_C)).astype(np.float32)
    first_TC = differences(cepstra_TC)
    return np.concatenate([cepstra_TC, first_TC, differences(first_TC)], 1)


def differences(rows_TC: np.ndarray) -> np.ndarray:
    """The slope over five frames, by least squares; the ends are repeated."""
    padded = np.pad(rows_TC, ((2, 2), (0, 0)), mode="edge")
    length = len(rows_TC)
    at = lambda shift: padded[2 + shift : 2 + shift + length]  # noqa: E731
    return (at(1) - at(-1) + 2 * (at(2) - at(-2))) / 10


def hidden_states(folder: str, layer: int) -> Features:
    """HuBERT's later rounds: states of a layer of a model that this recipe has trained."""
    from unibrivl.modeling import SpeechLMModel

    model = SpeechLMModel.from_pretrained(folder).eval()
    if not 0 < layer <= model.config.num_hidden_layers:
        raise ValueError(f"data.layer is {layer} and {folder} has layers 1 to {model.config.num_hidden_layers}")
    if model.config.frame_hop != HOP:
        raise ValueError(
            f"{folder} hears a frame in {model.config.frame_hop} samples and units are one in {HOP}: take a teacher "
            "of another size, such as small"
        )
    piece = 1000 * HOP  # 20 s

    @torch.no_grad()
    def features(samples: np.ndarray) -> np.ndarray:
        samples = np.pad(samples, (0, max(0, FIELD - len(samples))))
        starts = range(0, max(1, len(samples) - FIELD + 1), piece)
        pieces = [torch.from_numpy(samples[start : start + piece + FIELD - HOP])[None] for start in starts]
        return np.concatenate(
            [model(one, output_hidden_states=True).hidden_states[layer][0].numpy() for one in pieces]
        )

    return features


# ---- k-means


def nearest(rows_NF: np.ndarray, centres_KF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of each row and the squared distance to it, both (N,)."""
    which, far = [], []
    halves_K = (centres_KF**2).sum(1) / 2
    for start in range(0, len(rows_NF), BLOCK):
        block = rows_NF[start : start + BLOCK]
        scores_NK = block @ centres_KF.T - halves_K
        best = scores_NK.argmax(1)
        which.append(best)
        far.append((block**2).sum(1) - 2 * scores_NK[np.arange(len(block)), best])
    return np.concatenate(which), np.maximum(np.concatenate(far), 0)


def kmeans(rows_NF: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
    """Centres (K, F) by Lloyd's rounds from a k-means++ start. A cluster that loses its last row begins again at the
    row that is farthest from its centre."""
    if len(rows_NF) < number:
        raise ValueError(f"{len(rows_NF)} frames cannot make {number} units: lower data.num_units, or add sounds")
    chance = np.random.default_rng(seed)
    centres_KF = first_centres(rows_NF, number, chance)
    before = None
    for _ in range(ROUNDS):
        which_N, far_N = nearest(rows_NF, centres_KF)
        if before is not None and np.array_equal(which_N, before):
            break
        before = which_N
        sizes_K = np.bincount(which_N, minlength=number)
        sums_KF = np.stack([np.bincount(which_N, column, number) for column in rows_NF.T], 1)
        centres_KF = (sums_KF / np.maximum(sizes_K, 1)[:, None]).astype(np.float32)
        lost = np.flatnonzero(sizes_K == 0)
        centres_KF[lost] = rows_NF[np.argsort(-far_N, kind="stable")[: len(lost)]]
    return centres_KF


def first_centres(rows_NF: np.ndarray, number: int, chance: np.random.Generator) -> np.ndarray:
    """k-means++: each next centre is a row drawn in proportion to its squared distance from those before."""
    some = chance.permutation(len(rows_NF))[: max(20 * number, 20_000)]  # OURS: enough to start from
    rows_NF = rows_NF[some]
    chosen, far_N = [0], ((rows_NF - rows_NF[0]) ** 2).sum(1)
    while len(chosen) < number:
        total = far_N.sum(dtype=np.float64)
        share_N = far_N / total if total > 0 else np.full(len(far_N), 1 / len(far_N))
        row = min(int(np.searchsorted(np.cumsum(share_N, dtype=np.float64), chance.random())), len(rows_NF) - 1)
        chosen.append(row)
        far_N = np.minimum(far_N, ((rows_NF - rows_NF[row]) ** 2).sum(1))
    return rows_NF[chosen].copy()


def cluster(
    samples: Sequence[Sample], read: Read, features: Features, number: int, seed: int
) -> tuple[Units, np.ndarray]:
    """Units of every clip, and the centres. A clip that cannot be read has none, and is named."""
    rows, total, chance = [], 0, np.random.default_rng(seed)
    order = chance.permutation(len(samples)).tolist()
    with tqdm(total=len(samples), desc="frames for the units", unit="clip", disable=None) as bar:
        for clip in order:
            bar.update()
            found = tried(samples[clip], read, features)
            if found is None:
                continue
            picked = np.sort(chance.permutation(len(found))[:FRAMES_OF_CLIP])
            rows.append(found[picked])
            total += len(picked)
            if total >= FIT_FRAMES:
                break
    if not rows:
        raise DatasetError(f"none of the {len(samples)} sounds can be read; the first is {samples[0].audio}")
    centres_KF = kmeans(np.concatenate(rows), number, seed)
    labels, lost = [], []
    for sample in tqdm(samples, desc="units", unit="clip", disable=None):
        found = tried(sample, read, features)
        lost += [sample.audio] if found is None else []
        labels.append(np.empty(0, np.int32) if found is None else nearest(found, centres_KF)[0])
    if lost:
        logger.warning(
            "%d of %d sounds cannot be read and are left out; the first is %s", len(lost), len(samples), lost[0]
        )
    return Units.joined(labels, number, RATE_HZ // HOP), centres_KF


def tried(sample: Sample, read: Read, features: Features) -> np.ndarray | None:
    try:
        return features(read(sample)).astype(np.float32)
    except AudioError as error:
        logger.debug("%s: %s", sample.audio, error)
        return None


# ---- kept


def kept_units(folder: Path, settings: dict[str, Any], samples: Sequence[Sample], make: Callable[[], tuple]) -> Units:
    """The units in `folder` for these sounds and settings; made now, by the main process, if they are not there."""
    key = fingerprint(samples, settings)
    place = folder / key
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    if rank == 0 and not place.exists():
        units, centres_KF = make()
        units.save(place, {**settings, "clips": len(samples)}, centres=centres_KF)
    waited = 0
    while not place.exists():  # no barrier: that gives up after some minutes, and units of much sound take longer
        time.sleep(1.0)
        waited += 1
        if waited % WAIT_S == 0:
            logger.warning(
                "process %d waits for the main one to make %s. On several machines this folder has to be one they "
                "share (data.cache=FOLDER)", rank, place
            )  # fmt: skip
    return Units.load(place)


def fingerprint(samples: Sequence[Sample], settings: dict[str, Any]) -> str:
    """Of the settings and of every sound: name, part, size, and the bytes at both ends."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=12)
    for sample in samples:
        assert sample.audio is not None
        digest.update(json.dumps([sample.id, sample.start_s, sample.end_s]).encode())
        with open(sample.audio, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            digest.update(size.to_bytes(8, "little") + file.read(HEAD_BYTES))
            file.seek(max(0, size - HEAD_BYTES))
            digest.update(file.read(HEAD_BYTES))
    return digest.hexdigest()


# ---- made elsewhere


def units_from(path: str, samples: Sequence[Sample], rate_hz: int) -> tuple[Units, list[int]]:
    """Units of a table, and the samples that it has units for.

    Args:
        path: fairseq's `.km`, a line of whole numbers a clip, with the `.tsv` of the same clips beside it; or a table
            (.csv, .tsv, .jsonl, .parquet) with the columns `id` (or `file_name`) and `units`, numbers with spaces.
        rate_hz: labels a second.
    """
    named = of_km(path) if path.endswith(".km") else of_table(path)
    found: dict[int, np.ndarray] = {}
    for clip, sample in enumerate(samples):
        for name in names_of(sample):
            if name in named:
                found[clip] = named[name]
                break
    if not found:
        raise DatasetError(
            f"{path} has units of {len(named)} clips, {next(iter(named), 'none')} first, and none of these sounds, "
            f"{samples[0].id} first. Clips are found by id, by path, or by file name without folder and suffix"
        )
    if len(found) < len(samples):
        logger.warning("%s has units of %d of %d sounds; the others are left out", path, len(found), len(samples))
    number = 1 + max(int(labels.max()) for labels in found.values() if len(labels))
    return Units.joined(list(found.values()), number, rate_hz), list(found)


def names_of(sample: Sample) -> list[str]:
    path = os.path.normpath(sample.audio or "")
    parts = path.split(os.sep)
    tails = ["/".join(parts[-depth:]) for depth in range(len(parts), 0, -1)]
    return [sample.id, *tails, *(os.path.splitext(tail)[0] for tail in tails)]


def of_km(path: str) -> dict[str, np.ndarray]:
    beside = os.path.splitext(path)[0] + ".tsv"
    if not os.path.exists(beside):
        raise DatasetError(
            f"{path} has no names: {beside} must list its clips, a root and then PATH<tab>SAMPLES a line"
        )
    with open(beside, encoding="utf-8") as file:
        _, *lines = (line.rstrip("\n") for line in file)
    paths = [line.split("\t")[0] for line in lines if line]
    with open(path, encoding="utf-8") as file:
        rows = [whole_numbers(f"{path}, line {number}", line) for number, line in enumerate(file, 1)]
    if len(paths) != len(rows):
        raise DatasetError(
            f"{beside} lists {len(paths)} clips and {path} has {len(rows)} lines: they must be of one run"
        )
    return dict(zip(paths, rows, strict=True))


def of_table(path: str) -> dict[str, np.ndarray]:
    found = {}
    for number, row in enumerate(read_rows(path, ("units",)), 1):
        name = row.get("id") or row.get("file_name")
        if not name:
            raise DatasetError(f"{path}, row {number} names no clip: it needs a column id or file_name")
        found[str(name)] = whole_numbers(f"{path}, row {number}", row["units"])
    return found


def whole_numbers(where: str, value: Any) -> np.ndarray:
    try:
        numbers = np.array(value.split() if isinstance(value, str) else value, dtype=np.int32)
    except ValueError as error:
        raise DatasetError(f"{where}: units are whole numbers with spaces between them ({error})") from error
    if numbers.size and numbers.min() < 0:
        raise DatasetError(f"{where}: units count from 0, and there is {numbers.min()}")
    return numbers
