"""Databases as engines, on a real PostgreSQL server and Qdrant's embedded engine, against numpy's brute force.

The server is the one of `conftest.py`.

Shapes: N vectors, Q queries, E embedding.
"""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unibrivl.search import open_engine

WIDTH = 24
HOSTILE = [
    "it's", 'a "quote"', "'; DROP TABLE unibrivl_indexes; --", "caf\u00e9 \U0001f426", "two\nlines", "tab\tand\\slash",
    "%s %(x)s {0}", "", " ", "x" * 2500, "\\.", "NULL",
]  # fmt: skip

# the process that is killed: one flushed batch, then more, until it ends
WRITER = """
import sys
import numpy as np
from unibrivl.search import open_engine
name, folder, dsn = sys.argv[1:]
engine = open_engine(name, folder, 24, fingerprint="f", **({"dsn": dsn} if dsn else {}))
vectors = np.load(folder + "/vectors.npy")
engine.add([f"id {row}" for row in range(20)], vectors[:20])
engine.flush()
print("flushed", flush=True)
while True:
    engine.add([f"id {row}" for row in range(20, 40)], vectors[20:])
"""


def unit(count: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    vectors_NE = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return vectors_NE / np.linalg.norm(vectors_NE, axis=1, keepdims=True)


def nearest(
    ids: list[str], vectors_NE: np.ndarray, queries_QE: np.ndarray, k: int
) -> tuple[list[list[str]], np.ndarray]:
    cosines_QN = queries_QE.astype(np.float64) @ vectors_NE.astype(np.float64).T
    order_QK = np.argsort(-cosines_QN, axis=1)[:, :k]
    return [[ids[row] for row in rows] for rows in order_QK], np.take_along_axis(cosines_QN, order_QK, 1)


@pytest.fixture(params=["postgres", "qdrant"])
def opened(request, tmp_path):
    """A function that opens the engine in this test's folder; what it opened is closed at the end."""
    name, engines = request.param, []
    if name == "postgres":
        options = {"dsn": request.getfixturevalue("dsn")}
    else:
        pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
        options = {}

    def open_it(width: int = WIDTH, folder: Path = tmp_path / "index", **more):
        engines.append(open_engine(name, folder, width, **options, **more))
        return engines[-1]

    open_it.name, open_it.options = name, options
    yield open_it
    for engine in engines:
        engine.close()


def test_the_nearest_are_those_of_numpy(opened, monkeypatch):
    vectors_NE, queries_QE = unit(120), unit(7, seed=1)
    ids = [f"sounds/{row}.wav" for row in range(120)]
    monkeypatch.setattr("unibrivl.search.with_qdrant.POINTS_AT_ONCE", 50)
    engine = opened()
    assert (engine.name, len(engine)) == (opened.name, 0)
    assert engine.search(queries_QE, 3)[0] == [[]] * 7
    engine.add(ids[:5], vectors_NE[:5])
    engine.add(ids[5:], vectors_NE[5:])  # several batches
    assert len(engine) == 120
    for k in (1, 10):
        wanted, expected_QK = nearest(ids, vectors_NE, queries_QE, k)
        found, cosines_QK = engine.search(queries_QE, k)
        assert found == wanted
        assert (cosines_QK.shape, cosines_QK.dtype) == ((7, k), np.float32)
        assert np.abs(cosines_QK - expected_QK).max() < 1e-5
    found, cosines_QK = engine.search(queries_QE[:2], 200)  # more than there are
    assert cosines_QK.shape == (2, 120)
    assert set(found[0]) == set(ids)
    assert (np.diff(cosines_QK) <= 0).all()


def test_adding_replaces_and_deleting_forgets(opened):
    vectors_NE, engine = unit(6), opened()
    engine.add(list("abcd"), vectors_NE[:4])
    engine.add(["b", "e"], vectors_NE[[4, 5]])
    engine.add([], np.zeros((0, WIDTH)))
    engine.delete(["a", "nowhere", "nul\0", "\ud800"])
    engine.delete([])
    assert len(engine) == 4
    wanted = nearest(list("bcde"), vectors_NE[[4, 2, 3, 5]], vectors_NE, 4)
    found = engine.search(vectors_NE, 4)
    assert found[0] == wanted[0]
    assert np.abs(found[1] - wanted[1]).max() < 1e-5


def test_hostile_ids_come_back_as_they_went(opened):
    vectors_NE, engine = unit(len(HOSTILE)), opened()
    engine.add(HOSTILE, vectors_NE)
    assert [row[0] for row in engine.search(vectors_NE, 1)[0]] == HOSTILE
    engine.delete(HOSTILE[:6])
    assert len(engine) == len(HOSTILE) - 6
    for name in ("nul\0", "half \ud800"):
        with pytest.raises(ValueError, match="cannot be held"):
            engine.add(["good", name], vectors_NE[:2])
    assert len(engine) == len(HOSTILE) - 6  # all or nothing


def test_hostile_names_of_tables_and_collections(opened, tmp_path):
    if opened.name == "postgres":
        option, names = "table", ['x"; DROP TABLE unibrivl_indexes; --', "unibrivl_indexes; --", "caf\u00e9 'n' {0}"]
    else:
        option, names = "collection", ["a b", "caf\u00e9"]
    vectors_NE = unit(2)
    for number, name in enumerate(names):
        engine = opened(folder=tmp_path / str(number), fingerprint="f", **{option: name})
        engine.add(["one"], vectors_NE[:1])
        engine.close()
        again = opened(folder=tmp_path / str(number), fingerprint="f")  # the folder knows the name
        assert again.search(vectors_NE, 1)[0] == [["one"], ["one"]]
        again.close()
        with pytest.raises(ValueError, match="belongs to the"):
            opened(folder=tmp_path / str(number), **{option: "another"})


def test_what_does_not_belong_together_is_refused(opened):
    engine = opened(fingerprint="first")
    engine.add(["a"], unit(1))
    two = unit(2)
    wrong = [(unit(2, width=5), r"\(2, 24\)"), (2 * two, "length one"), (two * np.nan, "length one"),
             (two[:1], "2 ids need")]  # fmt: skip
    for vectors_NE, message in wrong:
        with pytest.raises(ValueError, match=message):
            engine.add(["b", "c"], vectors_NE)
    with pytest.raises(ValueError, match=r"\(Q, 24\)"):
        engine.search(unit(1, width=5), 1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        engine.search(unit(1), 0)
    with pytest.raises(ValueError, match="ids are strings"):
        engine.add([1], unit(1))
    with pytest.raises(ValueError, match="twice"):
        engine.add(["b", "b"], two)
    engine.close()
    with pytest.raises(ValueError, match="24 numbers, and these have 25"):
        opened(25, fingerprint="first")
    with pytest.raises(ValueError, match="another model or other settings"):
        opened(fingerprint="second")
    again = opened()  # one that does not say takes what is there
    assert len(again) == 1
    again.drop()
    assert len(opened(fingerprint="second") if opened.name == "postgres" else []) == 0


@pytest.mark.parametrize("opened", ["postgres", pytest.param("qdrant", marks=pytest.mark.slow)], indirect=True)
def test_what_was_flushed_survives_a_kill(opened, tmp_path):
    folder, vectors_NE = tmp_path / "index", unit(40)
    folder.mkdir()
    np.save(folder / "vectors.npy", vectors_NE)
    words = [sys.executable, "-c", WRITER, opened.name, str(folder), opened.options.get("dsn", "")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "flushed\n"
        writer.send_signal(signal.SIGKILL) if hasattr(signal, "SIGKILL") else writer.kill()
        writer.wait(60)
    engine = opened(fingerprint="f")
    assert 20 <= len(engine) <= 40
    ids = [f"id {row}" for row in range(20)]
    assert engine.search(vectors_NE[:20], 1)[0] == [[name] for name in ids]
    engine.add(ids, vectors_NE[:20])
    assert opened.name == "qdrant" or len(engine) in (20, 40)  # a batch of PostgreSQL's is there or it is not


# PostgreSQL alone


@pytest.fixture
def table(dsn, tmp_path):
    """A function that opens tables."""
    engines = []

    def open_it(**options):
        engines.append(open_engine("postgres", tmp_path / "index", **{"width": WIDTH, "dsn": dsn, **options}))
        return engines[-1]

    yield open_it
    for engine in engines:
        engine.close()


def plan(dsn: str, engine, queries_QE: np.ndarray) -> str:
    import psycopg
    from psycopg import sql

    with psycopg.connect(dsn) as connection:
        connection.execute("SET enable_seqscan = off")
        statement = sql.SQL("EXPLAIN SELECT id FROM {} ORDER BY embedding <=> {} LIMIT 5")
        text = "[" + ",".join(map(str, queries_QE[0])) + "]"
        rows = connection.execute(statement.format(sql.Identifier(engine.table), sql.Literal(text))).fetchall()
    return "\n".join(row[0] for row in rows)


def test_an_hnsw_index_finds_the_same_and_never_too_few(dsn, table):
    vectors_NE, queries_QE = unit(600), unit(20, seed=1)
    ids = [str(row) for row in range(600)]
    engine = table(ef_search=200)
    engine.add(ids, vectors_NE)
    assert "_hnsw" not in plan(dsn, engine, queries_QE)
    engine.build_index()
    engine.build_index()  # it is there
    assert "Index Scan using" in plan(dsn, engine, queries_QE)
    engine.link.connection.execute("SET enable_seqscan = off")  # a table this small would be read through
    wanted = nearest(ids, vectors_NE, queries_QE, 10)[0]
    assert engine.search(queries_QE, 10)[0] == wanted
    # more than ef_search, and most of what the graph leads to deleted
    engine.ef_search = 5
    assert engine.search(queries_QE, 300)[1].shape == (20, 300)
    engine.delete([name for name in ids if int(name) % 20])
    left = [row for row in range(600) if row % 20 == 0]
    found, cosines_QK = engine.search(queries_QE, 30)
    assert cosines_QK.shape == (20, 30)
    assert found == nearest([ids[row] for row in left], vectors_NE[left], queries_QE, 30)[0]
    engine.drop_index()
    assert "_hnsw" not in plan(dsn, engine, queries_QE)


def test_more_than_hnsw_can_give_is_searched_exactly(table):
    vectors_NE, engine = unit(1100, width=4), table(width=4)
    engine.add([str(row) for row in range(1100)], vectors_NE)
    engine.build_index()
    engine.link.connection.execute("SET enable_seqscan = off")
    found, _ = engine.search(vectors_NE[:1], 1100)
    assert len(set(found[0])) == 1100


def test_a_connection_that_was_lost_is_made_again(dsn, table):
    import psycopg

    engine = table()
    engine.add(["a"], unit(1))
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [engine.link.connection.info.backend_pid])
    assert engine.search(unit(1), 1)[0] == [["a"]]
    engine.close()
    with pytest.raises(ValueError, match="closed"):
        engine.search(unit(1), 1)


def test_tables_of_others_and_wrong_addresses_are_refused(dsn, table, tmp_path, monkeypatch):
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("CREATE TABLE IF NOT EXISTS somebody (id text)")
    with pytest.raises(ValueError, match="no index of ours"):
        table(table="somebody")
    fresh = functools.partial(open_engine, "postgres", tmp_path / "fresh", WIDTH)
    monkeypatch.delenv("UNIBRIVL_POSTGRES_DSN", raising=False)
    with pytest.raises(ValueError, match="UNIBRIVL_POSTGRES_DSN"):
        fresh()
    with pytest.raises(ConnectionError, match="cannot be reached"):
        fresh(dsn=f"host={tmp_path} dbname=x password=secret connect_timeout=2")
    with pytest.raises(ValueError, match="no address of PostgreSQL"):
        fresh(dsn="postgresql://[")
    with pytest.raises(ValueError, match="ef_search is from 1"):
        fresh(dsn=dsn, ef_search=0)
    for name in ("x" * 51, "", "nul\0", "100%"):
        with pytest.raises(ValueError, match="1 to 50 bytes, no NUL and no %"):
            fresh(dsn=dsn, table=name)
    wide = table(width=2001)
    with pytest.raises(ValueError, match="at most 2000 numbers"):
        wide.build_index()
    monkeypatch.setenv("UNIBRIVL_POSTGRES_DSN", dsn)
    engine = fresh()
    assert len(engine) == 0
    engine.close()
    assert "secret" not in "".join(path.read_text() for path in (tmp_path / "fresh").iterdir())


def test_two_engines_that_begin_together_make_one_table(dsn, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def write(number: int) -> None:
        engine = open_engine("postgres", tmp_path / str(number), WIDTH, dsn=dsn, table="shared", fingerprint="f")
        engine.add([f"{number} {row}" for row in range(20)], unit(20, seed=number))
        engine.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    engine = open_engine("postgres", tmp_path / "0", WIDTH, dsn=dsn)
    assert len(engine) == 80
    engine.drop()
    engine.close()


def test_the_embedded_qdrant_is_for_one_process(tmp_path):
    pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    engine = open_engine("qdrant", tmp_path, WIDTH)
    with pytest.raises(ValueError, match="another process"):
        open_engine("qdrant", tmp_path, WIDTH)
    engine.close()


def test_engines_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no engine 'abacus': take one of"):
        open_engine("abacus", tmp_path, WIDTH)
    for name, module in (("postgres", "psycopg"), ("qdrant", "qdrant_client")):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, module, None)
            with pytest.raises(ImportError, match=rf'pip install "unibrivl\[{name}\]"'):
                open_engine(name, tmp_path, WIDTH, **({"dsn": ""} if name == "postgres" else {}))
