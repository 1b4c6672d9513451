"""What finds the nearest vectors, whatever keeps them: seven verbs, and the checks that all engines share.

Shapes: N vectors, Q queries, E embedding, k nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

LENGTH_TOLERANCE = 0.01  # vectors of length one, stored in half precision, are within 0.001 of it


class Engine(Protocol):
    """Vectors of length one under ids; the nearest of a query by cosine."""

    name: str

    def __len__(self) -> int: ...

    def add(self, ids: Sequence[str], vectors_NE: np.ndarray) -> None:
        """Keep these; a vector whose id is there already takes its place."""

    def delete(self, ids: Sequence[str]) -> None:
        """Forget these; unknown ids are no error."""

    def search(self, queries_QE: np.ndarray, k: int) -> tuple[list[list[str]], np.ndarray]:
        """Ids and cosines (Q, at most k) of the nearest, best first."""

    def clear(self) -> None:
        """Forget all of them."""

    def flush(self) -> None:
        """What was added and deleted so far survives a kill from now on."""

    def close(self) -> None: ...


def checked_vectors(ids: Sequence[str], vectors_NE: np.ndarray, width: int) -> np.ndarray:
    """The vectors as float32 (N, E), one for each id, each of length one."""
    vectors_NE = np.ascontiguousarray(vectors_NE, np.float32)
    if vectors_NE.shape != (len(ids), width):
        raise ValueError(f"{len(ids)} ids need vectors ({len(ids)}, {width}), got {vectors_NE.shape}")
    for name in ids:
        if not isinstance(name, str):
            raise ValueError(f"ids are strings, and {name!r} is none")
    if len(set(ids)) != len(ids):
        raise ValueError("an id is named twice in one call: leave one of them out")
    check_length(vectors_NE)
    return vectors_NE


def checked_queries(queries_QE: np.ndarray, k: int, width: int) -> np.ndarray:
    """The queries as float32 (Q, E), each of length one."""
    queries_QE = np.ascontiguousarray(queries_QE, np.float32)
    if queries_QE.ndim != 2 or queries_QE.shape[1] != width:
        raise ValueError(f"queries must be (Q, {width}), got {queries_QE.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    check_length(queries_QE)
    return queries_QE


def check_length(vectors_NE: np.ndarray) -> None:
    lengths_N = np.linalg.norm(vectors_NE, axis=1)
    if not np.all(np.abs(lengths_N - 1) <= LENGTH_TOLERANCE):  # NaN is not within it either
        raise ValueError("vectors must have length one: divide each by its norm, and leave out what is not finite")
