"""The parts of an unfinished file of vectors: a folder beside it, for one process at a time.

A part is a small file of the output's own format, written whole or not at all, and says itself which model made it and
which files, of what size and time, are in it: so there is no list that could disagree with the parts.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from unibrivl.embedder import vector_file
from unibrivl.embedder.inputs import Input
from unibrivl.embedder.vector_file import Held, Key
from unibrivl.utils.files import locked

PART_S = 10.0  # a part is written once this has passed since the last, so that kill -9 costs seconds
RESTARTED = "restarted"  # a file in the folder: the output that is there will be replaced, not extended

Found = list[tuple[float, float, np.ndarray]]  # begin, end, vector; NaN where there are no windows


def beside(out: Path, suffix: str) -> Path:
    return out.with_name(out.name + suffix)


class Parts:
    """The folder of parts beside the output, for one process at a time; what is in it and in the output."""

    def __init__(self, out: Path, about: dict[str, Any], restart: bool):
        self.out, self.about, self.restart = out, about, restart
        self.folder = beside(out, ".parts")
        self.finished = False  # set when the output is in its place
        self._waiting: list[tuple[Input, Found]] = []
        self._since = time.monotonic()
        self._lock = locked(self.folder)

    def __enter__(self) -> Parts:
        self.folder.mkdir(exist_ok=True)
        self._lock.__enter__()
        try:
            self._prepare()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self.finished:
            (self.folder / RESTARTED).unlink(missing_ok=True)  # first: from now on the output counts
            self._remove_parts()
        self._leave()

    def _prepare(self) -> None:
        if self.restart:
            self._remove_parts()
            if self.out.exists():
                (self.folder / RESTARTED).touch()
        elif not self.numbers():  # a restart that came to nothing takes nothing away
            (self.folder / RESTARTED).unlink(missing_ok=True)
        # what a process that was killed was writing
        leftovers = [
            *self.folder.glob(".*.partial"),
            self.folder / "scratch",
            self.out.with_name(f".{self.out.name}.partial"),
        ]
        for path in leftovers:
            path.unlink(missing_ok=True)
        for path in self.files():
            try:
                there = vector_file.read_about(path)
            except ValueError as error:
                raise ValueError(f"{error}. Delete or move it, or replace it with --restart (restart=True)") from error
            check_same(there, self.about, path)

    def _leave(self) -> None:
        lock = self.folder / "lock"
        is_empty = all(path == lock for path in self.folder.iterdir())
        self._lock.__exit__(None, None, None)
        if is_empty:
            with suppress(OSError):  # somebody may have begun a run in it by now
                lock.unlink()
                self.folder.rmdir()

    def _remove_parts(self) -> None:
        for number in self.numbers():
            self._part(number).unlink()

    def numbers(self) -> list[int]:
        """Of the parts, in the order they were written."""
        found = (re.fullmatch(r"part-(\d+)\.parquet", path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def files(self) -> list[Path]:
        """The output, if it is to be extended, and the parts."""
        extends = self.out.exists() and not (self.folder / RESTARTED).exists()
        return [self.out] * extends + [self._part(number) for number in self.numbers()]

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.parquet"

    def state(self) -> dict[Key, Held]:
        return vector_file.scan(self.files())

    def width(self) -> int:
        files = self.files()
        return vector_file.read_about(files[0])["width"] if files else 0

    def add(self, one: Input, found: Found) -> None:
        self._waiting.append((one, found))

    def flush_if_due(self) -> None:
        if time.monotonic() - self._since >= PART_S:
            self.flush()

    def flush(self) -> None:
        """What waits becomes a part."""
        self._since = time.monotonic()
        if not self._waiting:
            return
        width = len(self._waiting[0][1][0][2])
        keys = [one.key for one, found in self._waiting for _ in found]
        rows = [
            (vector, begin_s, end_s, one.size_bytes, one.mtime_ns)
            for one, found in self._waiting
            for begin_s, end_s, vector in found
        ]
        records = np.array(rows, vector_file.record_type(width))
        number = max(self.numbers(), default=0) + 1
        vector_file.write_rows(self._part(number), width, self.about, [(keys, records)])
        self._waiting = []

    def how_to_go_on(self) -> str:
        if not self.numbers():
            return "stopped before anything was embedded"
        again = "the same command without --restart" if self.restart else "the same command"
        return f"stopped; what is embedded is kept in {self.folder}, and {again} goes on from there"


def check_same(there: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Refuses to put vectors beside others that they cannot be compared with."""
    if there["fingerprint"] == now["fingerprint"] and there["settings"]["windows"] == now["settings"]["windows"]:
        return
    old, new = ({name: one.get(name) for name in ("model", "revision")} | one["settings"] for one in (there, now))
    differing = [f"{name} was {old.get(name)!r} and is {new[name]!r}" for name in new if old.get(name) != new[name]]
    what = ", ".join(differing) or "the weights, or what prepares the input, have changed under the same name"
    raise ValueError(
        f"{where} holds vectors of another model or other settings: {what}. Choose another --out, or embed all of it "
        "anew with --restart (restart=True)"
    )
