"""Vectors on disk that many processes write and read at once: small files of rows, each whole or not there.

A part is a safetensors file of `keys` and `embeds`, written beside its place, flushed and renamed, under a name that
begins with the time. A key has one row, or a block of them that follow one another: `counts` then says how many. So no
lock is needed: whoever writes adds parts, whoever reads lists them, a key that two processes computed counts as the
earlier part has it, and what a killed process was writing has no name yet. Rows are read through the system's page
cache (numpy's memory map): a part costs no memory until its rows are asked for.

Shapes: N keys, T rows of a key, K bytes of a key, V numbers of a row.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from unibrivl.training.checkpoint import sync

ENDING, PARTIAL = ".safetensors", ".partial"
STALE_S = 24 * 3600.0  # OURS: a file that nobody has finished for a day was left by a process that is dead
MOST_MAPS = 64  # each holds a file open
NUMBERS = {"F32": np.float32, "F16": np.float16, "U8": np.uint8, "I64": np.int64}  # as safetensors names them


class Parts:
    """
    Args:
        folder: where the parts lie; made when the first is written.
        width (`int`): numbers of a row, V.
        key_bytes (`int`): bytes of a key, K.
        kind (`"F32"` or `"F16"`): of the numbers.
    """

    def __init__(self, folder: Path, width: int, key_bytes: int, kind: str = "F32"):
        self.folder, self.width, self.key_bytes, self.kind = folder, width, key_bytes, kind
        self.places: dict[bytes, tuple[str, int, int]] = {}  # key -> part, first row and number of rows
        self.seen: dict[str, int] = {}  # part -> its rows
        self._maps: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_maps": {}}  # a map would travel to another process as all of its numbers

    def refresh(self) -> None:
        """Learn of parts that were written since, by whomever."""
        names = sorted(path.name for path in self.folder.glob(f"*{ENDING}"))
        if not self.seen.keys() <= set(names):  # somebody joined parts: every place may have changed
            self.places, self.seen, self._maps = {}, {}, {}
        for name in names:
            if name not in self.seen:
                try:
                    keys, counts = self._array(name, "keys"), self._array(name, "counts")
                except FileNotFoundError:  # joined into another between the listing and now
                    return self.refresh()
                first = 0
                for key, count in zip(np.asarray(keys), counts.tolist(), strict=True):
                    self.places.setdefault(key.tobytes(), (name, first, count))
                    first += count
                self.seen[name] = first
        return None

    def block(self, key: bytes) -> np.ndarray:
        """(T, V), all rows of a key, where they lie: not to be written to."""
        name, first, count = self.places[key]
        if name not in self._maps:
            if len(self._maps) >= MOST_MAPS:
                self._maps.pop(next(iter(self._maps)))
            try:
                self._maps[name] = self._array(name, "embeds")
            except FileNotFoundError:
                self.refresh()
                return self.block(key)
        return np.asarray(self._maps[name][first : first + count])

    @property
    def num_bytes(self) -> int:
        """Of all rows."""
        return sum(self.seen.values()) * self.width * np.dtype(NUMBERS[self.kind]).itemsize

    def write(self, keys: list[bytes], blocks: Sequence[np.ndarray]) -> None:
        """One more part, of a block (T, V) for each key; it is known here at once."""
        assert all(block_TV.shape[1:] == (self.width,) for block_TV in blocks)
        self._store(stamp(), keys, [len(block_TV) for block_TV in blocks], iter(blocks))
        self.refresh()

    def join(self) -> None:
        """All parts as one, under the name of the first, so that what counted before counts still."""
        self.refresh()
        names, keys = sorted(self.seen), list(self.places)
        if len(names) < 2:
            return
        counts = [self.places[key][2] for key in keys]
        self._store(names[0].partition("-")[0], keys, counts, map(self.block, keys))
        for name in names:
            # gone already, or, on systems that cannot remove what is mapped, left: its rows count once all the same
            with contextlib.suppress(OSError):
                (self.folder / name).unlink()
        self.places, self.seen, self._maps = {}, {}, {}
        self.refresh()

    def sweep(self) -> None:
        """Remove what processes left half written that died long ago."""
        for path in self.folder.glob(f"*{PARTIAL}"):
            with contextlib.suppress(OSError):  # another process sweeps too
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()

    def _store(self, when: str, keys: list[bytes], counts: list[int], blocks: Iterator[np.ndarray]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{when}-{uuid.uuid4().hex[:12]}{ENDING}"
        partial = target.with_name(target.name + PARTIAL)
        shapes: dict[str, tuple[str, list[int]]] = {
            "embeds": (self.kind, [sum(counts), self.width]),
            "keys": ("U8", [len(keys), self.key_bytes]),
        }
        behind = [b"".join(keys)]
        if any(count != 1 for count in counts):
            shapes["counts"] = ("I64", [len(keys)])
            behind.append(np.array(counts, np.int64).tobytes())
        header, end = {}, 0
        for name, (kind, shape) in shapes.items():
            start, end = end, end + math.prod(shape) * np.dtype(NUMBERS[kind]).itemsize
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        try:
            write_rows(partial, header, (np.asarray(one, NUMBERS[self.kind]) for one in blocks), behind)
            sync(partial)
            os.replace(partial, target)
            sync(self.folder)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OSError(
                f"{target} could not be written: {error}. All parts before it are whole; make room, or choose another "
                "folder for the cache"
            ) from error

    def _array(self, name: str, what: str) -> np.ndarray:
        """One tensor of a part, mapped into memory."""
        path = self.folder / name
        foreign = ValueError(f"{path} is no part of this cache, or cut off: remove it, and its rows are made again")
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size:
                raise foreign
            try:
                header = json.loads(file.read(length))
                if what == "counts" and what not in header:
                    return np.ones(header["keys"]["shape"][0], np.int64)
                about = header[what]
                start, end = about["data_offsets"]
                kind, shape = NUMBERS[about["dtype"]], tuple(about["shape"])
            except (ValueError, KeyError, TypeError) as error:
                raise foreign from error
        expected = {"embeds": (self.width,), "keys": (self.key_bytes,), "counts": ()}[what]
        if shape[1:] != expected or size < 8 + length + end:
            raise foreign
        if not end - start:
            return np.empty(shape, kind)
        return np.memmap(path, kind, "r", 8 + length + start, shape)


def write_rows(path: Path, header: dict, blocks: Iterator[np.ndarray], behind: list[bytes]) -> None:
    """A safetensors file, written as the rows come."""
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)  # numbers then begin where a processor likes to read them
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for block_TV in blocks:
            file.write(block_TV.tobytes())
        file.writelines(behind)


def stamp() -> str:
    """Now, as text that sorts by time."""
    return f"{time.time_ns():020d}"
