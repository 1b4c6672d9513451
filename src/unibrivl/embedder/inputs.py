"""What a bulk run is to embed: files named, files found in folders, and texts; each with its name, once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from unibrivl.audio.doctor import SUFFIXES as SOUNDS

PICTURES = frozenset((".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
FILMS = frozenset((".avi", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))  # their sound, and only if named


@dataclass(frozen=True)
class Input:
    """One thing to embed.

    Args:
        id (`str`): its name in the result: the path as given or relative to a root; of a text, the text.
        kind (`str`): "audio", "image" or "text".
        path (`str`, *optional*): where it lies; texts lie nowhere.
        size_bytes, mtime_ns (`int`): of the file when it was looked at; -1 for texts. They tell whether it changed.
        error (`str`): why it cannot be embedded, where that is known before it is opened.
    """

    id: str
    kind: str
    path: str | None = None
    size_bytes: int = -1
    mtime_ns: int = -1
    error: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.id


def find_inputs(
    paths: Iterable[str | os.PathLike],
    texts: Iterable[str] = (),
    *,
    kind: str = "auto",
    root: str | os.PathLike | None = None,
) -> list[Input]:
    """The files named, those of named folders whose suffix is a sound's or a picture's, and the texts; each once.

    Hidden folders are skipped and links to folders are not followed. A file that is not there is an input with an
    error: among a million it must not stop the others.

    Args:
        kind (`str`): `"auto"` goes by the suffix; `"audio"` and `"image"` say what named files are, and which files of
            folders are wanted.
        root (*optional*): names are relative to this folder; by default they are the paths as given.
    """
    if kind not in ("auto", "audio", "image"):
        raise ValueError(f"kind must be 'auto', 'audio' or 'image', got {kind!r}")
    found: dict[tuple[str, str], Input] = {}
    seen = set()
    for path, is_named in _files(paths, kind):
        place = os.path.normpath(path)
        if place not in seen:
            seen.add(place)
            one = _look_at(path, kind_of(path, is_named) if kind == "auto" else kind, root)
            found.setdefault(one.key, one)
    for text in texts:
        if text.strip():
            found.setdefault(("text", text), Input(text, "text"))
    return list(found.values())


def kind_of(path: str, is_named: bool = True) -> str | None:
    """What a file is by its suffix; None if that does not say."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in PICTURES:
        return "image"
    return "audio" if suffix in SOUNDS or (is_named and suffix in FILMS) else None


def _files(paths: Iterable[str | os.PathLike], kind: str) -> Iterator[tuple[str, bool]]:
    for path in map(os.fsdecode, paths):
        if not os.path.isdir(path):
            yield path, True
            continue
        for parent, folders, names in os.walk(path, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                is_a = kind_of(name, is_named=False)
                if is_a is not None and kind in ("auto", is_a):
                    yield os.path.join(parent, name), False


def _raise(error: OSError) -> None:
    raise error


def _look_at(path: str, kind: str | None, root: str | os.PathLike | None) -> Input:
    name = path if root is None else os.path.relpath(path, os.fsdecode(root))
    # parquet holds UTF-8: bytes of a name that are not become escapes
    name = name.encode("utf-8", "backslashreplace").decode("utf-8")
    try:
        about = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
        return Input(name, kind or "audio", path, error=str(error))
    if kind is None:
        return Input(name, "audio", path, error="its suffix is neither a sound's nor a picture's: say which with kind")
    return Input(name, kind, path, about.st_size, about.st_mtime_ns)
