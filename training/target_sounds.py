"""Cached sounds: what a frozen sound tower makes of each is kept too, frame by frame, so that only what trains runs.

    sounds = TargetCache("cache", sound_tower(model, processor))
    sounds.prepare(excerpts)                     # parts of files, see `beginning`
    frames = sounds.block(excerpts[0])           # (T, W), of the model's audio_frames

The average over a tower's layers trains with the head, so all layers of a frame are kept: for SpeechLM Base 50 frames
a second of 12 layers of 768 numbers, 1.84 MB a second of sound in float32. Without a layer mix it is a twelfth.

A sound passes through the tower alone, without padding. A live run may pad it, which changes nothing where the tower
knows what is padding; `check_padding` asks those that may not.

Shapes: S samples, B batch, T frames, W numbers that are kept of a frame.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from unibrivl.audio import load_part
from unibrivl.audio.io import open_source
from unibrivl.data import DatasetError, Sample
from unibrivl.hub.fingerprint import fingerprint
from unibrivl.training.config import ConfigError
from unibrivl.training.target_cache import FORMAT, Excerpt, TargetCache, Tower, usual_device

logger = logging.getLogger(__name__)

KINDS = {"float32": "F32", "float16": "F16"}
WIDTHS = {"float32": 4, "float16": 2}  # bytes
ALIKE = 1e-3  # OURS: of the largest number; a tower that minds its padding differs by some 0.1, rounding by 1e-6


def beginning(one: Sample, rate_hz: int, seconds: float) -> Excerpt:
    """The first `seconds` of what a sample means of its file."""
    assert one.audio is not None, "a pair has a sound"
    first = round((one.start_s or 0.0) * rate_hz)
    stop = first + max(1, round(seconds * rate_hz))
    return Excerpt(one.audio, first, stop if one.end_s is None else min(stop, round(one.end_s * rate_hz)))


def exact_seconds(path: str) -> float | None:
    """How long a sound is, where its header can be trusted; None where only decoding would tell."""
    with open_source(path) as sound:
        if sound.claimed_frames is None or sound.damage or not sound.can_jump:
            return None
        return sound.claimed_frames / sound.rate_hz


def sound_tower(
    model: Any,
    processor: Any,
    kept_in: Literal["float32", "float16"] = "float32",
    device: torch.device | str | None = None,
) -> Tower:
    """The sound tower of a `UniBriVLModel`, as it is now: Excerpt -> (T, W).

    Args:
        model: its language tower's `tower_frames` is asked.
        processor: a `UniBriVLProcessor`.
        kept_in: "float16" halves what is kept, and moves it by up to 1 / 2048 of itself.
        device (*optional*): where to compute; a GPU if there is one.
    """
    check_frozen(model)
    rate_hz, width = processor.feature_extractor.sampling_rate, width_of(model)
    settings = {"kind": "sounds", "format": FORMAT, "width": width, "numbers": kept_in, "rate_hz": rate_hz}
    place = torch.device(device) if device is not None else usual_device()

    def read(excerpt: Excerpt) -> np.ndarray:
        return load_part(excerpt.path, excerpt.first / rate_hz, excerpt.stop / rate_hz, rate_hz=rate_hz).samples

    def embed(sounds: list[np.ndarray], seeds: list[int] | None) -> list[np.ndarray]:
        return [heard(model, processor, [samples_S], place)[0] for samples_S in sounds]

    return Tower(
        fingerprint(model.audio_model.tower, {"feature_extractor": processor.feature_extractor}, settings),
        width,
        read,
        embed,
        kind=KINDS[kept_in],
    )


def check_frozen(model: Any) -> None:
    if not (model.config.freeze_audio_tower or model.config.freeze_audio_model):
        raise ConfigError(
            "the sound tower trains, so what it says changes: set adapter.method=head, which leaves it as it is, or "
            "data.cache_sounds=false"
        )


def width_of(model: Any) -> int:
    """W: the tower's width, times its layers where they are averaged."""
    mix = model.audio_model.layer_mix
    return model.audio_model.frame_projection.in_features * (1 if mix is None else len(mix.logits))


@torch.no_grad()
def heard(model: Any, processor: Any, sounds: list[np.ndarray], place: torch.device) -> list[np.ndarray]:
    """What the tower makes of a batch of sounds: the real frames of each, (T, W)."""
    tower, rate_hz = model.audio_model.tower, processor.feature_extractor.sampling_rate
    tower.eval().to(place)  # frozen, it is in eval mode for good, and the run will want it there
    batch = {name: value.to(place) for name, value in
             processor(audio=sounds, sampling_rate=rate_hz, return_tensors="pt").items()}  # fmt: skip
    frames_BTW, mask_BT = model.audio_model.tower_frames(**batch)
    frames_BTW = frames_BTW.float().cpu()
    if mask_BT is None:
        return list(frames_BTW.numpy())
    return [frames_TW[real_T].numpy() for frames_TW, real_T in zip(frames_BTW, mask_BT.cpu().bool(), strict=True)]


def check_padding(model: Any, processor: Any, excerpts: Sequence[Excerpt], seconds: Sequence[float | None]) -> None:
    """Refuse sounds of unlike length where a live run's padding would change what the tower says of them.

    Args:
        seconds: how long each is, see `seconds_of`; None where that is not known.
    """
    if len(set(seconds)) < 2 and None not in seconds:
        return
    rate_hz, chance = processor.feature_extractor.sampling_rate, np.random.default_rng(0)
    long_S = chance.uniform(-0.5, 0.5, rate_hz // 2).astype(np.float32)
    short_S, place = long_S[: len(long_S) * 2 // 3], usual_device()
    (alone,), (_, beside) = (heard(model, processor, sounds, place) for sounds in ([short_S], [long_S, short_S]))
    apart = np.abs(alone - beside[: len(alone)]).max() if len(beside) >= len(alone) else np.inf
    if len(beside) != len(alone) or apart > ALIKE * np.abs(alone).max():
        raise ConfigError(
            f"the sounds are of unlike length, and this {model.config.audio_config.model_type} tower hears the "
            "padding of shorter ones, so what it says depends on what shares the batch: set data.cache_sounds=false, "
            "or data.seconds to the length of the shortest"
        )


def seconds_of(excerpts: Sequence[Excerpt], rate_hz: int) -> list[float | None]:
    """How long each is, by its file's header; None where only decoding would tell."""

    def length(excerpt: Excerpt) -> float | None:
        try:
            whole = exact_seconds(excerpt.path)
        except (ValueError, OSError):  # named when it is read
            return None
        return None if whole is None else max(0.0, min(whole, excerpt.stop / rate_hz) - excerpt.first / rate_hz)

    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="unibrivl-length") as pool:
        return list(pool.map(length, excerpts))


@dataclass(frozen=True)
class Need:
    """Room on the disk for cached sounds.

    Args:
        number: of sounds.
        seconds: of all of them, at most.
        total, a_second: bytes; the latter of one more second of a sound.
    """

    number: int
    seconds: float
    total: int
    a_second: int

    def __str__(self) -> str:
        return (
            f"cached sounds: {self.total / 10**9:,.3f} GB on the disk at most, for {self.number:,} sounds of "
            f"{self.seconds:,.0f} s ({self.a_second / 10**6:.2f} MB a second)"
        )


def need(
    model: Any, processor: Any, excerpts: Sequence[Excerpt], seconds: Sequence[float | None], kept_in: str
) -> Need:
    """What these sounds will take. The tower hears one and two seconds, to count their frames."""
    rate_hz, place = processor.feature_extractor.sampling_rate, usual_device()
    one, two = (
        len(heard(model, processor, [np.full(length * rate_hz, 0.5, np.float32)], place)[0]) for length in (1, 2)
    )
    lengths = [
        (excerpt.stop - excerpt.first) / rate_hz if known is None else known
        for excerpt, known in zip(excerpts, seconds, strict=True)
    ]
    frames = sum(max(1, round(one + (two - one) * (length - 1))) for length in lengths)
    a_frame = width_of(model) * WIDTHS[kept_in]
    return Need(len(lengths), sum(lengths), frames * a_frame, (two - one) * a_frame)


def check_room(needed: Need, cache: TargetCache) -> None:
    """Before hours are spent on filling a disk."""
    place = cache.root.absolute()
    while not place.exists():
        place = place.parent
    cache.parts.refresh()
    missing, free = needed.total - cache.parts.num_bytes, shutil.disk_usage(place).free
    if missing > free:
        raise DatasetError(
            f"{needed}, and {place} has {free / 10**9:,.3f} GB: choose another folder (data.cache=FOLDER), shorter "
            "parts of sounds (data.seconds), half the numbers' size (data.cached_sounds_in=float16), or "
            "data.cache_sounds=false"
        )
