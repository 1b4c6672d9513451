"""Addresses: fetched only when asked to, only over http(s), and only so much."""

from __future__ import annotations

import http.server
import threading
import time

import pytest

from unibrivl.audio import AudioError, fetch, load_audio, read_blocks


class Site(http.server.BaseHTTPRequestHandler):
    """A server with a sound, a few traps and no manners."""

    content = b""

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/missing.wav":
            self.send_error(404)
        elif path.startswith("/to/"):
            self.send_response(302)
            self.send_header(
                "Location", {"file": "file:///etc/passwd", "ftp": "ftp://127.0.0.1/a"}.get(path[4:], "/a.wav")
            )
            self.end_headers()
        elif path == "/slow.wav":
            time.sleep(1.0)
        elif path == "/drip.wav":
            self.send_response(200)
            self.end_headers()
            for _ in range(20):
                self.wfile.write(b"R")
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.send_response(200)
            if path == "/a.wav":
                self.send_header("Content-Length", str(len(self.content)))
            if path == "/cut.wav":
                self.send_header("Content-Length", str(len(self.content) + 1_000))
            self.end_headers()
            self.wfile.write(b"<html>oops</html>" if path == "/page.wav" else self.content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site(tone, encode, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Site, "content", encode(tone(1.0), 16_000))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None  # a listener that hangs up is what some tests are about
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_address_is_not_fetched_unless_allowed(site):
    with pytest.raises(AudioError, match="pass allow_url=True"):
        load_audio(f"{site}/a.wav")
    with pytest.raises(AudioError, match="pass allow_url=True"):
        next(read_blocks(f"{site}/a.wav", 1.0))
    with pytest.raises(AudioError, match="pass allow_url=True"):
        load_audio({"bytes": None, "path": "HTTPS://example.org/a.wav"})


def test_an_allowed_address_is_fetched(site):
    for path in ("/a.wav", "/chunked.wav", "/to/a"):
        assert load_audio(site + path, allow_url=True).duration_s == 1.0
    assert sum(block.duration_s for block in read_blocks(f"{site}/a.wav", 0.3, allow_url=True)) == pytest.approx(1.0)


def test_no_more_than_max_bytes_are_fetched(site):
    for path in ("/a.wav", "/chunked.wav"):
        with pytest.raises(AudioError, match="sends more than 5000 bytes; raise max_bytes"):
            load_audio(site + path, allow_url=True, max_bytes=5_000)


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("/missing.wav", "could not be fetched: .*404"),
        ("/to/file", "could not be fetched"),
        ("/to/ftp", "could not be fetched"),
        ("/cut.wav", "could not be fetched|connection ended"),
        ("/page.wav", "a web page"),
    ],
)
def test_what_goes_wrong_is_told_in_our_words(site, path, match):
    with pytest.raises(AudioError, match=match):
        load_audio(site + path, allow_url=True)


def test_a_server_that_does_not_answer(site, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.2)
    with pytest.raises(AudioError, match="could not be fetched: .*timed out"):
        load_audio(f"{site}/slow.wav", allow_url=True)


def test_a_server_that_drips(site, monkeypatch):
    monkeypatch.setattr(fetch, "DEADLINE_S", 0.2)
    with pytest.raises(AudioError, match="took longer than"):
        load_audio(f"{site}/drip.wav", allow_url=True)


def test_secrets_in_an_address_are_not_in_the_message(site):
    for url in (
        f"{site}/missing.wav?token=secret",
        f"{site}/a b.wav?token=secret",
        site.replace("http://", "http://user:secret@") + "/a.wav",
        "http://user:secret@host/a.wav",
    ):
        for allow_url in (False, True):
            with pytest.raises(AudioError) as told:
                load_audio(url, allow_url=allow_url)
            assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1", "http://127.0.0.1:1/a.wav", "http://a b/", "http://127.0.0.1:99999/"]
)
def test_impossible_addresses(url):
    with pytest.raises(AudioError):
        load_audio(url, allow_url=True)
