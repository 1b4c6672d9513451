"""Encoded bytes to read from: a path, bytes, or the caller's file object, as one `Reader` that decoders may trust.

A decoder calls back from C, where a Python exception would be printed and dropped and a reply that is too long would
overwrite memory. `Reader` stands between: it keeps what the file object raises for later, checks what it returns, and
never moves before the first byte or beyond the last.
"""

from __future__ import annotations

import io
import os
import stat
from typing import Any, BinaryIO

from unibrivl.audio.errors import AudioError, printable

_PIECE_BYTES = 1 << 20


class Reader:
    """A read-only seekable view of `file`, from its first byte to its last.

    Args:
        file: an open binary file that can seek.
        name (`str`): for messages.
    """

    def __init__(self, file: Any, name: str) -> None:
        self.file = file
        self.name = name
        self.error: BaseException | None = None
        self._position = 0
        self._patch_start, self._patch = 0, b""
        self._stretch = 1
        self.size = 0
        try:
            file.seek(0, os.SEEK_END)
            self.size = int(file.tell())
        except Exception as error:
            raise AudioError(f"the file object cannot be read: {error or error!r}", name) from error

    def patch(self, start: int, content: bytes) -> None:
        """Show `content` in place of the bytes at `start`; the file itself is not touched."""
        self._patch_start, self._patch = start, content

    def stretch(self, factor: int) -> None:
        """Let whoever seeks to the end find it `factor` times as far away; reading on ends as before."""
        self._stretch = factor

    @property
    def fileno(self) -> int | None:
        """The descriptor of a plain file, so that C may read it without asking Python; None if there is none."""
        if isinstance(self.file, io.FileIO) and not self._patch and self._stretch == 1 and os.name == "posix":
            return self.file.fileno()
        return None

    def read(self, num_bytes: int = -1) -> bytes:
        if self._position > self.size:  # in the part that is pretended: its end shows the real last bytes
            pretended = self.size * (self._stretch - 1)
            if self._position < pretended:
                return b""
            self._position -= pretended
            content = self.read(num_bytes)
            self._position += pretended
            return content
        left = max(0, self.size - self._position)
        num_bytes = left if num_bytes is None or num_bytes < 0 else min(num_bytes, left)
        if self.error is not None or not num_bytes:
            return b""
        try:
            self.file.seek(self._position)
            content = self.file.read(num_bytes)
            if not isinstance(content, bytes) or len(content) > num_bytes:
                raise AudioError(f"its read({num_bytes}) returned {_summary(content)}; open the file in binary mode")
        except BaseException as error:
            self.error = error
            return b""
        start, stop = self._patch_start - self._position, self._patch_start - self._position + len(self._patch)
        if self._patch and stop > 0 and start < len(content):
            patched = bytearray(content)
            for offset in range(max(start, 0), min(stop, len(content))):
                patched[offset] = self._patch[offset - start]
            content = bytes(patched)
        self._position += len(content)
        return content

    def read_at(self, position: int, num_bytes: int) -> bytes:
        self.seek(position)
        return self.read(num_bytes)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        end = self.size * self._stretch
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: end}[whence]
        self._position = min(max(base + offset, 0), end)
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def check(self) -> None:
        """Raise what the file object raised while a decoder was reading it."""
        if self.error is None:
            return
        if isinstance(self.error, Exception):
            raise AudioError(f"the file object failed: {self.error or repr(self.error)}", self.name) from self.error
        raise self.error

    def close(self) -> None:
        """Close the file if it was opened here; a caller's file object stays open."""
        if isinstance(self.file, _Own):
            self.file.close()


class _Own(io.FileIO):
    """A file that was opened here, and is closed here."""


def open_path(path: str | os.PathLike) -> Reader:
    """Open a regular file. A missing one, a folder or a forbidden one raises the `OSError` it is."""
    name = printable(path)
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise AudioError("it is not a regular file but a pipe, socket or device; read it and pass the bytes", name)
        file = _Own(path, opener=_open_without_waiting)  # type: ignore[arg-type]
    except ValueError as error:  # a NUL inside the name
        raise error if isinstance(error, AudioError) else AudioError(f"not a usable path: {error}", name) from error
    return Reader(file, name)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # should it have become a pipe since it was looked at


def open_bytes(content: bytes | bytearray | memoryview, name: str) -> Reader:
    return Reader(io.BytesIO(content), name)


def open_file_object(file: Any, name: str, max_bytes: int) -> Reader:
    """A caller's binary file object, from its beginning; one that cannot seek is read into memory first."""
    try:
        if getattr(file, "closed", False):
            raise AudioError("the file object is closed; pass it while it is open, or pass its path", name)
        can_seek = bool(file.seekable()) if hasattr(file, "seekable") else hasattr(file, "seek")
    except AudioError:
        raise
    except Exception as error:
        raise AudioError(f"the file object cannot be read: {error or error!r}", name) from error
    if can_seek:
        return Reader(file, name)
    return Reader(io.BytesIO(_read_all(file, name, max_bytes)), name)


def file_object_name(file: Any) -> str:
    name = getattr(file, "name", None)
    return printable(name) if isinstance(name, (str, bytes)) and name else type(file).__name__


def _read_all(file: BinaryIO, name: str, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    num_bytes = 0
    while True:
        try:
            piece = file.read(_PIECE_BYTES)
        except Exception as error:
            raise AudioError(f"the file object failed: {error or repr(error)}", name) from error
        if not isinstance(piece, bytes):
            raise AudioError(f"its read() returned {_summary(piece)}; open the file in binary mode", name)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise AudioError(f"the stream sends more than {max_bytes} bytes; raise max_bytes to take it", name)


def _summary(content: Any) -> str:
    return f"{len(content)} bytes" if isinstance(content, bytes) else f"{type(content).__name__}, not bytes"
