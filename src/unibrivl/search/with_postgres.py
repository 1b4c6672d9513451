"""PostgreSQL with pgvector as an engine: a table of ids and vectors in a database that others may read too.

Each index is one table (id text, embedding vector), and a row in `unibrivl_indexes` says of which model and width it
is. Without an index of its own a table is searched exactly; `build_index` makes an HNSW graph, which answers faster
and may miss some. Every `add` is one transaction: when it returns, all of it is on the server's disk.

Shapes: N vectors, Q queries, E embedding.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from unibrivl.search.database_rows import (
    FORMAT,
    as_result,
    can_be_held,
    check_about,
    checked_rows,
    known_name,
    remember_name,
)
from unibrivl.search.engine import checked_queries
from unibrivl.utils import require

DSN = "UNIBRIVL_POSTGRES_DSN"  # environment variable: where the database is, password and all
CONNECTION = {"dsn": DSN}
PLACE = "table"
FILE = "postgres.json"  # in the folder: the table's name, and never the password
MOST_ID_BYTES = 2600  # a key of a B-tree is less than a third of PostgreSQL's page of 8 kB
MOST_NAME_BYTES = 50  # PostgreSQL cuts names at 63 without a word, and the index's is longer by its suffix
MOST_HNSW_WIDTH = 2000  # pgvector's limit of an index on its type vector
MOST_EF_SEARCH = 1000  # pgvector's limit of hnsw.ef_search
IDS_AT_ONCE = 1000


def make_engine(
    folder: str | os.PathLike,
    width: int,
    *,
    dsn: str | None = None,
    table: str | None = None,
    fingerprint: str | None = None,
    ef_search: int = 100,
) -> PostgresEngine:
    """The table of the index in `folder`, made where there is none.

    Args:
        dsn (`str`, *optional*): where the database is, "postgresql://..." or "host=... dbname=..."; by default what
            the environment variable UNIBRIVL_POSTGRES_DSN says. An empty one leaves it to PGHOST and its kin.
        table (`str`, *optional*): its name; by default one that is made up, and kept in the folder.
        fingerprint (`str`, *optional*): of the embedder; a table of another one is refused. None accepts any.
        ef_search (`int`): how many candidates HNSW looks at; more find more and take longer.
    """
    dsn = os.environ.get(DSN) if dsn is None else dsn
    if dsn is None:
        raise ValueError(f"say where the database is: dsn='postgresql://...', or the environment variable {DSN}")
    if not isinstance(ef_search, int) or not 1 <= ef_search <= MOST_EF_SEARCH:
        raise ValueError(f"ef_search is from 1 to {MOST_EF_SEARCH}, got {ef_search}")
    if table is not None and (not table or "%" in table or not can_be_held(table, MOST_NAME_BYTES)):
        # psycopg takes % for a placeholder even inside a quoted name
        raise ValueError(f"a table's name has 1 to {MOST_NAME_BYTES} bytes, no NUL and no %, and this is {table!r}")
    require("psycopg", "postgres", "an index in PostgreSQL")
    require("pgvector.psycopg", "postgres", "an index in PostgreSQL")
    link = Link(dsn)
    try:
        engine = PostgresEngine(link, known_name(folder, FILE, table, "table"), width, ef_search)
        link.do(lambda connection: engine.prepare(connection, fingerprint))
        remember_name(folder, FILE, engine.table)
    except BaseException:
        link.close()
        raise
    return engine


def check_usable() -> None:
    """An empty one leaves it to PGHOST and its kin."""
    if DSN not in os.environ:
        raise ValueError(f"an index in PostgreSQL asks the server that the environment variable {DSN} names: set it")
    require("psycopg", "postgres", "an index in PostgreSQL")
    require("pgvector.psycopg", "postgres", "an index in PostgreSQL")


class Link:
    """A connection that is made anew where it was lost: servers restart, and what is asked here may be asked twice."""

    def __init__(self, dsn: str):
        self.dsn, self.lock = dsn, threading.RLock()
        self.connection = self.connect()

    def connect(self) -> Any:
        psycopg = require("psycopg", "postgres", "an index in PostgreSQL")
        pgvector = require("pgvector.psycopg", "postgres", "an index in PostgreSQL")
        try:
            connection = psycopg.connect(self.dsn, autocommit=True, client_encoding="utf8")
        except psycopg.OperationalError as error:
            raise ConnectionError(f"PostgreSQL cannot be reached: {str(error).strip()}") from error
        except psycopg.ProgrammingError as error:
            raise ValueError(f"dsn is no address of PostgreSQL: {str(error).strip()}") from error
        try:
            if connection.execute("SHOW server_encoding").fetchone()[0] != "UTF8":
                raise ValueError("ids are Unicode, and this database is not in UTF8: make one with ENCODING 'UTF8'")
            connection.execute("SET synchronous_commit = on")  # flush promises a disk, whatever the server's default
            if not connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
                try:
                    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                except psycopg.Error as error:
                    raise ValueError(
                        "this database has no pgvector: install it and run CREATE EXTENSION vector as its "
                        f"administrator ({str(error).strip()})"
                    ) from error
            pgvector.register_vector(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def do(self, work: Callable[[Any], Any]) -> Any:
        """`work` in one transaction; once more where the connection broke."""
        psycopg = require("psycopg", "postgres", "an index in PostgreSQL")
        with self.lock:
            if self.connection is None:
                raise ValueError("this engine is closed: open it again")
            for is_last in (False, True):
                if self.connection.closed:
                    self.connection = self.connect()
                try:
                    with self.connection.transaction():
                        return work(self.connection)
                except psycopg.OperationalError as error:
                    if is_last or not self.connection.closed:
                        raise ConnectionError(f"PostgreSQL did not answer: {str(error).strip()}") from error
                except psycopg.DatabaseError as error:  # rights that are missing, a table that somebody removed
                    raise ValueError(f"PostgreSQL refused: {str(error).strip()}") from error

    def close(self) -> None:
        with self.lock:
            if self.connection is not None:
                self.connection.close()
            self.connection = None


class PostgresEngine:
    """See `make_engine`, which makes it."""

    name = "postgres"

    def __init__(self, link: Link, table: str, width: int, ef_search: int):
        sql = require("psycopg.sql", "postgres", "an index in PostgreSQL")
        self.link, self.table, self.width, self.ef_search = link, table, width, ef_search
        self.names = {
            "table": sql.Identifier(table),
            "index": sql.Identifier(f"{table}_hnsw"),
            "width": sql.Literal(width),
        }

    def said(self, statement: str, **more: Any) -> Any:
        """A statement with names in their places, quoted by psycopg: a name is never pasted into SQL."""
        sql = require("psycopg.sql", "postgres", "an index in PostgreSQL")
        return sql.SQL(statement).format(**self.names, **more)

    def prepare(self, connection: Any, fingerprint: str | None) -> None:
        """The table and its row, made or checked; one process at a time, since two may begin together."""
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('unibrivl_indexes'))")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS unibrivl_indexes "
            "(name text PRIMARY KEY, format integer NOT NULL, fingerprint text NOT NULL, width integer NOT NULL)"
        )
        row = connection.execute(
            "SELECT format, fingerprint, width FROM unibrivl_indexes WHERE name = %s", [self.table]
        ).fetchone()
        is_there = connection.execute("SELECT to_regclass(%s)", [self.said("{table}").as_string()]).fetchone()[0]
        if row is not None:
            there = dict(zip(("format", "fingerprint", "width"), row, strict=True))
            check_about(there, self.width, fingerprint, f"the table {self.table!r}")
        elif is_there is not None:
            raise ValueError(f"{self.table!r} is there and no index of ours: choose another table")
        if is_there is None:
            connection.execute(
                self.said("CREATE TABLE {table} (id text PRIMARY KEY, embedding vector({width}) NOT NULL)")
            )
        if row is None:
            connection.execute(
                "INSERT INTO unibrivl_indexes VALUES (%s, %s, %s, %s)",
                [self.table, FORMAT, fingerprint or "", self.width],
            )

    def __len__(self) -> int:
        return self.link.do(
            lambda connection: connection.execute(self.said("SELECT count(*) FROM {table}")).fetchone()[0]
        )

    def add(self, ids: Sequence[str], vectors_NE: np.ndarray) -> None:
        """All of it or nothing; what has the same id is replaced."""
        vectors_NE = checked_rows(ids, vectors_NE, self.width, MOST_ID_BYTES)
        if len(ids):
            self.link.do(lambda connection: self._add(connection, ids, vectors_NE))

    def _add(self, connection: Any, ids: Sequence[str], vectors_NE: np.ndarray) -> None:
        # COPY is the quick way in and knows no conflicts: it fills a table of this session, which one INSERT empties
        connection.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS unibrivl_coming (id text, embedding vector) ON COMMIT DELETE ROWS"
        )
        copy_in = "COPY pg_temp.unibrivl_coming (id, embedding) FROM STDIN WITH (FORMAT BINARY)"
        with connection.cursor() as cursor, cursor.copy(copy_in) as copy:
            copy.set_types(["text", "vector"])
            for name, vector in zip(ids, vectors_NE, strict=True):
                copy.write_row((name, vector))
        connection.execute(
            self.said(
                "INSERT INTO {table} (id, embedding) SELECT id, embedding FROM pg_temp.unibrivl_coming "
                "ON CONFLICT (id) DO UPDATE SET embedding = EXCLUDED.embedding"
            )
        )

    def delete(self, ids: Sequence[str]) -> None:
        """Ids that are not there, or could not be, are no error."""
        known = [name for name in ids if can_be_held(name, MOST_ID_BYTES)]

        def work(connection: Any) -> None:
            for start in range(0, len(known), IDS_AT_ONCE):
                some = known[start : start + IDS_AT_ONCE]
                connection.execute(self.said("DELETE FROM {table} WHERE id = ANY(%s)"), [some])

        if known:
            self.link.do(work)

    def search(self, queries_QE: np.ndarray, k: int) -> tuple[list[list[str]], np.ndarray]:
        """Ids and cosines (Q, <= k), best first; as near as HNSW finds them where there is an index."""
        queries_QE = checked_queries(queries_QE, k, self.width)
        return as_result(self.link.do(lambda connection: self._search(connection, queries_QE, k)))

    def _search(self, connection: Any, queries_QE: np.ndarray, k: int) -> list[list[tuple[str, float]]]:
        # HNSW gives no more than ef_search rows, and counts dead ones among them: what falls short is asked exactly
        asked = max(self.ef_search, k)
        connection.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(min(asked, MOST_EF_SEARCH))])
        nearest = "SELECT id, 1 - (embedding <=> %s) FROM {table} ORDER BY embedding <=> %s LIMIT %s"
        exactly = "SELECT id, 1 - (embedding <=> %s) FROM {table} ORDER BY (embedding <=> %s) + 0 LIMIT %s"  # no index
        first = self.said(nearest if asked <= MOST_EF_SEARCH else exactly)
        count, found = k, []
        for query in queries_QE:
            rows = connection.execute(first, [query, query, k]).fetchall()
            if len(rows) < min(k, count):
                count = connection.execute(self.said("SELECT count(*) FROM {table}")).fetchone()[0]
            if len(rows) < min(k, count):
                rows = connection.execute(self.said(exactly), [query, query, k]).fetchall()
            found.append(rows)
        return found

    def build_index(self, links: int = 16, ef_construction: int = 64) -> None:
        """An HNSW graph, where there is none: searches are quicker then, and `add` is slower.

        Args:
            links (`int`): of a vector to others, pgvector's m; its default.
            ef_construction (`int`): candidates looked at for each link; pgvector's default.
        """
        sql = require("psycopg.sql", "postgres", "an index in PostgreSQL")
        if self.width > MOST_HNSW_WIDTH:
            raise ValueError(
                f"pgvector indexes vectors of at most {MOST_HNSW_WIDTH} numbers, and these have {self.width}: without "
                "an index the search is exact"
            )
        numbers = {"links": sql.Literal(links), "ef": sql.Literal(ef_construction)}
        statement = (
            "CREATE INDEX IF NOT EXISTS {index} ON {table} USING hnsw (embedding vector_cosine_ops) "
            "WITH (m = {links}, ef_construction = {ef})"
        )
        self.link.do(lambda connection: connection.execute(self.said(statement, **numbers)))

    def drop_index(self) -> None:
        """Back to the exact search."""
        self.link.do(lambda connection: connection.execute(self.said("DROP INDEX IF EXISTS {index}")))

    def clear(self) -> None:
        """All is forgotten; the table stays, with its index."""
        self.link.do(lambda connection: connection.execute(self.said("DELETE FROM {table}")))

    def drop(self) -> None:
        """The table is removed, with all that is in it."""

        def work(connection: Any) -> None:
            connection.execute(self.said("DROP TABLE IF EXISTS {table}"))
            connection.execute("DELETE FROM unibrivl_indexes WHERE name = %s", [self.table])

        self.link.do(work)

    def flush(self) -> None:
        """Nothing to do: what `add` and `delete` did is committed when they return."""

    def close(self) -> None:
        self.link.close()
