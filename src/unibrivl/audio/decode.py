"""Encoded files as open sounds: soundfile first, PyAV for what it cannot hear.

soundfile (libsndfile) reads WAV, FLAC, OGG, Opus, MP3, AIFF, CAF, AU, W64 and more, and is always installed. PyAV
reads m4a, mp4, webm and the soundtracks of videos, and comes with the extra `video`. Damaged files are read as far as
they go, and say so in `Sound.damage`.

Shapes: N frames of a block, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soundfile

from unibrivl.audio.container import HEAD_BYTES, Outline, not_a_sound, outline
from unibrivl.audio.errors import AudioError, SeekError
from unibrivl.audio.files import Reader
from unibrivl.audio.sound import Sound
from unibrivl.audio.soundtrack import Soundtrack
from unibrivl.audio.waveform import check_rate

UNKNOWN_FRAMES = 2**62  # libsndfile's "as many as there are" is just below 2**63
# An MP3 that does not count its frames: libsndfile guesses their number from the size of the first ones and of the
# file, and stops there, early when they are larger than most. A file this much longer keeps the guess beyond the end.
MP3_STRETCH = 1_000
MP3_SLACK_FRAMES = 4 * 1_152  # encoders count their own delay in different ways

# Whose frames lie where their number says
PLAIN, PLAIN_CODINGS = ("WAV", "WAVEX", "RF64", "W64", "AIFF"), ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")


class _ForwardFile(soundfile.SoundFile):
    """A SoundFile that only moves forward.

    soundfile seeks after every read to where it already is; that is slow, and makes an MP3 read in blocks differ from
    one read whole.
    """

    def seekable(self) -> bool:
        return False


class FileSound(Sound):
    """A file decoded by libsndfile."""

    def __init__(self, reader: Reader, outlined: Outline) -> None:
        self.name = reader.name
        self._reader = reader
        if outlined.patch is not None:
            reader.patch(*outlined.patch)
        if not outlined.exact_length:
            reader.stretch(MP3_STRETCH)
        reader.seek(0)
        fileno = reader.fileno
        if fileno is not None:
            reader.file.seek(0)
        self._file = _ForwardFile(reader if fileno is None else fileno, closefd=False)
        self.damage = outlined.damage
        self.rate_hz = self._file.samplerate
        self.channels = self._file.channels
        self.container, self.coding = self._file.format, self._file.subtype
        self._start = 0
        self._may_break = self.container in ("FLAC", "OGG", "MP3", "CAF")
        if outlined.exact_length and self._file.frames < UNKNOWN_FRAMES:
            self.claimed_frames = self._file.frames

    @property
    def can_jump(self) -> bool:
        exact = self.container == "FLAC" or (self.container in PLAIN and self.coding.startswith(PLAIN_CODINGS))
        return exact and self.claimed_frames is not None

    def jump(self, frame: int) -> bool:
        if not self.can_jump or frame > (self.claimed_frames or 0):
            return False
        try:
            self._file.seek(frame)
        except soundfile.SoundFileError as error:
            self._reader.check()
            raise SeekError(f"it cannot be entered in the middle ({_words(error)})", self.name) from error
        self._start = frame
        return True

    def blocks(self, num_frames: int) -> Iterator[np.ndarray]:
        block_NC: np.ndarray = np.empty((num_frames, self.channels), np.float32)
        heard = self._start
        while True:
            if self._may_break:
                block_NC.fill(np.nan)  # libsndfile reports an error instead of how far it came: this shows it
            try:
                count, broken = len(self._file.read(num_frames, out=block_NC)), False
            except soundfile.SoundFileError as error:
                self._reader.check()
                count, broken = _num_written(block_NC) if self._may_break else 0, True
                self.damage = f"decoding broke off at {(heard + count) / self.rate_hz:.2f} s ({_words(error)})"
            self._reader.check()
            heard += count
            if count:
                yield block_NC[:count]
            if broken or count < num_frames:
                break
        slack = MP3_SLACK_FRAMES if self.container == "MP3" else 0
        claimed = self.claimed_frames
        if claimed is not None and heard + slack < claimed and not self.damage:
            found_s, claimed_s = heard / self.rate_hz, claimed / self.rate_hz
            self.damage = f"cut off: it ends after {found_s:.2f} s and its header says {claimed_s:.2f} s"

    def close(self) -> None:
        self._file.close()
        self._reader.close()


def _num_written(block_NC: np.ndarray) -> int:
    unwritten = np.isnan(block_NC[:, 0])
    return int(unwritten.argmax()) if unwritten.any() else len(block_NC)


def _words(error: Exception) -> str:
    if getattr(error, "code", 0) in (7, 29):  # "not a regular file", "internal error": for MPEG streams it loses
        return "Its stream cannot be followed"
    words = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return words.removeprefix("Error : ").rstrip(".")


def open_encoded(reader: Reader) -> Sound:
    """The sound in an encoded file, or an `AudioError` that says why there is none."""
    name = reader.name
    if not reader.size:
        raise AudioError("it is empty (0 bytes)", name)
    try:
        outlined = outline(reader)
        reader.check()
        sound = _open(reader, outlined)
    except BaseException:
        reader.close()
        raise
    try:
        check_rate(sound.rate_hz, "the rate in its header", name)
    except AudioError:
        sound.close()
        raise
    return sound


def _open(reader: Reader, outlined: Outline) -> Sound:
    if outlined.more_follows:
        try:
            return Soundtrack(reader)
        except (AudioError, ImportError):
            pass  # soundfile hears the first part, and the damage says so
    try:
        return FileSound(reader, outlined)
    except (soundfile.SoundFileError, TypeError, ValueError, OverflowError) as error:
        reader.check()
        reason = _words(error)
        failure = error
    if what := not_a_sound(reader.read_at(0, HEAD_BYTES)):
        raise AudioError(f"it is not a sound but {what}", reader.name) from failure
    reader.stretch(1)
    try:
        return Soundtrack(reader)
    except ImportError as missing:
        advice = f"If it is m4a, mp4, webm or another soundtrack: {missing}"
        raise AudioError(f"it cannot be decoded (soundfile: {reason}). {advice}", reader.name) from missing
    except AudioError as second:
        both = f"soundfile: {reason}; PyAV: {second.reason}"
        raise AudioError(f"it cannot be decoded ({both}). Convert it to WAV or leave it out", reader.name) from second
