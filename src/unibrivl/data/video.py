"""One video as a sound and a picture: its soundtrack as mono FLAC, and one frame of it, cut square.

The soundtrack goes through `unibrivl.audio`, so its rules hold: nothing but the file itself is opened, and one that
breaks off is heard as far as it goes. The frame is the one that is on the screen at a moment: the middle, or one drawn
from the sample's id, so that every run and every machine takes the same.

Shapes: S samples, H x W pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from unibrivl.audio import AudioError, read_blocks
from unibrivl.audio.files import open_path
from unibrivl.audio.soundtrack import CONTAINERS
from unibrivl.utils import require

BLOCK_S = 4.0
MAX_PIXELS = 1 << 26  # 8192 x 8192: more is an attack, or a mistake
JPEG_QUALITY = 95
AFTER_S = 10.0  # a frame is looked for so long behind its moment: a track may begin late


class VideoError(ValueError):
    """A video that gives no sound or no picture; the message says why."""


def write_sound(
    video: str, target: str, rate_hz: int, start_s: float | None = None, end_s: float | None = None
) -> tuple[float, str]:
    """Write the part of the soundtrack from `start_s` to `end_s` as a 16-bit mono FLAC file.

    Returns:
        `tuple[float, str]`: seconds that were written, and what is wrong with the soundtrack, if anything.
    """
    seconds, damage = 0, ""
    try:
        with soundfile.SoundFile(target, "w", rate_hz, 1, "PCM_16", format="FLAC") as file:
            for samples_S, said in part_of(video, rate_hz, start_s or 0.0, end_s):
                file.write(samples_S)
                seconds += len(samples_S)
                damage = said
    except AudioError as error:
        silent = "it has no sound track" in error.reason  # said among what else was tried
        raise VideoError(f"no sound: {'it has no sound track' if silent else error.reason}") from error
    except soundfile.SoundFileError as error:
        raise OSError(f"{target} cannot be written: {error}. Is the disk full?") from error
    if not seconds:
        raise VideoError(f"no sound from {start_s or 0:g} s on{f': {damage}' if damage else ', it ends before'}")
    return seconds / rate_hz, damage


def part_of(video: str, rate_hz: int, start_s: float, end_s: float | None) -> Iterator[tuple[np.ndarray, str]]:
    """Pieces of a soundtrack between two moments, and the damage that is known by then."""
    first = round(start_s * rate_hz)
    last = None if end_s is None else round(end_s * rate_hz)
    for block in read_blocks(video, BLOCK_S, rate_hz=rate_hz):
        begin = max(0, first - block.start)
        end = len(block.samples) if last is None else min(len(block.samples), last - block.start)
        if begin < end:
            yield block.samples[begin:end], block.damage
        if last is not None and block.start + len(block.samples) >= last:
            return


def moment(name: str, seed: int, frame: str) -> float:
    """Where in a sample its picture is taken, as a part from 0 to 1 of its length."""
    if frame == "middle":
        return 0.5
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def pyav() -> Any:
    return require("av", extra="video", purpose="reading pictures of a video")


def write_picture(video: str, target: str, picture_format: str, at_s: float, from_s: float = 0.0) -> tuple[float, int]:
    """Write the frame that is seen at `at_s` as a square picture: what is in the middle.

    Where the pictures end before, it is the last one from `from_s` on.

    Returns:
        `tuple[float, int]`: the time of that frame, and the side of the square in pixels.
    """
    av = pyav()
    errors = (av.FFmpegError, ValueError, MemoryError)
    reader = open_path(video)
    try:
        try:
            container = av.open(reader, mode="r", metadata_errors="ignore", options={"format_whitelist": CONTAINERS})
        except errors as error:
            raise VideoError(f"cannot be opened: {words(error)}") from error
        with container:
            stream: Any = container.streams.best("video")
            if stream is None:
                raise VideoError("no picture: it has no video track")
            check_size(stream.codec_context.width, stream.codec_context.height)
            try:
                found = frame_at(container, stream, at_s)
                if found is None:
                    found = last_frame(container, stream, from_s)
                if found is None:
                    raise VideoError("no picture: not one frame can be decoded")
                check_size(found.width, found.height)
                picture = found.to_image()
            except errors as error:
                raise error if isinstance(error, VideoError) else VideoError(f"no picture: {words(error)}") from error
            seen_s = seconds_of(found, stream)
    finally:
        reader.close()
    turned = getattr(found, "rotation", 0)  # telephones film sideways and say so; PyAV tells from 14.1 on
    if turned:
        picture = picture.rotate(turned, expand=True)
    picture = centre(picture)
    if picture_format == "jpg":
        picture.save(target, "JPEG", quality=JPEG_QUALITY)
    else:
        picture.save(target, "PNG")
    return seen_s, picture.width


def centre(picture: Any) -> Any:
    """The largest square in the middle."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise VideoError(f"no picture: its frames are {width} x {height}, more than any picture needs")


def frame_at(container: Any, stream: Any, at_s: float) -> Any:
    """The last frame that begins at or before a moment, found from the key frame before it; None if there is none."""
    jump(container, stream, at_s)
    before = None
    for frame in decoded(container, stream):
        time_s = seconds_of(frame, stream)
        if time_s > at_s:
            return before or (frame if time_s <= at_s + AFTER_S else None)
        before = frame
    return before


def last_frame(container: Any, stream: Any, from_s: float) -> Any:
    """The last frame there is, looked for from a moment on and else from the beginning."""
    for start_s in sorted({from_s, 0.0}, reverse=True):
        jump(container, stream, start_s)
        kept = deque(decoded(container, stream), maxlen=1)
        if kept:
            return kept[0]
    return None


def decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Frames until the track ends or breaks off; packets that are damaged are passed over."""
    av = pyav()
    for packet in readable(container, stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        yield from frames


def readable(container: Any, stream: Any) -> Iterator[Any]:
    av = pyav()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            return
        if packet is None:
            return
        yield packet


def jump(container: Any, stream: Any, to_s: float) -> None:
    """To the key frame before a moment. What cannot seek is read from where it is, which is its beginning at first."""
    av = pyav()
    try:
        container.seek(round((to_s + start_of(stream)) / stream.time_base), stream=stream, backward=True)
    except av.FFmpegError:
        container.seek(0)


def start_of(stream: Any) -> float:
    return float((stream.start_time or 0) * stream.time_base)


def seconds_of(frame: Any, stream: Any) -> float:
    """From the beginning of its track."""
    return 0.0 if frame.pts is None else float(frame.pts * stream.time_base) - start_of(stream)


def words(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or repr(error)).rstrip(".")


def safe_name(name: str, dots: bool = True) -> str:
    """A file name for an id: its own characters where every disk takes them, with a digest behind it where not."""
    allowed = "._-" if dots else "_-"
    plain = "".join(char if char.isascii() and (char.isalnum() or char in allowed) else "_" for char in name)
    plain = plain.lstrip(".")[:120]
    if plain == name and name:
        return name
    return f"{plain}-{hashlib.blake2b(os.fsencode(name), digest_size=4).hexdigest()}"
