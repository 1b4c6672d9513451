"""Bring an index up to the files there are: new and changed ones embedded, moved ones renamed, gone ones forgotten.

A file that kept its size and time is not looked into. What is new or written again is hashed: the same content at a
place that is gone has moved there. Vectors are committed as they come, so that a kill costs seconds.
"""

from __future__ import annotations

import csv
import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from unibrivl.data.places import CONTAINERS, INSIDE, is_url, told, within_reach
from unibrivl.search.catalogue import Entry
from unibrivl.search.index import MOST_ROOTS, Index, write_about
from unibrivl.utils.files import written_whole

BATCHES_AT_ONCE = 8  # things in a call of the embedder, in its batches
BYTES_AT_ONCE = 1 << 27  # of files in a call: long sounds are committed sooner
VECTORS_AT_ONCE = 1 << 14  # in memory before a commit
COMMIT_S = 5.0  # between two commits, so that kill -9 costs seconds
WHOLE_BYTES, END_BYTES = 1 << 22, 1 << 20  # larger files are known by their size, first and last bytes
ERRORS = "errors.csv"


@dataclass(frozen=True)
class UpdateReport:
    """What an update did.

    Args:
        entries (`int`): what the index knows now.
        embedded, unchanged, moved, removed (`int`): files of this update.
        failures (`tuple[tuple[str, str, str], ...]`): path, kind and error of what could not be embedded.
    """

    entries: int
    embedded: int
    unchanged: int
    moved: int
    removed: int
    failures: tuple[tuple[str, str, str], ...]


def content_of(path: str) -> str:
    """A SHA-256 of the bytes; of a large file of its size, first and last megabyte, with a "~" before it."""
    size = os.stat(path).st_size
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
            return digest.hexdigest()
        digest.update(f"{size} ".encode())
        digest.update(file.read(END_BYTES))
        file.seek(-END_BYTES, os.SEEK_END)
        digest.update(file.read())
    return "~" + digest.hexdigest()


def update(
    index: Index,
    embedder: Any,
    inputs: Iterable[Any],
    *,
    folders: Sequence[str | os.PathLike] = (),
    windows: bool = True,
    keep_missing: bool = False,
    progress: bool | None = None,
    commit_s: float = COMMIT_S,
) -> UpdateReport:
    """Embed what is new or has changed, and write down what has moved or is gone.

    Args:
        embedder: a `unibrivl.embedder.Embedder`, or whatever has its verbs and `fingerprint`.
        inputs: the files there are, as `unibrivl.embedder.inputs.find_inputs` finds them.
        folders: those in which all files were looked for, and shards, tables and URLs: what the index knows there and
            is no more, is forgotten.
        windows (`bool`): a vector for every window of a sound instead of one for all of it.
        keep_missing (`bool`): forget nothing.
        progress (`bool`, *optional*): a bar; by default on a terminal.
        commit_s (`float`): seconds between two commits.
    """
    index.check_model(embedder.fingerprint)
    run = Update(index, embedder, windows, commit_s)
    inputs = list(inputs)
    roots = [folder if is_url(folder) else os.path.abspath(folder) for folder in map(os.fsdecode, folders)]
    remember_roots(index, roots)
    hidden = None if progress is None else not progress
    try:
        with tqdm(total=len(inputs), unit=" files", disable=hidden) as run.bar:
            for one in inputs:
                run.look_at(one)
            run.embed_all()
        index.commit()
        removed = 0 if keep_missing else forget_missing(index, roots)
    finally:
        index.commit()  # whatever ended the run, what is embedded is kept
        write_errors(index.folder, run.failures)
    index.flush()
    return UpdateReport(len(index), run.embedded, run.unchanged, run.moved, removed, tuple(run.failures))


class Update:
    """One update: what waits to be embedded, and what was done."""

    def __init__(self, index: Index, embedder: Any, windows: bool, commit_s: float):
        self.index, self.embedder, self.windows, self.commit_s = index, embedder, windows, commit_s
        self.todo: dict[str, list[tuple[Entry, Any]]] = {"audio": [], "image": []}
        self.failures: list[tuple[str, str, str]] = []
        self.embedded = self.unchanged = self.moved = self.vectors = 0
        self.since = time.monotonic()
        self.bar: Any = None

    def look_at(self, one: Any) -> None:
        """An input: is it known, has it moved, or is it to be embedded?"""
        if one.kind not in self.todo:
            raise ValueError("an index of files takes sounds and pictures: add texts with Index.add")
        path, catalogue = place_of(one), self.index.catalogue
        entry = Entry(-1, path, one.kind, one.size_bytes, one.mtime_ns)
        if one.error:
            self.fail(entry, one.error)
            return
        known = catalogue.at(path, one.kind)
        if known is not None:
            catalogue.see([known.number])
            if (known.size_bytes, known.mtime_ns) == (one.size_bytes, one.mtime_ns):
                self.unchanged += 1
                self.bar.update()
                return
        try:
            if one.source is None:  # what is in a shard or behind a URL is not read twice
                entry = replace(entry, content=content_of(path))
        except OSError as error:
            self.fail(entry, error)
            return
        before = known if known is not None and same(known, entry) else self.moved_from(entry)
        if before is None:
            self.todo[one.kind].append((entry, one))
            self.embed_if_enough(one.kind)
            return
        with catalogue.change():
            if known is not None and known.number != before.number:
                catalogue.drop([known])
            catalogue.move(before, path, one.size_bytes, one.mtime_ns)
        catalogue.see([before.number])
        self.moved += before.path != path
        self.unchanged += before.path == path
        self.bar.update()

    def moved_from(self, entry: Entry) -> Entry | None:
        if not entry.content:
            return None
        for other in self.index.catalogue.of_content(entry.content, entry.kind):
            if not os.path.lexists(other.path) and same(other, entry, moved=True):
                return other
        return None

    def embed_if_enough(self, kind: str) -> None:
        waiting = self.todo[kind]
        at_once = BATCHES_AT_ONCE * getattr(self.embedder, "batch_size", 1)
        if len(waiting) >= at_once or sum(entry.size_bytes for entry, _ in waiting) >= BYTES_AT_ONCE:
            self.todo[kind] = []
            self.embed(waiting)

    def embed_all(self) -> None:
        for kind, waiting in self.todo.items():
            self.todo[kind] = []
            if waiting:
                self.embed(waiting)

    def embed(self, things: list[tuple[Entry, Any]]) -> None:
        """Things of one kind, those fetched that are no files here."""
        entries = [entry for entry, _ in things]
        numbered = [replace(one, id=str(place)) for place, (_, one) in enumerate(things)]
        for portion, broken in within_reach(numbered):
            for one, error in broken:
                self.fail(entries[int(one.id)], error)
            if portion:
                self.embed_files(entries, portion)

    def embed_files(self, entries: list[Entry], inputs: list[Any]) -> None:
        """A call that fails is tried again file by file, to find the one to blame."""
        names, paths = [one.id for one in inputs], [one.path for one in inputs]
        how = {"on_error": "collect", "progress": False, "ids": names}
        try:
            if inputs[0].kind == "audio":
                found = self.embedder.encode_audio(paths, timestamps=self.windows, **how)
            else:
                found = self.embedder.encode_image(paths, **how)
        except ValueError as error:
            if len(inputs) == 1:
                self.fail(entries[int(inputs[0].id)], told(error, inputs[0]))
                return
            for one in inputs:
                self.embed_files(entries, [one])
            return
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(found.ids):
            rows.setdefault(name, []).append(row)
        for name, mine in rows.items():
            times = None if found.times is None else [found.times[row] for row in mine]
            self.index.keep(replace(entries[int(name)], windows=len(mine)), times, found.vectors[mine])
        self.embedded += len(rows)
        self.vectors += len(found.ids)
        self.bar.update(len(rows))
        by_id = {one.id: one for one in inputs}
        for failure in found.failures:
            self.fail(entries[int(failure.id)], told(failure.error, by_id[failure.id]))
        if self.vectors >= VECTORS_AT_ONCE or time.monotonic() - self.since >= self.commit_s:
            self.index.commit()
            self.vectors, self.since = 0, time.monotonic()

    def fail(self, entry: Entry, error: object) -> None:
        """What has changed and cannot be read is no longer what the index holds of it."""
        self.failures.append((entry.path, entry.kind, str(error)))
        known = self.index.catalogue.at(entry.path, entry.kind)
        if known is not None and os.path.lexists(entry.path):
            with self.index.catalogue.change():
                self.index.catalogue.drop([known])
        self.bar.update()


def place_of(one: Any) -> str:
    """The name under which a thing is known."""
    if one.source is not None:
        return one.source.place
    return one.id if one.path is None else os.path.abspath(one.path)


def same(known: Entry, entry: Entry, moved: bool = False) -> bool:
    """Whether the content is the same. Of a large file only its ends are known, so its time has to agree as well."""
    if known.content != entry.content or not entry.content:
        return False
    return not entry.content.startswith("~") or (moved and known.mtime_ns == entry.mtime_ns)


def forget_missing(index: Index, roots: Iterable[str]) -> int:
    """What lay below these, was not seen now, and is not there."""
    missing = {
        entry.number: entry
        for root in roots
        for begins in beginnings(root)
        for entry in index.catalogue.unseen(begins)
        if not os.path.lexists(entry.path)
    }
    with index.catalogue.change():
        index.catalogue.drop(missing.values())
    return len(missing)


def beginnings(root: str) -> list[str]:
    """How the names begin of what lies in a folder, a shard, a table, or below a URL; of a pattern nobody can say."""
    if not is_url(root):
        return [os.path.join(root, "")] if os.path.isdir(root) else [root + INSIDE] if os.path.isfile(root) else []
    if any(mark in root for mark in "*?[{"):
        return []
    return [root + INSIDE] if root.lower().endswith(CONTAINERS) else [root.rstrip("/") + "/"]


def remember_roots(index: Index, folders: Iterable[str]) -> None:
    """For the command that makes the index anew."""
    roots = list(dict.fromkeys([*index.about["roots"], *folders]))[:MOST_ROOTS]
    if roots != index.about["roots"]:
        index.about["roots"] = roots
        write_about(index.folder, index.about)


def write_errors(folder: Path, failures: Sequence[tuple[str, str, str]]) -> None:
    path = folder / ERRORS
    if not failures:
        path.unlink(missing_ok=True)
        return
    with (
        written_whole(path) as partial,
        open(partial, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        csv.writer(file).writerows([("path", "kind", "error"), *failures])
