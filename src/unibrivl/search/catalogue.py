"""The catalogue: which files an index knows, what they were when they were embedded, and under which numbers.

An SQLite file, so that ten million names need no memory and a change of many rows is there or is not. A file has a
number that no other ever gets, and its vectors have ids "number.window". A number is written down as begun before its
vectors are kept, and as known after: whoever is killed in between leaves numbers to be forgotten, and no vectors that
nobody knows of.

Paths are kept as the bytes they are on the disk, absolute.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BEGUN, KNOWN, GONE = 0, 1, 2  # states of an entry
TABLES = """
create table if not exists entries (
    number integer primary key autoincrement,
    path blob not null,
    kind text not null,
    size_bytes integer not null,
    mtime_ns integer not null,
    content text not null,
    windows integer not null,
    state integer not null
);
create index if not exists by_path on entries (path);
create index if not exists by_content on entries (content);
create index if not exists by_state on entries (state) where state != 1;
create table if not exists windows (
    number integer not null,
    place integer not null,
    begin_s real not null,
    end_s real not null,
    primary key (number, place)
) without rowid;
create table if not exists untold (id text primary key) without rowid;
create temp table if not exists seen (number integer primary key);
"""
COLUMNS = "number, path, kind, size_bytes, mtime_ns, content, windows"
SYNCHRONOUS = "full"  # a change is on the disk before it counts
MOST_NAMED = 500  # values in one statement


@dataclass(frozen=True)
class Entry:
    """A file, or something that was added under a name.

    Args:
        number (`int`): of the entry; -1 before it has one.
        path (`str`): where it lies, or its name.
        kind (`str`): "audio", "image" or "text".
        size_bytes, mtime_ns (`int`): of the file when it was embedded; -1 for what is no file.
        content (`str`): of its bytes, see `content_of`; empty for what is no file.
        windows (`int`): vectors it has.
    """

    number: int
    path: str
    kind: str
    size_bytes: int = -1
    mtime_ns: int = -1
    content: str = ""
    windows: int = 1

    @property
    def ids(self) -> list[str]:
        return [f"{self.number}.{place}" for place in range(self.windows)]


def _entry(row: tuple) -> Entry:
    number, path, *others = row
    return Entry(number, os.fsdecode(path), *others)


class Catalogue:
    def __init__(self, path: Path, read_only: bool = False):
        self.path = path
        where = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        try:
            self.sql = sqlite3.connect(where, uri=True, timeout=60, isolation_level=None)
            self.sql.execute(f"pragma synchronous = {SYNCHRONOUS}")
            if not read_only:
                self.sql.executescript(TABLES)
            self.count()
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{path} is no catalogue of ours, or is damaged: {error}") from error

    @contextmanager
    def change(self) -> Iterator[None]:
        """All of what is done inside, or nothing."""
        self.sql.execute("begin immediate")
        try:
            yield
        except BaseException:
            self.sql.execute("rollback")
            raise
        self.sql.execute("commit")

    def close(self) -> None:
        self.sql.close()

    def count(self, kind: str | None = None) -> int:
        where, given = ("", ()) if kind is None else (" and kind = ?", (kind,))
        return self.sql.execute(f"select count(*) from entries where state = {KNOWN}{where}", given).fetchone()[0]

    def entries(self) -> Iterator[Entry]:
        yield from map(
            _entry, self.sql.execute(f"select {COLUMNS} from entries where state = {KNOWN} order by number")
        )

    def at(self, path: str, kind: str) -> Entry | None:
        found = self.sql.execute(
            f"select {COLUMNS} from entries where path = ? and kind = ? and state = {KNOWN}", (os.fsencode(path), kind)
        ).fetchone()
        return None if found is None else _entry(found)

    def of_content(self, content: str, kind: str) -> list[Entry]:
        found = self.sql.execute(
            f"select {COLUMNS} from entries where content = ? and kind = ? and state = {KNOWN}", (content, kind)
        )
        return [_entry(row) for row in found.fetchall()]

    def numbered(self, numbers: Sequence[int]) -> dict[int, Entry]:
        """Those that are known, by number."""
        found: dict[int, Entry] = {}
        for begin in range(0, len(numbers), MOST_NAMED):
            some = numbers[begin : begin + MOST_NAMED]
            marks = ",".join("?" * len(some))
            rows = self.sql.execute(
                f"select {COLUMNS} from entries where number in ({marks}) and state = {KNOWN}", some
            )
            found |= {row[0]: _entry(row) for row in rows}
        return found

    def times(self, number: int, place: int) -> tuple[float, float] | None:
        found = self.sql.execute(
            "select begin_s, end_s from windows where number = ? and place = ?", (number, place)
        ).fetchone()
        return None if found is None else (found[0], found[1])

    def begin(self, things: Sequence[tuple[Entry, Sequence[tuple[float, float]] | None]]) -> list[Entry]:
        """Entries, each with the times of its windows, as they are from now on: with numbers, and not yet known."""
        last = self.sql.execute("select seq from sqlite_sequence where name = 'entries'").fetchone()
        first = 1 + (last[0] if last else 0)
        begun = [
            Entry(number, one.path, one.kind, one.size_bytes, one.mtime_ns, one.content, one.windows)
            for number, (one, _) in enumerate(things, first)
        ]
        self.sql.executemany(
            f"insert into entries ({COLUMNS}, state) values (?, ?, ?, ?, ?, ?, ?, {BEGUN})",
            (
                (one.number, os.fsencode(one.path), one.kind, one.size_bytes, one.mtime_ns, one.content, one.windows)
                for one in begun
            ),
        )
        self.sql.executemany(
            "insert into windows values (?, ?, ?, ?)",
            (
                (number, place, begin_s, end_s)
                for number, (_, times) in enumerate(things, first)
                for place, (begin_s, end_s) in enumerate(times or ())
            ),
        )
        return begun

    def know(self, entries: Sequence[Entry]) -> None:
        """Their vectors are kept: they count now, and what counted at their places does no longer."""
        self.sql.executemany(
            f"update entries set state = {GONE} where path = ? and kind = ? and state = {KNOWN}",
            ((os.fsencode(entry.path), entry.kind) for entry in entries),
        )
        self.sql.executemany(
            f"update entries set state = {KNOWN} where number = ?", ((entry.number,) for entry in entries)
        )

    def drop(self, entries: Iterable[Entry]) -> None:
        self.sql.executemany(
            f"update entries set state = {GONE} where number = ?", ((entry.number,) for entry in entries)
        )

    def move(self, entry: Entry, path: str, size_bytes: int, mtime_ns: int) -> None:
        """The same content at another place, or written again."""
        self.sql.execute(
            "update entries set path = ?, size_bytes = ?, mtime_ns = ? where number = ?",
            (os.fsencode(path), size_bytes, mtime_ns, entry.number),
        )

    def leftovers(self) -> list[Entry]:
        """Entries whose vectors are to be forgotten: gone, or begun by somebody who was killed."""
        return [_entry(row) for row in self.sql.execute(f"select {COLUMNS} from entries where state != {KNOWN}")]

    def forget(self, entries: Iterable[Entry]) -> None:
        """Their vectors are gone. Their ids are written down for the engine that has yet to be told."""
        for entry in entries:
            self.sql.executemany("insert or ignore into untold values (?)", ((name,) for name in entry.ids))
            self.sql.execute("delete from windows where number = ?", (entry.number,))
            self.sql.execute("delete from entries where number = ?", (entry.number,))

    def untold(self) -> list[str]:
        return [row[0] for row in self.sql.execute("select id from untold")]

    def told(self) -> None:
        self.sql.execute("delete from untold")

    def see(self, numbers: Iterable[int]) -> None:
        self.sql.executemany("insert or ignore into seen values (?)", ((number,) for number in numbers))

    def unseen(self, begins: str) -> Iterator[Entry]:
        """Those whose path begins so and that nobody has seen since the catalogue was opened."""
        below = os.fsencode(begins)
        after = below[:-1] + bytes([below[-1] + 1])
        found = self.sql.execute(
            f"select {COLUMNS} from entries where path >= ? and path < ? and state = {KNOWN}"
            " and number not in (select number from seen)",
            (below, after),
        )
        for row in found.fetchall():
            yield _entry(row)
