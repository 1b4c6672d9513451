"""Files that are written whole or not at all, and folders that one process writes into at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to, which becomes `path` when all is written, and is removed when that fails."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with open(partial, "r+b") as file:  # on the disk before it takes the place of what was there
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process, however that ends."""
    with open(folder / "lock", "w") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ValueError(
                f"another process is writing into {folder}: wait for it, or choose another --out"
            ) from error
        yield
