"""What a bulk run is to embed: files, what lies in shards, tables and behind URLs, and texts; each by name, once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from unibrivl.audio.doctor import SUFFIXES as SOUNDS
from unibrivl.data.places import CONTAINERS, AtUrl, Source, behind, is_url, members, rows, spanned, written_ns

PICTURES = frozenset((".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
FILMS = frozenset((".avi", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))  # their sound, and only if named
NO_KIND = "its suffix is neither a sound's nor a picture's: say which with kind"


@dataclass(frozen=True)
class Input:
    """One thing to embed.

    Args:
        id (`str`): its name in the result: the path as given or relative to a root; of a text, the text.
        kind (`str`): "audio", "image" or "text".
        path (`str`, *optional*): where it lies; texts lie nowhere.
        size_bytes, mtime_ns (`int`): of the file when it was looked at; -1 for texts. They tell whether it changed.
        error (`str`): why it cannot be embedded, where that is known before it is opened.
        source (`Source`, *optional*): where it lies, if it is no file of its own here; then it has no path.
    """

    id: str
    kind: str
    path: str | None = None
    size_bytes: int = -1
    mtime_ns: int = -1
    error: str = ""
    source: Source | None = None

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
    error: among a million it must not stop the others. A .tar is a shard of WebDataset's, named or in a folder, and
    stands for the sounds and pictures in it; a .parquet that is named for those of its rows; a URL is what fsspec
    opens: a file, a folder, a pattern with *, a shard or a table. Of names like shard-{000..127}.tar each is meant.

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
        place = path if is_url(path) else os.path.normpath(path)
        if place in seen:
            continue
        seen.add(place)
        for one in _inputs_of(path, is_named, kind, root):
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
    for path in (one for given in paths for one in _named(os.fsdecode(given))):
        if is_url(path) or not os.path.isdir(path):
            yield path, True
            continue
        for parent, folders, names in os.walk(path, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                is_a = kind_of(name, is_named=False)
                if (is_a is not None and kind in ("auto", is_a)) or name.lower().endswith(".tar"):
                    yield os.path.join(parent, name), False


def _named(path: str) -> list[str]:
    return [path] if os.path.lexists(path) else spanned(path)


def _inputs_of(path: str, is_named: bool, kind: str, root: str | os.PathLike | None) -> Iterator[Input]:
    """What a path stands for."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in CONTAINERS and (is_url(path) or os.path.isfile(path)):
        yield from _contents(path, kind, root)
    elif is_url(path):
        for name, size_bytes, mtime_ns in behind(path):
            if name.lower().endswith(".tar"):
                yield from _contents(name, kind, root)
                continue
            is_a = kind_of(name, is_named=name == path) if kind == "auto" or name != path else kind
            if is_a is not None and kind in ("auto", is_a):
                yield Input(_readable(name), is_a, None, size_bytes, mtime_ns, source=AtUrl(name))
            elif name == path:
                yield Input(_readable(name), "audio", None, error=NO_KIND)
    else:
        yield _look_at(path, kind_of(path, is_named) if kind == "auto" else kind, root)


def _contents(path: str, kind: str, root: str | os.PathLike | None) -> Iterator[Input]:
    """The members of a shard or the rows of a table; after the last readable one an error, if it is not whole."""
    name = _readable(path if root is None or is_url(path) else os.path.relpath(path, os.fsdecode(root)))
    place, is_tar = path if is_url(path) else os.path.abspath(path), path.lower().endswith(".tar")
    try:
        mtime_ns = written_ns(place)
        found: Iterable[tuple[Source, int]] = ((one, one.size) for one in members(place)) if is_tar else rows(place)
        for one, size_bytes in found:
            is_a, inside = kind_of(one.name, is_named=False), _readable(name + one.place.removeprefix(place))
            if is_a is not None and kind in ("auto", is_a):
                yield Input(inside, is_a, None, size_bytes, mtime_ns, source=one)
            elif not is_tar:  # in a shard there are labels beside the sounds; a table's column was chosen
                yield Input(inside, "audio" if kind == "auto" else kind, None, error=NO_KIND)
    except (OSError, ValueError) as error:
        yield Input(name, "audio" if kind == "auto" else kind, None, error=str(error))


def _raise(error: OSError) -> None:
    raise error


def _readable(name: str) -> str:
    """Parquet holds UTF-8: bytes of a name that are not become escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _look_at(path: str, kind: str | None, root: str | os.PathLike | None) -> Input:
    name = _readable(path if root is None else os.path.relpath(path, os.fsdecode(root)))
    try:
        about = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
        return Input(name, kind or "audio", path, error=str(error))
    if kind is None:
        return Input(name, "audio", path, error=NO_KIND)
    return Input(name, kind, path, about.st_size, about.st_mtime_ns)
