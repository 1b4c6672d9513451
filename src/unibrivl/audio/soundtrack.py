"""Soundtracks decoded by PyAV (FFmpeg): m4a, mp4, webm, and whatever soundfile does not know. Extra `video`.

FFmpeg also speaks playlists, network protocols and lists of other files. A sound that is opened here may be hostile,
so only plain containers are allowed, and they are read through our `Reader`, never by name.

Shapes: N frames of a block, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from unibrivl.audio.errors import AudioError
from unibrivl.audio.files import Reader
from unibrivl.audio.sound import Sound
from unibrivl.utils import require

# FFmpeg's demuxers that read one file and nothing else
CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,matroska,webm,mov,mp4,m4a,mp3,mpeg,mpegts,ogg,rm,tta,voc,"
    "w64,wav,wv"
)
EXACT_CONTAINERS = ("mov", "matroska")  # the length in their header was counted, not estimated from the bit rate
DURATION_SLACK_S = 0.2  # codecs pad the ends by a few frames


class Soundtrack(Sound):
    """The best audio stream of a container."""

    def __init__(self, reader: Reader) -> None:
        av = require("av", extra="video", purpose="reading it")
        self._errors = (av.FFmpegError, ValueError)  # PyAV uses both
        self.name = reader.name
        self._reader = reader
        reader.seek(0)
        try:
            self._container = av.open(
                reader, mode="r", metadata_errors="ignore", options={"format_whitelist": CONTAINERS}
            )
        except self._errors as error:
            reader.check()
            raise AudioError(_words(error), self.name) from error
        try:
            self._stream: Any = self._container.streams.best("audio")
            if self._stream is None:
                raise AudioError("it has no sound track", self.name)
            self._to_packed_float = av.AudioResampler(format="flt")
            self._frames = self._decode()
            self._first = next(self._frames, None)
            reader.check()
            if self._first is None:
                raise AudioError(self.damage or "its sound track is empty", self.name)
        except BaseException:
            self._container.close()
            raise
        self.rate_hz = self._first.sample_rate
        self.channels = self._first.layout.nb_channels
        self.container = self._container.format.name.split(",")[0]
        self.coding = self._stream.codec_context.name
        seconds = self._claimed_s()
        self.claimed_frames = None if seconds is None else int(seconds * self.rate_hz)

    def _claimed_s(self) -> float | None:
        if self.container not in EXACT_CONTAINERS:
            return None
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        if self._container.duration is not None and len(self._container.streams) == 1:
            return self._container.duration / 1_000_000
        return None

    def _decode(self) -> Iterator[Any]:
        """Frames of packed float32, whatever the codec makes.

        Packed, because PyAV looks for the planes of a frame until it finds a null pointer, and from eight channels on
        there is none: it would read what lies behind.
        """
        try:
            for frame in self._container.decode(self._stream):
                yield from self._to_packed_float.resample(frame)
            yield from self._to_packed_float.resample(None)
        except self._errors as error:
            self.damage = f"decoding broke off ({_words(error)})"

    def blocks(self, num_frames: int) -> Iterator[np.ndarray]:
        heard = 0
        pending: list[np.ndarray] = []
        num_pending = 0
        frame = self._first
        while frame is not None:
            piece_NC = frame.to_ndarray().reshape(-1, self.channels)
            heard += len(piece_NC)
            pending.append(piece_NC)
            num_pending += len(piece_NC)
            if num_pending >= num_frames:
                joined_NC = np.concatenate(pending)
                whole = num_pending - num_pending % num_frames
                for start in range(0, whole, num_frames):
                    yield joined_NC[start : start + num_frames]
                pending, num_pending = [joined_NC[whole:]], num_pending - whole
            frame = next(self._frames, None)
            self._reader.check()
        if num_pending:
            yield np.concatenate(pending)
        if self.claimed_frames is not None and not self.damage:
            missing_s = (self.claimed_frames - heard) / self.rate_hz
            if missing_s > DURATION_SLACK_S:
                self.damage = f"cut off: it ends {missing_s:.2f} s before the length in its header"

    def close(self) -> None:
        self._container.close()
        self._reader.close()


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
