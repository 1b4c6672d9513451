"""Things that are no files of their own here: members of tar shards, rows of Parquet tables, whatever a URL names.

Where such a thing lies is known when inputs are listed. Its bytes are fetched shortly before they are embedded, some
hundred at a time, into a folder of the system's for temporary files, under names of ours. So whatever decodes sounds
and pictures reads files and nothing else, and a name inside a shard never becomes a path.

Tar files are WebDataset's shards, plain and not compressed; URLs are all that fsspec opens.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from unibrivl.utils import require

CONTAINERS = (".tar", ".parquet")
INSIDE = "!/"  # between the name of a shard or a table and that of what lies in it
AT_ONCE = 256  # things that are fetched before they are embedded
BYTES_AT_ONCE, BLOCK = 1 << 28, 1 << 20
SNIFFED = 12  # bytes that tell a sound's or a picture's format
THREADS = 8  # that wait for a network
SPAN = re.compile(r"\{(\d+)\.\.(\d+)\}")  # shard-{000..127}.tar, as WebDataset names many
MOST_SPANNED = 1_000_000
CHANGED = ("mtime", "LastModified", "last_modified", "updated", "ETag", "etag", "created")  # what stores call it
READING = threading.Lock()  # a row group


class Source(Protocol):
    """Where something lies; it is pickled to workers on other machines.

    Args:
        name (`str`): with the suffix of what it is.
        place (`str`): a name that nothing else has.
    """

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str: ...
    def copy(self, to: BinaryIO) -> None: ...


@dataclass(frozen=True)
class AtUrl:
    """
    Args:
        name (`str`): the URL.
    """

    name: str

    @property
    def place(self) -> str:
        return self.name

    def copy(self, to: BinaryIO) -> None:
        with opened(self.name) as file:
            shutil.copyfileobj(file, to)


@dataclass(frozen=True)
class InTar:
    """
    Args:
        name (`str`): of the member.
        tar (`str`): absolute path, or URL.
        offset, size (`int`): its bytes in there.
    """

    name: str
    tar: str
    offset: int
    size: int

    @property
    def place(self) -> str:
        return f"{self.tar}{INSIDE}{self.name}"

    def copy(self, to: BinaryIO) -> None:
        with opened(self.tar) as file:
            file.seek(self.offset)
            left = self.size
            while left and (some := file.read(min(left, BLOCK))):
                left -= to.write(some)
        if left:
            raise ValueError(f"{self.tar} ends within {self.name}")


@dataclass(frozen=True)
class InTable:
    """
    Args:
        name (`str`): what the row says its file was called, or a name of ours, for the suffix.
        table (`str`): absolute path, or URL, of a Parquet file.
        column (`str`): of bytes, or of bytes beside a path, as the library datasets writes sounds and pictures.
        group, row (`int`): the row group, and the row in it.
        mtime_ns (`int`): of the table: another time is another content.
        label (`str`): the row's number in the table; of several columns with the column's name before it.
    """

    name: str
    table: str
    column: str
    group: int
    row: int
    mtime_ns: int
    label: str

    @property
    def place(self) -> str:
        return f"{self.table}{INSIDE}{self.label}"

    def copy(self, to: BinaryIO) -> None:
        with READING:  # eight threads that want one group would read it eight times
            cells = group_of(self.table, self.column, self.group, self.mtime_ns)
        content = cells[self.row].as_py()
        if content is None:
            raise ValueError("the row holds no bytes")
        to.write(content)


def is_url(path: str) -> bool:
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", path) is not None


def stands_for_many(path: str) -> bool:
    """Whether it is a folder, a shard or a table, here or behind a URL."""
    return os.path.isdir(path) or is_url(path) or path.lower().endswith(CONTAINERS)


@contextmanager
def opened(place: str) -> Iterator[Any]:
    """A file of this machine, or behind a URL, to read bytes from."""
    if not is_url(place):
        with open(place, "rb") as local:
            yield local
        return
    system, path = system_of(place)
    with system.open(path, "rb") as file:
        yield file


def system_of(url: str) -> tuple[Any, str]:
    """fsspec's filesystem and the path in it."""
    from fsspec.core import url_to_fs

    if re.match(r"[^/]+://[^/@]*:[^/@]*@", url):
        raise ValueError("a URL holds a password, which would be written beside the vectors: give it another way")
    try:
        return url_to_fs(url)
    except ImportError as error:
        raise ValueError(f"{url.partition('://')[0]}:// needs a package that is not installed: {error}") from error


def spanned(path: str) -> list[str]:
    """shard-{000..127}.tar -> its 128 names; anything else is itself."""
    found = SPAN.search(path)
    if found is None:
        return [path]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MOST_SPANNED:
        raise ValueError(f"{found[0]} in {path} names {last - first + 1} files")
    width = len(found[1]) if found[1].startswith("0") else 0
    names = [f"{path[: found.start()]}{number:0{width}}{path[found.end() :]}" for number in range(first, last + 1)]
    return [one for name in names for one in spanned(name)]


def behind(url: str) -> Iterator[tuple[str, int, int]]:
    """URL, bytes and time of a file, of those below a folder, or of those that a pattern with * names."""
    system, path = system_of(url)
    try:
        if any(mark in path for mark in "*?["):
            found = system.glob(path, detail=True)
        elif system.isdir(path):
            found = system.find(path, detail=True)
        else:
            found = {path: system.info(path)}
    except (OSError, ValueError) as error:
        raise ValueError(f"{url} cannot be listed: {error}") from error
    for name in sorted(found):
        if found[name].get("type", "file") == "file":
            yield system.unstrip_protocol(name), int(found[name].get("size") or 0), changed_at(found[name])


def changed_at(about: dict[str, Any]) -> int:
    """When a file was written, in nanoseconds; where a store tells no time, a number of its tag."""
    told = next((about[name] for name in CHANGED if about.get(name)), None)
    if isinstance(told, datetime):
        return int(told.timestamp() * 1e9)
    if isinstance(told, int | float):
        return int(told * 1e9)
    return -1 if told is None else int(hashlib.sha256(str(told).encode()).hexdigest()[:15], 16)


def written_ns(place: str) -> int:
    """When a file of this machine, or behind a URL, was written; see `changed_at`."""
    return next(behind(place))[2] if is_url(place) else os.stat(place).st_mtime_ns


def members(tar: str) -> Iterator[InTar]:
    """The files in a tar file, as its headers tell them."""
    with opened(tar) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as shard:
                for one in shard:
                    if one.isfile() and not one.issparse():
                        yield InTar(one.name, tar, one.offset_data, one.size)
        except tarfile.TarError as error:
            raise ValueError(f"{tar} is no plain tar file, or is not whole: {error}") from error


def rows(table: str) -> Iterator[tuple[InTable, int]]:
    """The sounds or pictures in the columns of a Parquet file, and how many bytes each has."""
    arrow, parquet = (require(name, "parquet", "reading a table") for name in ("pyarrow", "pyarrow.parquet"))
    mtime_ns = written_ns(table)
    with opened(table) as stream:
        try:
            file = parquet.ParquetFile(stream)
        except arrow.ArrowInvalid as error:
            raise ValueError(f"{table} is not a Parquet file, or not a whole one: {error}") from error
        columns = [field.name for field in file.schema_arrow if is_content(arrow, field.type)]
        if not columns:
            raise ValueError(
                f"{table} has no column of sounds or pictures (bytes, or bytes beside a path): it has "
                f"{', '.join(file.schema_arrow.names)}"
            )
        for column in columns:
            first, before = 0, f"{column}/" if len(columns) > 1 else ""
            for group in range(file.num_row_groups):
                cells = named_cells(file.read_row_group(group, columns=[column]).column(column))
                for row, (name, size_bytes) in enumerate(cells):
                    yield InTable(name, table, column, group, row, mtime_ns, f"{before}{first + row}"), size_bytes
                first += len(cells)


def named_cells(content: Any) -> list[tuple[str, int]]:
    """What each cell says its file was called, or a suffix by its first bytes; and how many bytes it has."""
    compute = require("pyarrow.compute", "parquet", "reading a table")
    names = [""] * len(content)
    if content.type.num_fields:
        if "path" in [content.type.field(place).name for place in range(content.type.num_fields)]:
            names = [os.path.basename(one or "") for one in compute.struct_field(content, "path").to_pylist()]
        content = compute.struct_field(content, "bytes")
    starts = compute.binary_slice(content, 0, SNIFFED).to_pylist()
    sizes = compute.binary_length(content).to_pylist()
    names = [name or f"x{suffix_of(start or b'')}" for name, start in zip(names, starts, strict=True)]
    return [(name, size or 0) for name, size in zip(names, sizes, strict=True)]


def is_content(arrow: Any, of: Any) -> bool:
    """Bytes, or a struct with bytes."""
    if arrow.types.is_struct(of):
        return any(of.field(place).name == "bytes" for place in range(of.num_fields))
    return arrow.types.is_binary(of) or arrow.types.is_large_binary(of)


@lru_cache(maxsize=2)
def group_of(table: str, column: str, group: int, mtime_ns: int) -> Any:
    """The bytes of a row group: rows are asked for in their order, so that the last groups are enough."""
    compute = require("pyarrow.compute", "parquet", "reading a table")
    parquet = require("pyarrow.parquet", "parquet", "reading a table")
    with opened(table) as stream:
        content = parquet.ParquetFile(stream).read_row_group(group, columns=[column]).column(column)
    return compute.struct_field(content, "bytes") if content.type.num_fields else content


def suffix_of(start: bytes) -> str:
    """What a file without a name is, by its first bytes."""
    known = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\xff\xfb": ".mp3",
             b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"GIF8": ".gif", b"BM": ".bmp"}  # fmt: skip
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for first, suffix in known.items() if start.startswith(first)), "")


def fetch(source: Source, folder: Path, number: int) -> Path:
    """The thing as a file in `folder`."""
    path = folder / str(number)
    with open(path, "w+b") as file:
        source.copy(file)
        file.seek(0)
        suffix = Path(source.name).suffix.lower() or suffix_of(file.read(SNIFFED))
    return path.rename(path.with_suffix(suffix)) if re.fullmatch(r"\.\w{1,8}", suffix) else path


@contextmanager
def fetched(sources: Sequence[Source]) -> Iterator[list[Path | Exception]]:
    """A local file for each, for as long as the block lasts, or the error that it met."""
    with tempfile.TemporaryDirectory(prefix="unibrivl-") as folder, ThreadPoolExecutor(THREADS) as pool:

        def one(number: int) -> Path | Exception:
            try:
                return fetch(sources[number], Path(folder), number)
            except Exception as error:  # stores raise what they like, and one of a million must not stop the others
                return error

        yield list(pool.map(one, range(len(sources))))


def source_at(place: str) -> Source:
    """What a name stands for that a `Source` once had as its place; the shard or table is looked through for it."""
    container, inside, _ = place.partition(INSIDE)
    if inside and container.lower().endswith(CONTAINERS):
        found = members(container) if container.lower().endswith(".tar") else (one for one, _ in rows(container))
        for one in found:
            if one.place == place:
                return one
    elif is_url(place):
        return AtUrl(place)
    raise ValueError(f"{place} is not there")


@contextmanager
def local_file(place: str) -> Iterator[str]:
    """A path to open, of a file, a member of a shard, a row of a table, or a URL."""
    if os.path.lexists(place) or not (is_url(place) or INSIDE in place):
        yield place
        return
    with fetched([source_at(place)]) as (found,):
        if isinstance(found, Exception):
            raise found
        yield str(found)


def told(error: object, one: Any) -> str:
    """An error in the words of whoever named the input, who does not know the file that stood in for it."""
    return str(error) if one.source is None or one.path is None else str(error).replace(one.path, one.source.place)


def within_reach(inputs: Sequence[Any]) -> Iterator[tuple[list[Any], list[tuple[Any, Exception]]]]:
    """Inputs (see `unibrivl.embedder.inputs`) with a path that can be opened, and those that could not be fetched.

    Files of this machine come first and together, others some hundred at a time; these files are there until the next
    are asked for.
    """
    here = [one for one in inputs if one.source is None]
    if here:
        yield here, []
    waiting = [one for one in inputs if one.source is not None]
    begin = 0
    while begin < len(waiting):
        end, held = begin, 0
        while end < min(begin + AT_ONCE, len(waiting)) and (end == begin or held < BYTES_AT_ONCE):
            held += waiting[end].size_bytes
            end += 1
        some, begin = waiting[begin:end], end
        with fetched([one.source for one in some if one.source is not None]) as found:
            pairs = list(zip(some, found, strict=True))
            reached = [replace(one, path=str(place)) for one, place in pairs if isinstance(place, Path)]
            yield reached, [(one, error) for one, error in pairs if isinstance(error, Exception)]
