"""Sounds on their way into a matcher, for the pipelines: read, cut into windows, turned up and down, embedded.

Shapes: S samples, W windows, E numbers of an embedding.
"""

import copy
import dataclasses
import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

WINDOW_S = 10.0  # the embedder's: the length of AudioSet's clips
BATCH_SECONDS = 160.0  # OURS: sixteen windows of ten seconds go through the audio tower at once


@dataclass
class Sound:
    """
    Args:
        samples (`np.ndarray`): (S,) float32, at the matcher's rate.
        rate_hz (`int`): samples per second.
        name (`str`): of its file, without folders, or what kind of thing it came as.
        start (`int`): where it begins in the sound it was cut from, in samples.
        gain (`float`): by which it is louder than the recording, 1 for none; `samples` are with it.
    """

    samples: np.ndarray
    rate_hz: int
    name: str
    start: int = 0
    gain: float = 1.0

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate_hz

    @property
    def start_s(self) -> float:
        return self.start / self.rate_hz

    @property
    def end_s(self) -> float:
        return (self.start + len(self.samples)) / self.rate_hz

    @property
    def peak(self) -> float:
        return float(np.abs(self.samples).max())

    @property
    def hash(self) -> str:
        """Of the samples and their rate: what a receipt compares."""
        digest = hashlib.sha256(f"{self.rate_hz} Hz float32 ".encode())
        digest.update(np.ascontiguousarray(self.samples, dtype="<f4").tobytes())
        return digest.hexdigest()

    def at_gain(self, decibels: float) -> "Sound":
        factor = 10 ** (decibels / 20)
        with np.errstate(over="ignore"):
            samples = (self.samples * np.float64(factor)).astype(np.float32)
        return dataclasses.replace(self, samples=samples, gain=factor)

    def told(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": self.hash, "seconds": round(self.seconds, 6), "rate_hz": self.rate_hz}


# ---- reading


def as_sounds(matcher: Any, audio: Any, sampling_rate: int | None) -> list[Sound]:
    """One sound or a list, at the matcher's rate."""
    rate_hz = getattr(matcher, "sampling_rate", None)
    if rate_hz is None and "audio" not in getattr(matcher, "kinds", ("audio",)):
        raise ValueError(f"{getattr(matcher, 'name', 'this matcher')} hears nothing: load one with an audio tower")
    sources = [audio] if is_one(audio) else list(audio)
    if not sources:
        raise ValueError("audio= is an empty list: pass at least one sound")
    return [read(source, rate_hz, sampling_rate, number) for number, source in enumerate(sources)]


def is_one(audio: Any) -> bool:
    if isinstance(audio, (str, bytes, bytearray, memoryview, os.PathLike, dict)) or is_array(audio) or is_pair(audio):
        return True
    if any(hasattr(audio, name) for name in ("samples", "read", "get_all_samples")):
        return True
    return isinstance(audio, (list, tuple)) and bool(audio) and isinstance(audio[0], (int, float))


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "shape"))


def is_pair(value: Any) -> bool:
    """(rate, samples), as gradio and scipy have it."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], (int, np.integer))
        and (is_array(value[1]) or isinstance(value[1], list))
    )


def read(source: Any, rate_hz: int | None, sampling_rate: int | None, number: int) -> Sound:
    name = file_name(source) or f"sound {number}"
    if is_pair(source):
        sampling_rate, source = int(source[0]), np.asarray(source[1])
        if source.ndim == 2 and source.shape[0] > source.shape[1]:  # there time comes first
            source = source.T
    if isinstance(source, (list, tuple)):
        source = np.asarray(source, dtype=np.float32)
    if is_array(source) and sampling_rate is None:
        raise ValueError(
            f"{name} is an array of shape {tuple(source.shape)}, which does not say its rate: pass sampling_rate=, or "
            "(rate, array)"
        )
    samples, rate_hz = load(source, rate_hz, sampling_rate, name)
    return Sound(samples, rate_hz, name)


def file_name(source: Any) -> str:
    """The last part of a path or address: neither folders nor what follows an address are anybody's business."""
    if not isinstance(source, (str, os.PathLike)):
        return ""
    return os.path.basename(os.fspath(source).split("?")[0].replace("\\", "/").rstrip("/"))


def load(source: Any, rate_hz: int | None, sampling_rate: int | None, name: str) -> tuple[np.ndarray, int]:
    try:
        from unibrivl.audio import load_audio
    except ImportError:
        return load_alone(source, rate_hz, sampling_rate, name)
    waveform = load_audio(source, rate_hz=rate_hz, source_rate_hz=sampling_rate)
    return waveform.samples, waveform.rate_hz


def load_alone(source: Any, rate_hz: int | None, sampling_rate: int | None, name: str) -> tuple[np.ndarray, int]:
    """Without the package: samples of one channel at the matcher's own rate, or a sentence with what is missing."""
    how = "install the package, which reads files and resamples: pip install unibrivl"
    if hasattr(source, "samples") and hasattr(source, "rate_hz"):
        source, sampling_rate = source.samples, source.rate_hz
    if isinstance(source, dict) and source.get("array") is not None:
        source, sampling_rate = source["array"], source.get("sampling_rate")
    if not is_array(source):
        raise ImportError(f"{name} is no array: only arrays can be heard here. {how}")
    if rate_hz is not None and sampling_rate != rate_hz:
        raise ImportError(f"{name} has {sampling_rate} Hz and this model hears {rate_hz} Hz: resample it, or {how}")
    samples = np.asarray(source.detach().cpu().float() if hasattr(source, "detach") else source)
    if samples.dtype.kind != "f" or samples.ndim != 1 or not samples.size or not np.isfinite(samples).all():
        raise ValueError(
            f"{name} is {samples.dtype} of shape {samples.shape}: pass finite floats in -1..1 of one channel, or {how}"
        )
    return samples.astype(np.float32), int(sampling_rate or 0)


# ---- windows and embedding


def longest_window(matcher: Any) -> float:
    """Seconds of a window: the embedder's, or what the matcher hears if that is less."""
    longest = getattr(matcher, "longest_s", None)
    return WINDOW_S if longest is None else min(WINDOW_S, longest)


def split(sound: Sound, window_s: float) -> list[Sound]:
    """The windows of a sound, one after the other to its last sample, by the rule of `unibrivl.split_windows`."""
    size = max(1, int(window_s * sound.rate_hz + 0.5))
    return [
        dataclasses.replace(sound, samples=sound.samples[start : start + size], start=sound.start + start)
        for start in range(0, len(sound.samples), size)
    ]


def embed_sounds(matcher: Any, sounds: list[Sound]) -> torch.Tensor:
    """(len(sounds), E): of each sound its window's vector, or the mean of its windows' weighted by their length."""
    window_s = longest_window(matcher)
    pieces = [(number, piece) for number, sound in enumerate(sounds) for piece in split(sound, window_s)]
    found_WE = embed_pieces(matcher, [piece for _, piece in pieces])
    embeds = []
    for number in range(len(sounds)):
        mine = [place for place, (owner, _) in enumerate(pieces) if owner == number]
        vectors_WE = found_WE[mine]
        if len(mine) > 1:
            lengths_W = torch.tensor([pieces[place][1].seconds for place in mine], dtype=torch.float64)
            mean_E = (vectors_WE.double().cpu() * lengths_W[:, None]).sum(0)
            vectors_WE = torch.nn.functional.normalize(mean_E, dim=-1)[None].to(vectors_WE)
        embeds.append(vectors_WE[0])
    return torch.stack(embeds)


def embed_pieces(matcher: Any, pieces: list[Sound]) -> torch.Tensor:
    """(W, E): pieces of one length share a batch, so that no padding comes near them."""
    found: dict[int, torch.Tensor] = {}
    plain = [place for place, piece in enumerate(pieces) if piece.gain == 1]
    turned = [place for place, piece in enumerate(pieces) if piece.gain != 1]
    for group, hears in ((plain, matcher), (turned, without_normalising(matcher) if turned else matcher)):
        clips = {place: prepared(matcher, pieces[place]) for place in group}
        for batch in batches(
            {place: len(clip) for place, clip in clips.items()}, getattr(matcher, "sampling_rate", 0)
        ):
            embeds = hears.encode_audio([clips[place] for place in batch])
            found |= dict(zip(batch, embeds.float(), strict=True))
    return torch.stack([found[place] for place in range(len(pieces))])


def batches(lengths: dict[int, int], rate_hz: int | None) -> list[list[int]]:
    by_length: dict[int, list[int]] = {}
    for place, length in lengths.items():
        by_length.setdefault(length, []).append(place)
    cut = []
    for length, places in sorted(by_length.items(), reverse=True):
        size = max(1, int(BATCH_SECONDS * (rate_hz or 16000) / length))
        cut += [places[start : start + size] for start in range(0, len(places), size)]
    return cut


# ---- loudness


def normaliser(matcher: Any) -> Any:
    """The feature extractor, if it makes every clip equally loud (Wav2Vec2's, SpeechLM Large's); otherwise None.

    AST's also has `do_normalize`, which there is a fixed shift of the spectrogram: it leaves loudness alone.
    """
    extractor = getattr(getattr(matcher, "processor", None), "feature_extractor", None)
    if not getattr(extractor, "do_normalize", False) or hasattr(extractor, "num_mel_bins"):
        return None
    return extractor


def without_normalising(matcher: Any) -> Any:
    """A copy of a matcher, on the same weights, whose feature extractor leaves clips as loud as they are."""
    extractor = normaliser(matcher)
    if extractor is None:
        return matcher
    twin, twin.processor, quiet = copy.copy(matcher), copy.copy(matcher.processor), copy.copy(extractor)
    quiet.do_normalize = False
    twin.processor.feature_extractor = quiet
    return twin


def prepared(matcher: Any, piece: Sound) -> np.ndarray:
    """What is handed to the matcher: the samples; of a clip that is turned up or down and would be made as loud as
    all others, the clip as it is normalised at its own loudness, and then turned."""
    extractor = None if piece.gain == 1 else normaliser(matcher)
    if extractor is None:
        return piece.samples
    original = (piece.samples / np.float64(piece.gain)).astype(np.float32)
    original = np.pad(original, (0, max(0, getattr(matcher, "min_samples", 1) - len(original))))
    normalised = np.asarray(extractor(original, sampling_rate=piece.rate_hz, return_tensors="np")["input_values"])[0]
    return (normalised * np.float64(piece.gain)).astype(np.float32)


def shown_weight(weights: list[float]) -> float | list[float]:
    return weights[0] if len(weights) == 1 else weights


__all__ = ["Sound", "as_sounds", "embed_sounds", "longest_window", "shown_weight", "split"]
