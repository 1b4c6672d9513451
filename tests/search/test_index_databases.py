"""An index whose engine is a database: its folder says nobody's password, and its answers are the exact engine's.

The server is the one of `conftest.py`.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from unibrivl.search import Index, open_engine

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
