"""What an engine is: vectors of length one under ids, and the nearest of a query by cosine.

Shapes: N vectors, Q queries, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Engine(Protocol):
    """Vectors of length one under ids; the nearest of a query by cosine."""

    name: str

    def __len__(self) -> int: ...

    def add(self, ids: Sequence[str], vectors_NE: np.ndarray) -> None:
        """What has the same id is replaced."""

    def delete(self, ids: Sequence[str]) -> None:
        """Unknown ids are no error."""

    def search(self, queries_QE: np.ndarray, k: int) -> tuple[list[list[str]], np.ndarray]:
        """Ids and cosines (Q, <= k), best first."""

    def flush(self) -> None:
        """What was added survives a kill after this."""

    def close(self) -> None: ...
