"""A PostgreSQL server with pgvector: the package pgserver carries one. It is started once, in a folder of its own."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def dsn(tmp_path_factory):
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    pytest.importorskip("pgvector", reason="the extra postgres is not installed")
    pgserver = pytest.importorskip("pgserver", reason="pgserver, which carries a PostgreSQL server, is not installed")
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()
