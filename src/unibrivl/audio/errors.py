"""The one exception of this layer, and names made safe to print.

Whatever a decoder, a file object or a server does wrong reaches the caller as an `AudioError` that names the source,
what is wrong with it and what to do. Only the operating system's own answers (no such file, no permission, is a
directory) stay the `OSError` they are.
"""

from __future__ import annotations

import os


class AudioError(ValueError):
    """A sound that cannot be used.

    Args:
        reason (`str`): what is wrong and what to do about it.
        source (`str`, *optional*): the file or object it came from, put in front of the reason.
    """

    def __init__(self, reason: str, source: str = "") -> None:
        super().__init__(reason, source)  # both in args, so that the exception survives pickling between processes
        self.reason = reason
        self.source = source

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}" if self.source else self.reason


class SeekError(AudioError):
    """A file whose frames cannot be gone to although its kind allows it; it has to be read from its beginning."""


def printable(name: str | bytes | os.PathLike) -> str:
    """A file name on one line: newlines, control characters and undecodable bytes become escapes."""
    text = os.fsdecode(name)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
