"""The door of the audio layer: whatever a sound comes in, a checked `Waveform` comes out.

`load_audio` takes it whole, `read_blocks` and `read_windows` take it piece by piece in constant memory, with equal
samples. What a source may be, and how each kind is read, is decided here and nowhere else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from unibrivl.audio.arrays import array_sound, is_array
from unibrivl.audio.decode import open_encoded
from unibrivl.audio.errors import AudioError, printable
from unibrivl.audio.files import file_object_name, open_bytes, open_file_object, open_path
from unibrivl.audio.mono import MonoStream, check_limit
from unibrivl.audio.sound import Sound
from unibrivl.audio.waveform import Waveform, Window, check_rate
from unibrivl.audio.windows import cut_stream, window_sizes

HOUR_S = 3_600.0
DAY_S = 24 * HOUR_S
GIBIBYTE = 1 << 30

_KINDS = (
    "a path, bytes, a binary file object, an array or tensor with source_rate_hz=, a Waveform, an Audio value of "
    "datasets, or an http(s) address with allow_url=True"
)


def load_audio(
    source: Any,
    *,
    rate_hz: int | None = None,
    source_rate_hz: int | None = None,
    channel: str | int = "mean",
    max_duration_s: float = HOUR_S,
    max_bytes: int = GIBIBYTE,
    allow_url: bool = False,
) -> Waveform:
    """Read a sound, whatever it comes in, as mono float32.

    Files that are cut off or broken are read as far as they go; `Waveform.damage` then says so, and a warning is
    logged. Anything that cannot be used raises `AudioError` with what is wrong and what to do.

    Args:
        source: a path; the bytes of a file; a binary file object (read from its beginning); a numpy array or torch
            tensor, (samples,) or (channels, samples), floats in [-1, 1] or integers that are scaled to it; a
            `Waveform`; an Audio value of `datasets`, decoded or not; an http(s) address if `allow_url`.
        rate_hz (`int`, *optional*): resample to this rate (soxr HQ). None keeps the rate of the source.
        source_rate_hz (`int`, *optional*): the rate of an array, which has none of its own. For any other source it is
            a check: a different rate in the file raises.
        channel (`"mean"` or `int`, *optional*): average the channels, or take one, counted from 0. Channels that
            cancel each other raise rather than average to silence.
        max_duration_s (`float`, *optional*): a longer sound raises; an hour unless told otherwise.
        max_bytes (`int`, *optional*): the most that is held of a download, of a stream that cannot seek, and of
            decoded samples (4 bytes each; twice that for the moment they are joined). A gibibyte unless told
            otherwise.
        allow_url (`bool`, *optional*): fetch http(s) addresses. Off, so that a name from a stranger stays a name.

    Returns:
        `Waveform`: mono, finite, at least one sample.
    """
    max_bytes = int(min(check_limit(max_bytes, "max_bytes"), 1 << 62))
    with open_source(source, source_rate_hz=source_rate_hz, max_bytes=max_bytes, allow_url=allow_url) as sound:
        stream = MonoStream(sound, rate_hz, channel, max_duration_s)
        chunks: list[np.ndarray] = []
        num_bytes = 0
        for chunk_S in stream.chunks():
            num_bytes += chunk_S.nbytes
            if num_bytes > max_bytes:
                raise AudioError(
                    f"decoded it needs more than max_bytes={max_bytes}. Raise max_bytes, ask for a lower rate_hz, or "
                    "read it in pieces with read_blocks",
                    sound.name,
                )
            chunks.append(chunk_S)
    return Waveform(chunks[0] if len(chunks) == 1 else np.concatenate(chunks), stream.rate_hz, damage=stream.damage)


def read_blocks(
    source: Any,
    block_s: float,
    *,
    rate_hz: int | None = None,
    source_rate_hz: int | None = None,
    channel: str | int = "mean",
    max_duration_s: float = DAY_S,
    max_bytes: int = GIBIBYTE,
    allow_url: bool = False,
) -> Iterator[Window]:
    """Read a sound block by block, so that ten hours cost the memory of one block.

    The blocks one after the other are exactly the samples `load_audio` would return; the last one may be shorter, and
    carries the `damage` of the file. Nothing is opened before the first block is asked for.

    Args:
        block_s (`float`): seconds per block.
        max_duration_s (`float`, *optional*): a longer sound raises; a day unless told otherwise.
        source, rate_hz, source_rate_hz, channel, max_bytes, allow_url: as for `load_audio`. `max_bytes` bounds the
            block, and what is held of a download or of a stream that cannot seek.
    """
    return read_windows(
        source,
        block_s,
        rate_hz=rate_hz,
        source_rate_hz=source_rate_hz,
        channel=channel,
        max_duration_s=max_duration_s,
        max_bytes=max_bytes,
        allow_url=allow_url,
    )


def read_windows(
    source: Any,
    window_s: float,
    hop_s: float | None = None,
    *,
    rate_hz: int | None = None,
    source_rate_hz: int | None = None,
    channel: str | int = "mean",
    max_duration_s: float = DAY_S,
    max_bytes: int = GIBIBYTE,
    allow_url: bool = False,
) -> Iterator[Window]:
    """Read a sound as the windows `split_windows(load_audio(source), window_s, hop_s)` would give, in constant memory.

    Args:
        window_s, hop_s (`float`): as for `split_windows`.
        source, rate_hz, source_rate_hz, channel, max_duration_s, max_bytes, allow_url: as for `read_blocks`.
    """
    max_bytes = int(min(check_limit(max_bytes, "max_bytes"), 1 << 62))
    window_sizes(window_s, hop_s, 1)  # raises here, not when the first window is asked for

    def windows() -> Iterator[Window]:
        with open_source(source, source_rate_hz=source_rate_hz, max_bytes=max_bytes, allow_url=allow_url) as sound:
            stream = MonoStream(sound, rate_hz, channel, max_duration_s)
            size, hop = window_sizes(window_s, hop_s, stream.rate_hz)
            if 4 * size > max_bytes:
                raise AudioError(f"one window of {window_s:g} s needs more than max_bytes={max_bytes}", sound.name)
            yield from cut_stream(stream, size, hop)

    return windows()


@contextmanager
def open_source(
    source: Any, *, source_rate_hz: int | None = None, max_bytes: int = GIBIBYTE, allow_url: bool = False
) -> Iterator[Sound]:
    """Open anything `load_audio` takes as a `Sound`, for callers that want frames before channels are mixed."""
    if source_rate_hz is not None:
        source_rate_hz = check_rate(source_rate_hz, "source_rate_hz")
    sound = _open(source, source_rate_hz, max_bytes, allow_url)
    try:
        if source_rate_hz is not None and sound.rate_hz != source_rate_hz:
            raise AudioError(
                f"it has {sound.rate_hz} Hz of its own, and source_rate_hz={source_rate_hz} contradicts it. "
                f"To resample, pass rate_hz={source_rate_hz}",
                sound.name,
            )
        yield sound
    finally:
        sound.close()


def _open(source: Any, source_rate_hz: int | None, max_bytes: int, allow_url: bool) -> Sound:
    if isinstance(source, Waveform):
        sound = array_sound(source.samples, source.rate_hz, "the Waveform")
        sound.damage = source.damage
        return sound
    if isinstance(source, dict):
        return _open_datasets_value(source, source_rate_hz, max_bytes, allow_url)
    if isinstance(source, str):
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", source)
        if scheme and scheme[1].lower() in ("http", "https"):
            return _open_url(source, max_bytes, allow_url)
        if scheme:
            raise AudioError("only paths, http:// and https:// are followed", printable(source))
    if isinstance(source, (str, os.PathLike)):
        return open_encoded(open_path(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return open_encoded(open_bytes(source, f"{len(source)} bytes"))
    if is_array(source):
        if source_rate_hz is None:
            raise AudioError(
                "an array does not say its rate: pass source_rate_hz=, the samples per second it was recorded with",
                f"array of shape {tuple(source.shape)}",
            )
        return array_sound(source, source_rate_hz, f"array of shape {tuple(source.shape)}")
    if hasattr(source, "get_all_samples"):
        return _open_decoder(source)
    if hasattr(source, "read"):
        return open_encoded(open_file_object(source, file_object_name(source), max_bytes))
    raise AudioError(f"a sound is {_KINDS}; not {type(source).__name__}")


def _open_url(url: str, max_bytes: int, allow_url: bool) -> Sound:
    from unibrivl.audio.fetch import fetch, url_name  # here, because most programs never need an HTTP client

    if not allow_url:
        raise AudioError("addresses are not fetched unless you pass allow_url=True", url_name(url))
    return open_encoded(open_bytes(fetch(url, max_bytes), url_name(url)))


def _open_datasets_value(value: dict, source_rate_hz: int | None, max_bytes: int, allow_url: bool) -> Sound:
    """An Audio value of `datasets`: {"array", "sampling_rate"} decoded, {"bytes", "path"} with decode=False."""
    path = value.get("path")
    name = printable(path) if isinstance(path, (str, bytes, os.PathLike)) else "the Audio value"
    if value.get("array") is not None:
        rate_hz = value.get("sampling_rate")
        if rate_hz is None:
            raise AudioError('it has an "array" without its "sampling_rate"', name)
        if not is_array(value["array"]):
            raise AudioError(f'its "array" is a {type(value["array"]).__name__}, not an array', name)
        return array_sound(value["array"], check_rate(rate_hz, '"sampling_rate"', name), name)
    if value.get("bytes") is not None:
        if not isinstance(value["bytes"], (bytes, bytearray, memoryview)):
            raise AudioError(f'its "bytes" are a {type(value["bytes"]).__name__}, not bytes', name)
        return open_encoded(open_bytes(value["bytes"], name))
    if isinstance(path, (str, os.PathLike)):
        return _open(path, source_rate_hz, max_bytes, allow_url)
    raise AudioError(
        'an Audio value has "array" and "sampling_rate", or "bytes", or "path"; this dict has '
        f"{', '.join(map(repr, value)) or 'nothing'}"
    )


def _open_decoder(decoder: Any) -> Sound:
    """The decoder object that `datasets` 4 and torchcodec return: asked for its samples, never imported."""
    name = type(decoder).__name__
    try:
        decoded = decoder.get_all_samples()
        samples, rate_hz = decoded.data, decoded.sample_rate
    except Exception as error:
        raise AudioError(f"it could not decode the sound: {error or repr(error)}", name) from error
    return array_sound(samples, check_rate(rate_hz, "its sample_rate", name), name)
