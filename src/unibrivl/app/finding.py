"""What an index holds that is nearest to a query, ready to be shown: small pictures, and the windows of sounds.

Files are read by the paths that the index keeps, and by no other, and no URL is followed; what is shown is made from
them and has no address of its own. One that is gone or cannot be read is told as such, beside the rest.
"""

from __future__ import annotations

import io
import logging
import math
import os
import stat
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unibrivl.audio import Waveform, load_part
from unibrivl.audio.errors import printable
from unibrivl.data.pictures import open_picture
from unibrivl.data.places import INSIDE, local_file

logger = logging.getLogger(__name__)

THUMBNAIL = 256  # pixels of a picture's longer side
MOST_PLAYED_S = 30.0  # of a sound, and of its best window
PLAYED_HZ = 24_000  # enough for an ear, and half of a recording's bytes
PEAKS = 96  # columns of a drawn sound
GONE, UNREADABLE, NAMELESS = "The file is gone.", "The file cannot be read.", "There is no file of it."


@dataclass(frozen=True)
class Thing:
    """Something that was found.

    Args:
        kind (`str`): "audio", "image" or "text".
        name (`str`): what the page calls it; never a whole path.
        score (`float`): its cosine with the query.
        parts (`tuple[tuple[str, float], ...]`): each part of the query and its own cosine.
        times (`tuple[float, float]`, *optional*): begin and end of the best window of a sound, in seconds.
        content (`bytes`): a JPEG of a picture, a WAV of a sound; empty where there is a problem, and of a text.
        peaks (`tuple[float, ...]`): of a sound, column by column, 0 to 1.
        played_s (`float`): how much of a sound is in `content`.
        problem (`str`): why it cannot be shown.
    """

    kind: str
    name: str
    score: float
    parts: tuple[tuple[str, float], ...] = ()
    times: tuple[float, float] | None = None
    content: bytes = b""
    peaks: tuple[float, ...] = ()
    played_s: float = 0.0
    problem: str = ""


def thing_of(hit: Any, roots: Sequence[str]) -> Thing:
    """A hit of an index, opened.

    Args:
        roots: folders that were indexed, for names.
    """
    times = None if hit.begin_s is None or hit.end_s is None else (hit.begin_s, hit.end_s)
    told: dict[str, Any] = {"score": hit.score, "parts": hit.parts, "times": times}
    if hit.kind == "text":
        return Thing("text", hit.path, **told)
    name = name_of(hit.path, roots)
    if not os.path.isabs(hit.path):  # vectors that were added under a name: what it would be from here is chance
        return Thing(hit.kind, name, problem=NAMELESS, **told)
    try:
        shard, inside, _ = ("", "", "") if os.path.lexists(hit.path) else hit.path.rpartition(INSIDE)
        if not stat.S_ISREG(os.stat(shard if inside else hit.path).st_mode):  # a pipe there would never end
            return Thing(hit.kind, name, problem=UNREADABLE, **told)
        with local_file(hit.path) as path:
            if hit.kind == "image":
                return Thing("image", name, content=thumbnail(path), **told)
            sound = load_part(path, *part_of(times), rate_hz=PLAYED_HZ)
    except FileNotFoundError:
        return Thing(hit.kind, name, problem=GONE, **told)
    except (ValueError, OSError, MemoryError) as error:
        logger.warning("%s was found and is not shown: %s", hit.path, error)
        return Thing(hit.kind, name, problem=UNREADABLE, **told)
    played_s = len(sound.samples) / sound.rate_hz
    return Thing("audio", name, content=wav_of(sound), peaks=peaks_of(sound), played_s=played_s, **told)


def part_of(times: tuple[float, float] | None) -> tuple[float, float]:
    """What of a sound is played: its best window, or all of it, and of either not more than half a minute."""
    begin_s, end_s = times or (0.0, math.inf)
    return begin_s, min(end_s, begin_s + MOST_PLAYED_S)


def name_of(path: str, roots: Sequence[str]) -> str:
    """A path from the indexed folder on, with the folder's own name; without one the name of the file alone."""
    above = [root for root in roots if path.startswith(os.path.join(root, ""))]
    if not above:
        return printable(os.path.basename(path) or path)
    root = max(above, key=len)
    return printable(os.path.join(os.path.basename(root.rstrip(os.sep)), os.path.relpath(path, root)).lstrip(os.sep))


def thumbnail(path: str) -> bytes:
    picture = open_picture(path)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=88)
    return file.getvalue()


def wav_of(sound: Waveform) -> bytes:
    """As every browser plays it: 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sound.rate_hz)
        writer.writeframes((sound.samples.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


def peaks_of(sound: Waveform) -> tuple[float, ...]:
    """How loud it is from moment to moment, by its loudest moment."""
    columns = np.array_split(np.abs(sound.samples), min(PEAKS, len(sound.samples)))
    heights = np.array([float(column.max()) for column in columns])
    return tuple((heights / max(float(heights.max()), 1e-9)).round(3).tolist())


__all__ = ["GONE", "NAMELESS", "UNREADABLE", "Thing", "thing_of"]
