"""An index whose engine is a database: its folder says nobody's password, and its answers are the exact engine's.

The server is the one of `conftest.py`.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from PIL import Image
from tiny_search import ByBytes, bring_up, of_bytes
from tiny_towers import save_noise, save_unibrivl

from unibrivl.cli import main
from unibrivl.search import Index, change_engine, open_engine, remove

FINGERPRINT = "f" * 64
CONNECTIONS = [
    ("postgres", "dsn", "UNIBRIVL_POSTGRES_DSN"),
    ("qdrant", "url", "UNIBRIVL_QDRANT_URL"),
    ("qdrant", "api_key", "UNIBRIVL_QDRANT_API_KEY"),
]


@pytest.fixture(autouse=True)
def no_servers(monkeypatch):
    for _, _, variable in CONNECTIONS:
        monkeypatch.delenv(variable, raising=False)


def written_by_hand(folder, **fields) -> None:
    """The index of somebody who wrote what he liked into index.json."""
    if not folder.exists():
        Index.create(folder, fingerprint=FINGERPRINT).close()
    about = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**about, **fields}))


@pytest.mark.parametrize(("engine", "option", "variable"), CONNECTIONS)
def test_an_index_neither_writes_nor_reads_where_a_server_is(engine, option, variable, tmp_path, monkeypatch):
    monkeypatch.setenv("UNIBRIVL_POSTGRES_DSN", "")
    monkeypatch.setenv("UNIBRIVL_QDRANT_URL", "http://localhost:1")
    pytest.importorskip("psycopg" if engine == "postgres" else "qdrant_client", reason="the extra is not installed")
    with pytest.raises(ValueError, match=f"does not keep {option}.*{variable}"):
        Index.create(tmp_path / "new", fingerprint=FINGERPRINT, engine=engine, engine_options={option: "secret"})
    assert not (tmp_path / "new").exists()
    written_by_hand(tmp_path / "foreign", engine=engine, engine_options={option: "http://stranger"}, width=4)
    for write in (False, True):
        with pytest.raises(ValueError, match=f"does not keep {option}.*{variable}"):
            Index.open(tmp_path / "foreign", write=write)
    with Index.create(tmp_path / "kept", fingerprint=FINGERPRINT, engine=engine):
        assert "localhost" not in (tmp_path / "kept" / "index.json").read_text()


@pytest.mark.parametrize(("engine", "variable"), [("postgres", "POSTGRES_DSN"), ("qdrant", "QDRANT_URL")])
def test_an_index_asks_a_server_that_the_environment_names(engine, variable, tmp_path, monkeypatch):
    """Not the embedded Qdrant, which would open the pickles of whoever made the folder."""
    with pytest.raises(ValueError, match=f"UNIBRIVL_{variable}"):
        Index.create(tmp_path / "new", fingerprint=FINGERPRINT, engine=engine)
    assert not (tmp_path / "new").exists()
    written_by_hand(tmp_path / "foreign", engine=engine, width=4)
    with pytest.raises(ValueError, match=f"UNIBRIVL_{variable}"):
        Index.open(tmp_path / "foreign", write=True)
    (tmp_path / "foreign" / "engines").mkdir()
    (tmp_path / "foreign" / "engines" / f"{engine}-audio.json").write_text('{"fed": "0-0"}')
    with Index.open(tmp_path / "foreign") as index, pytest.raises(ValueError, match=f"UNIBRIVL_{variable}"):
        index.engine("audio")
    assert not (tmp_path / "foreign" / "engines" / engine).exists()


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("exact", {"dsn": "x"}, "no such option: 'dsn'; it has none here"),
        ("faiss", {"colour": 1, "kind": "flat"}, "no such option: 'colour'; it has kind, expected"),
        ("postgres", {"fingerprint": "x"}, "no such option: 'fingerprint'; it has table, ef_search"),
        ("postgres", {"table": "mine"}, "table=mine_{kind}"),
        ("qdrant", {"collection": 3}, "collection=mine_{kind}"),
        ("../exact", {}, "no engine '../exact'"),
        (["exact"], {}, "no engine|has a name"),
    ],
)
def test_options_that_an_index_does_not_take(engine, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Index.create(tmp_path / "new", fingerprint=FINGERPRINT, engine=engine, engine_options=options)
    written_by_hand(tmp_path / "foreign", engine=engine, engine_options=options)
    with pytest.raises(ValueError, match=message):
        Index.open(tmp_path / "foreign")
    with pytest.raises(ValueError, match="options with names"):
        written_by_hand(tmp_path / "foreign", engine="exact", engine_options=["kind"])
        Index.open(tmp_path / "foreign")


def test_an_engine_says_which_options_it_has(tmp_path):
    with pytest.raises(ValueError, match="no such option: 'colour'; it has dsn, table, fingerprint, ef_search"):
        open_engine("postgres", tmp_path, 4, colour="red")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of keys without TLS, and of a server that is none
@pytest.mark.parametrize(
    ("is_named", "given", "key"),
    [
        (True, {}, None),
        (True, {"api_key": "theirs"}, "theirs"),
        (False, {}, "ours"),
        (False, {"api_key": "mine"}, "mine"),
    ],
)
def test_the_key_of_the_environment_goes_to_the_server_of_the_environment_alone(
    is_named, given, key, tmp_path, monkeypatch
):
    pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    keys: list[str | None] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self):
            if "collections" in self.path:  # and not the version, which the client asks for in a thread, some time
                keys.append(self.headers.get("api-key"))
            self.send_error(403)

        def log_message(self, *about):
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("UNIBRIVL_QDRANT_API_KEY", "ours")
        monkeypatch.setenv("UNIBRIVL_QDRANT_URL", "http://127.0.0.1:1" if is_named else url)
        with pytest.raises(ConnectionError, match="Qdrant cannot be reached"):
            open_engine("qdrant", tmp_path, 4, **given, **({"url": url} if is_named else {}))
        server.shutdown()
    assert keys == [key]


# a real server


def in_database(dsn: str) -> dict[str, int]:
    """Tables of ours and how many rows they have."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(dsn) as connection:
        ours = "SELECT name FROM unibrivl_indexes JOIN pg_tables ON name = tablename"
        names = [row[0] for row in connection.execute(ours).fetchall()]
        count = sql.SQL("SELECT count(*) FROM {}")
        return {name: connection.execute(count.format(sql.Identifier(name))).fetchone()[0] for name in names}


def change(dsn: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.wav").write_bytes(f"sound {number} and it goes on"[: 8 + 3 * number].encode())
        (folder / f"{number}.png").write_bytes(f"picture {number}".encode())
    return folder


def check(out, caplog, is_asked: bool = True) -> None:
    """PostgreSQL is asked, and says what the exact engine says."""
    caplog.clear()
    queries = [of_bytes(f"picture {number}".encode()) for number in range(7)]
    with Index.open(out) as index:
        for kind in ("audio", "image"):
            assert index.engine(kind).name == ("postgres" if is_asked else "exact")
            exact = index.store(kind).search(np.stack(queries), 9)
            for query, names, cosines in zip(queries, *exact, strict=True):
                hits = index.search(query, kind=kind, top=50)
                assert len(hits) == index.catalogue.count(kind)
                assert hits[0].score == pytest.approx(cosines[0], abs=1e-5)
                found = index.catalogue.numbered([int(name.split(".")[0]) for name in names])
                assert hits[0].path == found[int(names[0].split(".")[0])].path
            assert len(index.engine(kind)) == len(index.store(kind))
    assert ("is behind its vectors" in caplog.text) != is_asked


def test_an_index_in_postgres_answers_as_the_exact_engine(dsn, files, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("UNIBRIVL_POSTGRES_DSN", dsn)
    out, embedder = tmp_path / "index", ByBytes()
    bring_up(files, out, embedder, engine="postgres")
    check(out, caplog)
    (files / "2.wav").write_bytes(b"other words than before, and more of them")
    (files / "3.wav").unlink()
    (files / "8.png").write_bytes(b"picture 8")
    bring_up(files, out, embedder)
    check(out, caplog)
    with Index.open(out, write=True) as index:
        assert index.delete([str(files / "0.png")]) == 1
    check(out, caplog)
    (files / "0.png").unlink()

    # killed before the engine was told of anything
    (files / "4.wav").unlink()
    (files / "9.png").write_bytes(b"picture 9")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("unibrivl.search.index.Index._feed", killed)
        bring_up(files, out, embedder)
    check(out, caplog, is_asked=False)
    # and in the middle of it
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("unibrivl.search.index.Index._fed", killed)
        bring_up(files, out, embedder)
    check(out, caplog, is_asked=False)
    bring_up(files, out, embedder)
    check(out, caplog)

    # a reader that was there before a writer told the server of more
    with Index.open(out) as reader:
        reader.engine("image")
        (files / "10.png").write_bytes(b"picture 10")
        bring_up(files, out, embedder)
        hits = reader.search(of_bytes(b"picture 10"), kind="image", top=50)
        assert 0 < len(hits) < len(list(files.glob("*.png")))
    remove(out)
    assert not list(out.glob("engines"))


def test_what_others_did_to_the_tables_is_noticed_and_mended(dsn, files, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("UNIBRIVL_POSTGRES_DSN", dsn)
    out, options = tmp_path / "index", {"table": "Mine {kind}"}
    Index.create(out, fingerprint=ByBytes.fingerprint, engine="postgres", engine_options=options).close()
    bring_up(files, out)
    check(out, caplog)
    count = in_database(dsn)["Mine image"]  # kinds do not share a table
    assert count == 7
    for harm in (
        'DELETE FROM "Mine image" WHERE id IN (SELECT id FROM "Mine image" LIMIT 2)',
        'INSERT INTO "Mine image" SELECT \'x\', embedding FROM "Mine image" LIMIT 1',
        'DROP TABLE "Mine image"',
    ):
        change(dsn, harm)
        with Index.open(out) as index:
            assert index.engine("image").name == "exact"
            assert index.search(of_bytes(b"picture 3"), kind="image", top=1)[0].score == pytest.approx(1, abs=1e-5)
        bring_up(files, out)
        check(out, caplog)
        assert in_database(dsn)["Mine image"] == count
    remove(out)
    assert not {"Mine audio", "Mine image"} & set(in_database(dsn))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Qdrant's client, that the server has no version
def test_another_engine_is_made_of_the_vectors(dsn, files, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("UNIBRIVL_POSTGRES_DSN", dsn)
    out, embedder = tmp_path / "index", ByBytes()
    bring_up(files, out, embedder, engine="exact")
    embedder.seen.clear()
    change_engine(out, "postgres", {"table": "changed_{kind}"})
    check(out, caplog)
    assert {"changed_audio", "changed_image"} <= set(in_database(dsn))
    with monkeypatch.context() as patched:  # a server that is not there changes nothing
        patched.setenv("UNIBRIVL_QDRANT_URL", "http://127.0.0.1:1")
        pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
        with pytest.raises(ConnectionError, match="Qdrant"):
            change_engine(out, "qdrant")
    check(out, caplog)
    change_engine(out, "postgres", {"table": "again_{kind}"})
    check(out, caplog)
    assert "changed_audio" not in in_database(dsn)
    change_engine(out, "exact")
    assert "again_audio" not in in_database(dsn)
    monkeypatch.delenv("UNIBRIVL_POSTGRES_DSN")
    with Index.open(out) as index:
        assert index.engine("image") is index.store("image")
    assert bring_up(files, out, embedder).unchanged == 14
    assert embedder.seen == []


def test_the_commands_with_a_database(dsn, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = save_unibrivl(tmp_path / "model")
    save_noise(tmp_path / "files", 4)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(f"files/{number}.png")
    words = ["index", "files", "--out", "found", "--model", model, "--window-s", "0.4", "--engine", "postgres"]
    assert main(words) == 2
    assert "UNIBRIVL_POSTGRES_DSN" in capsys.readouterr().err
    monkeypatch.setenv("UNIBRIVL_POSTGRES_DSN", dsn)
    assert main([*words, "--engine-option", "dsn=postgresql://x:secret@y/z"]) == 2
    assert "does not keep dsn" in capsys.readouterr().err
    assert not (tmp_path / "found").exists()
    assert main(words) == 0
    assert "7 embedded now" in capsys.readouterr().out

    def ask() -> list[dict]:
        assert main(["search", "found", "--audio", "files/02.wav", "--kind", "audio", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    asked, there = ask(), in_database(dsn)
    assert main(["index", "--out", "found", "--engine", "exact"]) == 0
    assert "searched by exact" in capsys.readouterr().out
    assert len(there) - len(in_database(dsn)) == 2  # and its tables are gone
    exact = ask()
    assert [hit["path"] for hit in asked] == [hit["path"] for hit in exact]
    assert [hit["score"] for hit in asked] == pytest.approx([hit["score"] for hit in exact], abs=1e-5)
    assert main([*words]) == 0  # another engine, and whatever is new
    assert "7 unchanged" in capsys.readouterr().out
    assert json.loads((tmp_path / "found" / "index.json").read_text())["engine"] == "postgres"
    assert ask() == asked
    assert main([*words, "--half"]) == 2
    assert "whole precision" in capsys.readouterr().err
    assert main([*words[:-2], "--restart", "--quiet"]) == 0
    assert len(there) - len(in_database(dsn)) == 2
