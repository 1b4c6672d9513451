"""Vectors on disk that many processes write and read at once: small files of rows, each whole or not there.

A part is a safetensors file of `keys` and `embeds`, written beside its place, flushed and renamed, under a name that
begins with the time. So no lock is needed: whoever writes adds parts, whoever reads lists them, a key that two
processes computed counts as the earlier part has it, and what a killed process was writing has no name yet. Rows are
read through the system's page cache (numpy's memory map): a part costs no memory until its rows are asked for.

Shapes: N rows, K bytes of a key, V numbers of a vector.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unibrivl.training.checkpoint import sync

ENDING, PARTIAL = ".safetensors", ".partial"
STALE_S = 24 * 3600.0  # OURS: a file that nobody has finished for a day was left by a process that is dead
COPIED_ROWS = 4096  # at once, when parts are joined


class Parts:
    """
    Args:
        folder: where the parts lie; made when the first is written.
        width (`int`): numbers of a vector, V.
        key_bytes (`int`): bytes of a key, K.
    """

    def __init__(self, folder: Path, width: int, key_bytes: int):
        self.folder, self.width, self.key_bytes = folder, width, key_bytes
        self.places: dict[bytes, tuple[str, int]] = {}  # key -> part and row
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
                    keys = self._array(name, "keys")
                except FileNotFoundError:  # joined into another between the listing and now
                    return self.refresh()
                self.seen[name] = len(keys)
                for row, key in enumerate(np.asarray(keys)):
                    self.places.setdefault(key.tobytes(), (name, row))
        return None

    def row(self, key: bytes) -> np.ndarray:
        """(V,) float32, a copy."""
        name, row = self.places[key]
        if name not in self._maps:
            try:
                self._maps[name] = self._array(name, "embeds")
            except FileNotFoundError:
                self.refresh()
                return self.row(key)
        return np.array(self._maps[name][row])

    def write(self, keys: list[bytes], embeds_NV: np.ndarray) -> None:
        """One more part; it is known here at once."""
        embeds_NV = np.ascontiguousarray(embeds_NV, dtype=np.float32)
        assert embeds_NV.shape == (len(keys), self.width)
        self._store(stamp(), keys, iter([embeds_NV]))
        self.refresh()

    def join(self) -> None:
        """All parts as one, under the name of the first, so that what counted before counts still."""
        self.refresh()
        names, keys = sorted(self.seen), list(self.places)
        if len(names) < 2:
            return
        chunks = (
            np.stack([self.row(key) for key in keys[start : start + COPIED_ROWS]])
            for start in range(0, len(keys), COPIED_ROWS)
        )
        self._store(names[0].partition("-")[0], keys, chunks)
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

    def _store(self, when: str, keys: list[bytes], chunks: Iterator[np.ndarray]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{when}-{uuid.uuid4().hex[:12]}{ENDING}"
        partial = target.with_name(target.name + PARTIAL)
        num_bytes = 4 * len(keys) * self.width
        header = {
            "embeds": {"dtype": "F32", "shape": [len(keys), self.width], "data_offsets": [0, num_bytes]},
            "keys": {
                "dtype": "U8",
                "shape": [len(keys), self.key_bytes],
                "data_offsets": [num_bytes, num_bytes + len(keys) * self.key_bytes],
            },
        }
        try:
            write_rows(partial, header, chunks, keys)
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
                about = json.loads(file.read(length))[what]
                start, end = about["data_offsets"]
                kind, shape = {"F32": np.float32, "U8": np.uint8}[about["dtype"]], tuple(about["shape"])
            except (ValueError, KeyError, TypeError) as error:
                raise foreign from error
        expected = (self.width if what == "embeds" else self.key_bytes,)
        if shape[1:] != expected or size < 8 + length + end:
            raise foreign
        if not end - start:
            return np.empty(shape, kind)
        return np.memmap(path, kind, "r", 8 + length + start, shape)


def write_rows(path: Path, header: dict, chunks: Iterator[np.ndarray], keys: list[bytes]) -> None:
    """A safetensors file, written as the rows come."""
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)  # numbers then begin where a processor likes to read them
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for chunk_NV in chunks:
            file.write(chunk_NV.tobytes())
        file.write(b"".join(keys))


def stamp() -> str:
    """Now, as text that sorts by time."""
    return f"{time.time_ns():020d}"
