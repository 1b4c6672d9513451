"""What the first and last bytes of a sound file say that decoders keep to themselves.

libsndfile reads a file that was cut off as if it were merely short, hears only the first of two files glued together,
and takes a WAV header that was never finished (its size field still 0) for an empty sound. `outline` looks for these
before decoding, with a few small reads; it decodes nothing and trusts no size it finds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from unibrivl.audio.files import Reader

HEAD_BYTES = 65_536
SLACK_BYTES = 64  # writers miscount by a header or a pad byte; that is no damage
MP3_SLACK_BYTES = 4_096  # encoders may leave their last frames uncounted
OGG_PAGE_BYTES = 65_307  # the largest page there can be
_MOST_CHUNKS = 1_000


@dataclass(frozen=True)
class Outline:
    """What is known before decoding.

    Args:
        damage (`str`): what is wrong with the file, although it may be read.
        more_follows (`bool`): soundfile would stop before the end of the sound; PyAV would not.
        patch (`tuple`, *optional*): (position, bytes) that mend the header for libsndfile.
        exact_length (`bool`): the length libsndfile will report was written down, not estimated.
    """

    damage: str = ""
    more_follows: bool = False
    patch: tuple[int, bytes] | None = None
    exact_length: bool = True


def outline(reader: Reader) -> Outline:
    """Look at the edges of an encoded file."""
    head = reader.read_at(0, 16)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return _wav(reader, head[:4])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _aiff(reader)
    if head[:4] == b".snd":
        start, declared = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8))
        return Outline(_missing(declared, reader.size - start) if declared != 0xFFFFFFFF else "")
    if head[:4] == b"OggS":
        return _ogg(reader)
    if head[:3] == b"ID3" or (head[:1] == b"\xff" and len(head) > 1 and head[1] >= 0xE0):
        return _mp3(reader)
    return Outline()


def _missing(declared: int, present: int) -> str:
    if declared <= present + SLACK_BYTES:
        return ""
    return f"cut off: its header declares {declared} bytes of sound and {max(present, 0)} are there"


def _wav(reader: Reader, magic: bytes) -> Outline:
    order: Literal["big", "little"] = "big" if magic == b"RIFX" else "little"
    position, size_of_64 = 12, 0
    for _ in range(_MOST_CHUNKS):
        header = reader.read_at(position, 8)
        if len(header) < 8:
            return Outline()  # no data chunk: libsndfile says so
        kind, declared = header[:4], int.from_bytes(header[4:], order)
        if kind == b"data":
            break
        if kind == b"ds64":
            size_of_64 = int.from_bytes(reader.read_at(position + 16, 8), "little")
        position += 8 + declared + declared % 2
    else:
        return Outline()
    start = position + 8
    present = reader.size - start
    if magic == b"RF64" and declared == 0xFFFFFFFF:
        return Outline(_missing(size_of_64, present))
    if declared == 0 and present > SLACK_BYTES and not _is_chunk_or_tag(reader, start):
        damage = "its header was never finished (it declares 0 bytes of sound); all that follows is read"
        return Outline(damage, patch=(position + 4, min(present, 0xFFFFFFFF).to_bytes(4, order)))
    unknown = declared >= 0xFFFFFF00 or 0x7FFFF000 <= declared <= 0x7FFFFFFF  # "to the end", say streaming writers
    if not unknown and (damage := _missing(declared, present)):
        return Outline(damage)
    rest = present - declared - (0 if unknown else declared % 2)
    if rest > SLACK_BYTES and (unknown or not _is_chunk_or_tag(reader, reader.size - rest)):
        words = f"{rest} bytes follow the sound its header declares, and may be sound too"
        return Outline(words, more_follows=declared >= 0xFFFFFF00)  # PyAV takes this for "to the end", and no other
    return Outline()


def _is_chunk_or_tag(reader: Reader, position: int) -> bool:
    """Whether what stands at `position` is metadata or padding rather than samples."""
    header = reader.read_at(position, 8)
    if header[:3] in (b"ID3", b"TAG", b"APE") or not any(header):
        return True
    size = int.from_bytes(header[4:], "little")
    return re.fullmatch(rb"[ -~]{4}", header[:4]) is not None and size <= reader.size - position


def _aiff(reader: Reader) -> Outline:
    position = 12
    for _ in range(_MOST_CHUNKS):
        header = reader.read_at(position, 8)
        if len(header) < 8:
            break
        declared = int.from_bytes(header[4:], "big")
        if header[:4] == b"SSND":
            return Outline(_missing(declared, reader.size - position - 8))
        position += 8 + declared + declared % 2
    return Outline()


def _ogg(reader: Reader) -> Outline:
    serials = set()
    position = 0
    for _ in range(_MOST_CHUNKS):
        page = reader.read_at(position, 282)
        if page[:4] != b"OggS" or len(page) < 28 or not page[5] & 2:  # 2: first page of a stream
            break
        serials.add(page[14:18])
        position += _page_bytes(page)
    tail_start = max(0, reader.size - OGG_PAGE_BYTES)
    tail = reader.read_at(tail_start, OGG_PAGE_BYTES)
    at = tail.rfind(b"OggS\x00")
    if at < 0:
        return Outline("cut off: its last page is missing")
    page = tail[at:]
    if len(page) < 27 or len(page) < _page_bytes(page) or not page[5] & 4:  # 4: last page of its stream
        return Outline("cut off: its last page is missing")
    if page[14:18] not in serials:
        return Outline("several streams one after the other; only the first is heard", more_follows=True)
    return Outline()


def _page_bytes(page: bytes) -> int:
    num_segments = page[26]
    return 27 + num_segments + sum(page[27 : 27 + num_segments])


def _mp3(reader: Reader) -> Outline:
    head = reader.read_at(0, 10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    first_frame = reader.read_at(start, 256)
    if first_frame[:4] in (b"RIFF", b"fLaC", b"OggS"):  # a tag in front of something else
        return Outline()
    at = max(first_frame.find(b"Xing"), first_frame.find(b"Info"))
    if at < 0 or len(first_frame) < at + 16:
        return Outline(exact_length=False)
    flags = int.from_bytes(first_frame[at + 4 : at + 8], "big")
    if not flags & 1:  # no number of frames
        return Outline(exact_length=False)
    declared = int.from_bytes(first_frame[at + 12 : at + 16], "big") if flags & 2 else 0
    rest = reader.size - start - declared
    if declared and rest > MP3_SLACK_BYTES and _mpeg_sync(reader, start + declared):
        return Outline(f"{rest} bytes follow the stream its header counts, and may be sound too", more_follows=True)
    return Outline()


def _mpeg_sync(reader: Reader, position: int) -> bool:
    """Whether another MP3 begins at `position`, or behind the 128-byte tag that may end the first."""
    begins = (reader.read_at(position + skip, 3) for skip in (0, 128))
    return any(begin == b"ID3" or re.match(rb"\xff[\xe2-\xff]", begin) is not None for begin in begins)


_MAGICS = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer (the sound itself was not downloaded: run `git lfs pull`)"),
    (b"\x93NUMPY", "a numpy array (load it with numpy.load and pass the array)"),
)


def not_a_sound(head: bytes) -> str:
    """In words, what a file is that is certainly no sound; empty when it might be one."""
    for magic, words in _MAGICS:
        if head.startswith(magic):
            return words
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    if head[:4] in (b"RIFF", b"RF64", b"FORM", b"OggS", b"fLaC", b"caff"):
        return ""
    try:
        text = head[:512].decode("utf-8", errors="strict" if len(head) < 512 else "ignore")
    except UnicodeDecodeError:
        return ""
    if not text or not all(char.isprintable() or char in "\r\n\t" for char in text):
        return ""
    if re.match(r"\s*<(!doctype html|html|\?xml)", text, re.IGNORECASE):
        return "a web page (perhaps the error page of a download)"
    return "text"
