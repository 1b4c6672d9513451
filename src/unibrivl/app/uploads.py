"""Files that visitors send: kept while somebody's page still holds them, then deleted.

The page keeps a sound so that another seed or another volume needs no second upload. It is deleted when another takes
its place, when the page is closed, and at the latest with the server, whose folder of uploads goes with it.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path


class Uploads:
    """
    Args:
        folder: where the server puts uploads; nothing outside it is ever deleted.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder).resolve()
        self._held: dict[str, set[Path]] = {}  # visitor -> files
        self._lock = threading.Lock()

    def hold(self, visitor: str, paths: Iterable[str | os.PathLike | None]) -> None:
        """These are what the visitor's page holds now: what it held before goes, unless another holds it as well."""
        now = {Path(path).resolve() for path in paths if path}
        with self._lock:
            before = self._held.get(visitor, set())
            self._held[visitor] = {path for path in now if self._is_ours(path)}
            self._delete(before - now)

    def leave(self, visitor: str) -> None:
        """The visitor's page was closed."""
        with self._lock:
            self._delete(self._held.pop(visitor, set()))

    def _delete(self, paths: set[Path]) -> None:
        in_use = set[Path]().union(*self._held.values())  # of two equal uploads there is one file
        for path in paths - in_use:
            path.unlink(missing_ok=True)
            if path.parent != self.folder and not any(path.parent.iterdir()):
                shutil.rmtree(path.parent, ignore_errors=True)

    def _is_ours(self, path: Path) -> bool:
        return self.folder in path.parents


__all__ = ["Uploads"]
