"""The exact engine: all vectors are compared, block by block, as they lie on the disk.

It is also what an index keeps its vectors in, whatever engine searches: everything else can be made again from it.
What is added waits in memory until `flush`, which writes one segment: vectors, ids, and the rows that they replace or
that were deleted, in one file that is there or is not.

Shapes: N vectors, Q queries, E embedding, B rows in a block, k nearest.
"""

from __future__ import annotations

import bisect
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from unibrivl.search.engine import checked_queries, checked_vectors
from unibrivl.search.segments import Segment, read_segment, write_segment
from unibrivl.utils.files import written_whole

BLOCK_NUMBERS = 1 << 24  # in a block: 64 MB of float32
MOST_ROWS = 1 << 17  # in a segment that compaction writes
MOST_WAITING = 1 << 14  # vectors in memory before they are written without being asked
DTYPES = ("float32", "float16")
COUNTED = re.compile(r"[0-9]+\.[0-9]+")
CURRENT = "current.json"  # which generation of segments counts: compaction writes the next one beside it


def make_engine(folder: Path, width: int, *, dtype: str = "float32", read_only: bool = False) -> ExactEngine:
    return ExactEngine(folder, width, dtype=dtype, read_only=read_only)


class ExactEngine:
    """
    Args:
        dtype (`str`): how vectors are stored: "float32", or "float16", which halves the disk and what is read.
        read_only (`bool`): refuse to write; several processes may read while one writes.
    """

    name = "exact"

    def __init__(self, folder: Path, width: int, *, dtype: str = "float32", read_only: bool = False):
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {DTYPES}, got {dtype!r}")
        self.folder, self.width, self.read_only = Path(folder), width, read_only
        if not read_only:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.dtype = np.dtype(dtype)
        self.segments: list[Segment] = []
        self.firsts: list[int] = []  # the row, counted over all segments, at which each begins
        self.lives: list[np.ndarray] = []  # of each segment, which of its rows count
        self._rows: dict[str, int] | None = None  # id -> row; made when somebody writes or asks for vectors
        self._recent: dict[str, int] = {}  # the same of what was found last, which costs nothing to keep
        self._waiting: dict[str, np.ndarray] = {}
        self._deleted: set[int] = set()  # rows, not yet written
        self._read()

    def _read(self) -> None:
        for attempt in range(3):  # a reader may meet the moment in which another process compacts
            try:
                self.generation = self._current()
                self.segments = [read_segment(path) for _, path in self._files(self.generation)]
                break
            except FileNotFoundError:
                if attempt == 2:
                    raise
        for segment in self.segments:
            if segment.vectors_NE.shape[1] != self.width:
                raise ValueError(
                    f"{self.folder} holds vectors of {segment.vectors_NE.shape[1]} numbers, and not of {self.width}"
                )
        if not self.read_only:
            self._remove_leftovers()
        self._count()

    def _count(self) -> None:
        sizes = [len(segment) for segment in self.segments]
        self.firsts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])[:-1].astype(int).tolist()
        self.lives = [np.ones(size, bool) for size in sizes]
        for segment in self.segments:
            self._bury(segment.dead)

    def _bury(self, rows: Iterable[int]) -> None:
        dead = np.sort(np.fromiter(rows, np.int64))
        for live, first in zip(self.lives, self.firsts, strict=True):
            begin, end = int(np.searchsorted(dead, first)), int(np.searchsorted(dead, first + len(live)))
            live[dead[begin:end] - first] = False

    def _current(self) -> int:
        path = self.folder / CURRENT
        return int(json.loads(path.read_text(encoding="ascii"))["generation"]) if path.exists() else 0

    def _files(self, generation: int | None = None) -> list[tuple[int, Path]]:
        """(generation, path) of the segments there are, in the order they were written."""
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            match = re.fullmatch(r"(\d{4})-(\d{8})\.safetensors", path.name)
            if match and generation in (None, int(match[1])):
                found.append((int(match[1]), path))
        return sorted(found, key=lambda one: one[1].name)

    def _remove_leftovers(self) -> None:
        """Of a process that was killed while it wrote or compacted."""
        for path in self.folder.glob(".*.partial"):
            path.unlink(missing_ok=True)
        for generation, path in self._files():
            if generation != self.generation:
                path.unlink()

    def _place(self, number: int, generation: int) -> Path:
        return self.folder / f"{generation:04}-{number:08}.safetensors"

    @property
    def rows(self) -> dict[str, int]:
        if self._rows is None:
            self._rows = {}
            for segment, first, live in zip(self.segments, self.firsts, self.lives, strict=True):
                ids = segment.ids()
                self._rows.update((ids[row], first + int(row)) for row in np.flatnonzero(live))
        return self._rows

    def __len__(self) -> int:
        return sum(int(live.sum()) for live in self.lives) - len(self._deleted) + len(self._waiting)

    def __contains__(self, name: object) -> bool:
        return name in self._waiting or self._row_of(str(name)) is not None

    def _check_writing(self) -> None:
        if self.read_only:
            raise ValueError(f"{self.folder} was opened to be read: open it for writing")

    def add(self, ids: Sequence[str], vectors_NE: np.ndarray) -> None:
        self._check_writing()
        vectors_NE = checked_vectors(ids, vectors_NE, self.width)
        self.delete(ids)
        self._waiting.update(zip(ids, vectors_NE.astype(self.dtype), strict=True))
        if len(self._waiting) >= MOST_WAITING:
            self.flush()

    def delete(self, ids: Sequence[str]) -> None:
        self._check_writing()
        for name in ids:
            self._waiting.pop(name, None)
            self._recent.pop(name, None)
            row = self.rows.pop(name, None)
            if row is not None:
                self._deleted.add(row)

    def flush(self) -> None:
        if not self._waiting and not self._deleted:
            return
        ids = list(self._waiting)
        vectors_NE = np.stack(list(self._waiting.values())) if ids else np.zeros((0, self.width), self.dtype)
        path = self._place(len(self.segments), self.generation)
        write_segment(path, ids, vectors_NE, sorted(self._deleted))
        first = sum(map(len, self.segments))
        self.rows.update((name, first + row) for row, name in enumerate(ids))
        self._recent = {}
        self.segments.append(read_segment(path))
        self.firsts.append(first)
        self.lives.append(np.ones(len(ids), bool))
        self._bury(self._deleted)
        self._waiting, self._deleted = {}, set()

    def search(self, queries_QE: np.ndarray, k: int) -> tuple[list[list[str]], np.ndarray]:
        queries_QE = checked_queries(queries_QE, k, self.width)
        if self._waiting or self._deleted:
            self.flush()
        k = min(k, len(self))
        best_QK: np.ndarray = np.full((len(queries_QE), 0), -np.inf, np.float32)
        rows_QK: np.ndarray = np.zeros((len(queries_QE), 0), np.int64)
        for first, block_BE, live_B in self._blocks():
            cosines_QB = queries_QE @ block_BE.T
            cosines_QB[:, ~live_B] = -np.inf
            near = cosines_QB.shape[1] if cosines_QB.shape[1] <= k else k
            chosen_QK = np.argpartition(-cosines_QB, near - 1, axis=1)[:, :near] if near else np.zeros((0, 0), int)
            best_QK = np.concatenate([best_QK, np.take_along_axis(cosines_QB, chosen_QK, 1)], axis=1)
            rows_QK = np.concatenate([rows_QK, chosen_QK + first], axis=1)
            if best_QK.shape[1] > k:
                kept_QK = np.argpartition(-best_QK, k - 1, axis=1)[:, :k]
                best_QK = np.take_along_axis(best_QK, kept_QK, 1)
                rows_QK = np.take_along_axis(rows_QK, kept_QK, 1)
        order_QK = np.lexsort((rows_QK, -best_QK), axis=1)[:, :k]  # of equals the one that came first
        rows_QK = np.take_along_axis(rows_QK, order_QK, 1)
        ids = [[self._id(row) for row in rows] for rows in rows_QK.tolist()]
        self._recent = {name: row for names, rows in zip(ids, rows_QK.tolist(), strict=True)
                        for name, row in zip(names, rows, strict=True)}  # fmt: skip
        return ids, np.take_along_axis(best_QK, order_QK, 1)

    def _blocks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(first row, vectors as float32, which of them count), a bounded number at a time."""
        most = max(1, BLOCK_NUMBERS // self.width)
        for segment, first, live in zip(self.segments, self.firsts, self.lives, strict=True):
            for begin in range(0, len(segment), most):
                part = slice(begin, begin + most)
                if live[part].any():
                    yield first + begin, np.asarray(segment.vectors_NE[part], np.float32), live[part]

    def _id(self, row: int) -> str:
        number = int(np.searchsorted(self.firsts, row, side="right")) - 1
        return self.segments[number].id_of(row - self.firsts[number])

    def items(self, since: str = "") -> Iterator[tuple[list[str], np.ndarray]]:
        """All there is, or what came after a stamp, in blocks of ids and vectors (B, E), float32."""
        self.flush()
        most = max(1, BLOCK_NUMBERS // self.width)
        generation, _, count = since.partition("-")
        skipped = int(count) if generation == str(self.generation) else 0
        for segment, live in list(zip(self.segments, self.lives, strict=True))[skipped:]:
            rows, ids = np.flatnonzero(live), segment.ids()
            for begin in range(0, len(rows), most):
                some = rows[begin : begin + most]
                yield [ids[row] for row in some], np.asarray(segment.vectors_NE[some], np.float32)

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """Of ids that are there, float32 (N, E)."""
        self.flush()
        found_NE: np.ndarray = np.empty((len(ids), self.width), np.float32)
        for place, name in enumerate(ids):
            row = self._row_of(name)
            if row is None:
                raise KeyError(name)
            number = int(np.searchsorted(self.firsts, row, side="right")) - 1
            found_NE[place] = self.segments[number].vectors_NE[row - self.firsts[number]]
        return found_NE

    def _row_of(self, name: str) -> int | None:
        if name in self._recent:
            return self._recent[name]
        if self._rows is None and (order := order_of(name)):  # an index counts upwards: no map of all ids is needed
            for segment, first, live in zip(self.segments, self.firsts, self.lives, strict=True):
                row = bisect.bisect_left(range(len(segment)), order, key=lambda row: order_of(segment.id_of(row)))
                if row < len(segment) and live[row] and segment.id_of(row) == name:
                    return first + row
        return self.rows.get(name)

    def stamp(self) -> str:
        """Another one after every write: what was made from these vectors can tell that it is behind."""
        return f"{self.generation}-{len(self.segments)}"

    def compact_if_due(self) -> bool:
        """Where a third of the rows is dead, or segments are many and small, all is written anew without the dead."""
        self.flush()
        rows = sum(map(len, self.segments))
        small = len(self.segments) > 64 and rows < len(self.segments) * MOST_WAITING
        if not small and 3 * (rows - len(self)) <= rows:
            return False
        self.compact()
        return True

    def compact(self) -> None:
        self._check_writing()
        self.flush()
        following, number = self.generation + 1, 0
        names: list[str] = []
        parts: list[np.ndarray] = []
        for ids, vectors_BE in self.items():
            names, parts = [*names, *ids], [*parts, vectors_BE.astype(self.dtype)]
            if len(names) >= MOST_ROWS:
                write_segment(self._place(number, following), names, np.concatenate(parts), [])
                names, parts, number = [], [], number + 1
        if names:
            write_segment(self._place(number, following), names, np.concatenate(parts), [])
        with written_whole(self.folder / CURRENT) as partial:
            partial.write_text(json.dumps({"generation": following}) + "\n", encoding="ascii")
        self._rows, self._recent = None, {}
        self._read()  # and removes the generation before

    def clear(self) -> None:
        self._check_writing()
        self.segments = []
        shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        self._rows, self._recent, self._waiting, self._deleted = None, {}, {}, set()
        self._read()

    def close(self) -> None:
        if not self.read_only:
            self.flush()
        self.segments, self.firsts, self.lives = [], [], []
        self._rows = {}


def order_of(name: str) -> tuple[int, ...]:
    """The numbers of an id of an index, "number.window"; of any other id nothing."""
    return tuple(map(int, name.split("."))) if COUNTED.fullmatch(name) else ()
