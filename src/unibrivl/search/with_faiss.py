"""The faiss engine: flat for few vectors, then a graph (HNSW), lists of bytes (IVF-SQ8), lists of codes (IVF-PQ).

A graph finds most, and takes seconds to build where lists take milliseconds. Lists of bytes keep a number in one byte,
lists of codes eight numbers in one. faiss knows positions and not ids, and a graph cannot forget: so ids stand beside
it, and what is deleted is left out of answers until everything is made anew. Both are files under one number, and
`current.json` says which number counts.

Shapes: N vectors, Q queries, E embedding, k nearest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unibrivl.search.engine import checked_queries, checked_vectors
from unibrivl.search.segments import Names, read_segment, write_segment
from unibrivl.utils import require
from unibrivl.utils.files import written_whole

FLAT_BELOW, GRAPH_BELOW, BYTES_BELOW = 50_000, 200_000, 10_000_000
KINDS = ("flat", "hnsw", "ivf", "ivfpq")
LISTED = ("ivf", "ivfpq")
NEIGHBOURS, BUILD_DEPTH, SEARCH_DEPTH = 32, 100, 128  # of the graph
LEARN_PER_LIST = 48  # vectors for each list when lists are learned; faiss warns below 39
PROBED = 32  # lists that a query looks into, of the root of N
BYTE_NUMBERS = 8  # numbers of a vector that one byte of a code stands for
CANDIDATES = 4  # codes tell neighbours apart far less than bytes do
OUTGROWN = 2  # times the lists there should be, over those there are: made anew at four times the vectors
CURRENT = "current.json"


def make_engine(folder: Path, width: int, *, kind: str = "auto", expected: int = 0) -> FaissEngine:
    return FaissEngine(folder, width, kind=kind, expected=expected)


def check_usable() -> None:
    require("faiss", "search", "the engine faiss")


def kind_for(size: int) -> str:
    bounds = (FLAT_BELOW, GRAPH_BELOW, BYTES_BELOW)
    return KINDS[sum(size >= bound for bound in bounds)]


def lists_for(size: int) -> int:
    """Lists that are about as long as they are many."""
    return max(1, int(size**0.5))


class FaissEngine:
    """
    Args:
        kind (`str`): "flat", "hnsw", "ivf" or "ivfpq", or "auto", by how many vectors there are.
        expected (`int`): how many there will be, where that is known before they come.
    """

    name = "faiss"

    def __init__(self, folder: Path, width: int, *, kind: str = "auto", expected: int = 0):
        self.faiss: Any = require("faiss", "search", "the engine faiss")
        if kind not in ("auto", *KINDS):
            raise ValueError(f"kind must be 'auto' or one of {KINDS}, got {kind!r}")
        self.folder, self.width, self.wanted, self.expected = Path(folder), width, kind, expected
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ids = Names()  # of each position
        self.dead: set[int] = set()
        self.number, self.kind, self.changed = 0, "flat", False
        self.index: Any = None
        self.is_mapped = False  # read from the disk as it is asked, and not to be added to
        self._places: dict[str, int] | None = {}  # of the living; None until somebody writes
        self._waiting: list[np.ndarray] = []  # the newest vectors, which faiss does not have yet
        self._read()

    def _read(self) -> None:
        path = self.folder / CURRENT
        if not path.exists():
            return
        about = json.loads(path.read_text(encoding="ascii"))
        if about["width"] != self.width:
            raise ValueError(f"{self.folder} holds vectors of {about['width']} numbers, and not of {self.width}")
        self.number, self.kind = about["number"], about["kind"]
        self.index = self.faiss.read_index(str(self._place("faiss")), self.faiss.IO_FLAG_MMAP_IFC)
        self.is_mapped = True
        names = read_segment(self._place("ids"))
        self.ids, self.dead = Names(names), set(names.dead.tolist())
        if self.index.ntotal != len(self.ids):
            raise ValueError(
                f"{self.folder} is damaged: {self.index.ntotal} vectors and {len(self.ids)} ids; delete it"
            )
        self._places = None
        self._set_depth()

    @property
    def places(self) -> dict[str, int]:
        if self._places is None:
            self._places = {name: place for place, name in enumerate(self.ids) if place not in self.dead}
        return self._places

    def _place(self, suffix: str) -> Path:
        return self.folder / f"{self.number:08}.{suffix}"

    def __len__(self) -> int:
        return len(self.ids) - len(self.dead)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    @property
    def is_approximate(self) -> bool:
        """Whether its cosines are estimates."""
        return self.kind in LISTED

    @property
    def candidates(self) -> int:
        """Of how many vectors one is wanted, when all are compared once more by their true cosines."""
        return CANDIDATES if self.kind == "ivfpq" else 1

    @property
    def is_stale(self) -> bool:
        """Whether it should be fed anew from the vectors: a third of it is dead, or it has outgrown its kind or its
        lists."""
        size = max(self.expected, len(self))
        if 3 * len(self.dead) > len(self.ids) or (self.wanted == "auto" and kind_for(size) != self.kind):
            return True
        return self.kind in LISTED and self.index is not None and lists_for(size) > OUTGROWN * self.index.nlist

    def add(self, ids: Sequence[str], vectors_NE: np.ndarray) -> None:
        vectors_NE = checked_vectors(ids, vectors_NE, self.width)
        if not len(ids):
            return
        self.delete(ids)
        self.places.update((name, len(self.ids) + row) for row, name in enumerate(ids))
        self.ids.extend(ids)
        self._waiting.append(vectors_NE)
        self.changed = True
        if self.index is not None and self.index.is_trained:
            self._settle()
        elif len(self.ids) >= self._enough():
            self._begin()

    def delete(self, ids: Sequence[str]) -> None:
        for name in ids:
            place = self.places.pop(name, None)
            if place is not None:
                self.dead.add(place)
                self.changed = True

    def _enough(self) -> float:
        """Vectors with which the index can begin; without a hint they all wait for `flush`."""
        kind = self.wanted if self.wanted != "auto" else kind_for(self.expected)
        if kind in LISTED:
            return lists_for(self.expected) * LEARN_PER_LIST if self.expected else float("inf")
        return 1 if self.expected or self.wanted != "auto" else FLAT_BELOW

    def _begin(self) -> None:
        """Make an index for what there is, learn what it has to learn, and give it what waits."""
        self.kind = self.wanted if self.wanted != "auto" else kind_for(max(self.expected, len(self.ids)))
        faiss, measure = self.faiss, self.faiss.METRIC_INNER_PRODUCT
        if self.kind == "flat":
            self.index = faiss.IndexFlatIP(self.width)
        elif self.kind == "hnsw":
            self.index = faiss.IndexHNSWFlat(self.width, NEIGHBOURS, measure)
            self.index.hnsw.efConstruction = BUILD_DEPTH
        else:
            learned_NE = np.concatenate(self._waiting)
            lists = max(1, min(lists_for(self.expected or len(self.ids)), len(learned_NE) // LEARN_PER_LIST))
            coded = "SQ8" if self.kind == "ivf" else self._codes(len(learned_NE))
            self.index = faiss.index_factory(self.width, f"IVF{lists},{coded}", measure)
            self.index.train(learned_NE)
        self.is_mapped = False
        self._set_depth()
        self._settle()

    def _codes(self, count: int) -> str:
        pieces = max(one for one in range(1, max(1, self.width // BYTE_NUMBERS) + 1) if self.width % one == 0)
        return f"PQ{pieces}x{8 if count >= 256 * LEARN_PER_LIST else 4}"

    def _set_depth(self) -> None:
        if self.kind == "hnsw":
            self.index.hnsw.efSearch = SEARCH_DEPTH
        elif self.kind in LISTED:
            self.index.nprobe = min(PROBED, self.index.nlist)

    def _settle(self) -> None:
        if self.is_mapped:
            self.index, self.is_mapped = self.faiss.read_index(str(self._place("faiss"))), False
            self._set_depth()
        for vectors_NE in self._waiting:
            self.index.add(vectors_NE)
        self._waiting = []

    def _regrow(self) -> None:
        """From the vectors inside; compressed ones are only estimates, and are left as they are."""
        living = sorted(self.places.values())
        vectors_NE = self.index.reconstruct_n(0, self.index.ntotal)[living]
        names, self.ids = list(self.ids), Names()
        self.ids.extend(names[place] for place in living)
        self._places = {name: place for place, name in enumerate(self.ids)}
        self.dead, self._waiting = set(), [vectors_NE]
        self._begin()

    def search(self, queries_QE: np.ndarray, k: int) -> tuple[list[list[str]], np.ndarray]:
        queries_QE = checked_queries(queries_QE, k, self.width)
        if self._waiting:
            self._begin() if self.index is None else self._settle()
        k = min(k, len(self))
        if not k:
            return [[] for _ in queries_QE], np.zeros((len(queries_QE), 0), np.float32)
        asked = k
        while True:
            asked = min(asked + min(len(self.dead), asked), len(self.ids))
            cosines, places = self._ask(queries_QE, asked)
            rows = [
                [(self.ids[place], cosine) for place, cosine in zip(*row, strict=True) if place not in self.dead]
                for row in zip(places.tolist(), cosines.tolist(), strict=True)
            ]
            rows = [[one for one in row if one[1] > -2] for row in rows]  # a list that was not probed has no more
            fewest = min(map(len, rows))
            if fewest >= k or asked >= len(self.ids):
                break
            asked = 2 * asked
        k = min(k, fewest)
        found = np.array([[cosine for _, cosine in row[:k]] for row in rows], np.float32).reshape(len(rows), k)
        return [[name for name, _ in row[:k]] for row in rows], found

    def _ask(self, queries_QE: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self.kind == "hnsw":
            self.index.hnsw.efSearch = max(SEARCH_DEPTH, k)
        elif self.kind in LISTED and k * self.index.nlist > len(self.ids) * PROBED:
            self.index.nprobe = self.index.nlist  # more are wanted than the lists that are looked into hold
        cosines, places = self.index.search(queries_QE, k)
        self._set_depth()
        return np.where(places < 0, -np.inf, cosines), places

    def flush(self) -> None:
        if not self.changed:
            return
        if self._waiting:
            self._begin() if self.index is None else self._settle()
        if self.index is not None and self.is_stale and not self.is_approximate:
            self._regrow()
        before, self.number = self.number, self.number + 1
        if self.index is not None:
            with written_whole(self._place("faiss")) as partial:
                self.faiss.write_index(self.index, str(partial))
            write_segment(self._place("ids"), self.ids, np.zeros((len(self.ids), 0), np.float32), sorted(self.dead))
            about = {"number": self.number, "kind": self.kind, "width": self.width}
            with written_whole(self.folder / CURRENT) as partial:
                partial.write_text(json.dumps(about) + "\n", encoding="ascii")
            for path in self.folder.glob(f"{before:08}.*"):
                path.unlink()
        self.changed = False

    def clear(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        self.ids, self.dead, self._places, self._waiting, self.index = Names(), set(), {}, [], None
        self.number, self.kind, self.changed, self.is_mapped = 0, "flat", False, False

    def close(self) -> None:
        self.flush()
        self.index = None
