"""The study's page on this machine: a few files by name, a participant's trials, and a door for answers.

It serves what its table lists and nothing else, so there is no path to walk out of. The page never hears whether an
answer was right.

    GET  /, /page.css, /page.js, /trials.json, /media/NAME
    GET  /session?participant=UUID    the trials of a participant in order, and which are answered
    POST /answer                      one answer as JSON
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs, urlsplit

from unibrivl.evaluation.study.answers import AnswerError, AnswerFile, is_participant
from unibrivl.evaluation.study.folder import MEDIA, PUBLIC, TRIALS, Study
from unibrivl.utils.hosts import is_loopback, without_port

logger = logging.getLogger(__name__)

LARGEST_ANSWER = 4096  # bytes; the page sends about 250
PATIENCE_S = 30
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".wav": "audio/wav",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(), camera=(), geolocation=()",
}


class Handler(BaseHTTPRequestHandler):
    """One request; its server has the study."""

    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S
    server: StudyServer

    def do_GET(self) -> None:
        if not self.is_welcome():
            return
        address = urlsplit(self.path)
        if address.path == "/session":
            self.session(parse_qs(address.query).get("participant", [""]))
        elif address.path in self.server.files:
            self.file(self.server.files[address.path])
        elif address.path == "/favicon.ico":
            self.answer(204, b"")
        else:
            self.refuse(404, "there is nothing here")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.close_connection = True  # what was not read of a refused answer is no next request
        if not self.is_welcome():
            return
        size = self.headers.get("Content-Length", "")
        origin = self.headers.get("Origin")
        if self.path != "/answer":
            self.refuse(404, "answers go to /answer")
        elif origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            self.refuse(403, "answers are taken from this study's own page only")
        elif self.headers.get_content_type() != "application/json":
            self.refuse(415, "an answer is application/json")
        elif not (size.isascii() and size.isdigit()) or self.headers.get("Transfer-Encoding"):
            self.refuse(411, "an answer says how long it is")
        elif len(size) > 9 or int(size) > LARGEST_ANSWER:
            self.refuse(413, f"an answer has {LARGEST_ANSWER} bytes at most")
        else:
            self.take(self.rfile.read(int(size)))

    def take(self, body: bytes) -> None:
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            self.refuse(400, "an answer is one JSON object")
            return
        try:
            count = self.server.answers.add(given)
        except AnswerError as error:
            self.refuse(error.status, str(error))
        except OSError as error:
            logger.error("an answer was lost: %s", error)
            self.refuse(507, "the answer could not be kept")
        else:
            self.say(200, {"answered": count})

    def is_welcome(self) -> bool:
        """On loopback a request must call this machine by a name of its own."""
        names = self.headers.get_all("Host") or []
        if self.server.only_local and not (len(names) == 1 and is_loopback(without_port(names[0]))):
            self.refuse(421, "this server answers to localhost only")
            return False
        return True

    def session(self, named: list[str]) -> None:
        if len(named) != 1 or not is_participant(named[0]):
            self.refuse(400, "participant must be a random UUID (version 4) in lower case")
            return
        trials = [asdict(one) for one in self.server.study.session(named[0])]
        self.say(200, {"trials": trials, "answered": self.server.answers.of(named[0])})

    def file(self, path: Path) -> None:
        kept = "private, max-age=86400" if path.parent.name == MEDIA else "no-store"
        self.answer(200, path.read_bytes(), {"Content-Type": TYPES[path.suffix], "Cache-Control": kept})

    def refuse(self, status: int, why: str) -> None:
        self.say(status, {"error": why})

    def say(self, status: int, told: dict[str, Any]) -> None:
        headers = {"Content-Type": TYPES[".json"], "Cache-Control": "no-store"}
        self.answer(status, json.dumps(told).encode(), headers)

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in {**HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


class StudyServer(ThreadingMixIn, TCPServer):
    """Not an `HTTPServer`, which asks the network for its own name."""

    daemon_threads = True
    request_queue_size = 64  # a class of students presses at once
    allow_reuse_address = os.name == "posix"

    def __init__(self, study: Study, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.only_local = is_loopback(host)
        self.study = study
        public = study.folder / PUBLIC
        self.files = {f"/{name}": public / name for name in ("index.html", "page.css", "page.js", TRIALS)}
        self.files |= {f"/{MEDIA}/{name}": public / MEDIA / name for name in study.media}
        self.files["/"] = self.files["/index.html"]
        gone = sorted(str(path) for path in self.files.values() if not path.is_file())
        if gone:
            raise ValueError(f"{len(gone)} files of the study are not there, such as {gone[0]}: build it again")
        super().__init__((host, port), Handler)
        try:
            self.answers = AnswerFile(study)
        except BaseException:
            self.server_close()
            raise

    def server_close(self) -> None:
        super().server_close()
        if hasattr(self, "answers"):
            self.answers.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a connection ended early", exc_info=True)

    @property
    def address(self) -> str:
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def served(folder: str | os.PathLike, host: str = "127.0.0.1", port: int = 0) -> Iterator[StudyServer]:
    """The study while the context lasts; `.address` is where.

    Args:
        host (*optional*): an address of this machine; loopback unless others shall take part.
        port (*optional*): a free one if 0.
    """
    server = StudyServer(Study(folder), host, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
