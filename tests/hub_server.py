"""A small Hub on loopback, for tests with the real client: `with serve() as hub:`, and `HF_ENDPOINT=hub.url`.

Two servers, as with the real one: the Hub itself, which asks who one is, and the storage behind it, which is reached
by signed addresses, holds the large files and must never be shown a token. A route is a function from a `Request` to
an `Answer`; what is kept and allowed is in `hub_store.py`. Every request is logged, and faults can be planned:

    hub.faults.append(Fault("PUT", "/upload/", cut=0.5))     the next upload breaks off in the middle
    hub.requests("PUT")                                      what was uploaded, again and again included
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hub_store import Account, Commit, Fault, File, Hub, Refusal, Repository

DATE = "2026-01-01T00:00:00.000Z"


@dataclasses.dataclass
class Request:
    host: str  # "hub" or "storage"
    method: str
    path: str  # as sent, still quoted
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes
    completed: bool = True  # False where a fault broke it off

    def json(self) -> dict:
        return json.loads(self.body)


@dataclasses.dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def json(cls, value, status: int = 200, **headers: str) -> Answer:
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    @classmethod
    def refusal(cls, refusal: Refusal) -> Answer:
        headers = {"X-Error-Message": refusal.message} | ({"X-Error-Code": refusal.code} if refusal.code else {})
        return cls.json({"error": refusal.message}, refusal.status, **headers)


class LoopbackHub(Hub):
    """A Hub with its two addresses, the lock its threads share, and the log of what it was asked."""

    def __init__(self, part_size: int | None = None):
        super().__init__(part_size)
        self.url = self.storage_url = ""
        self.log: list[Request] = []
        self.lock = threading.RLock()

    def requests(self, method: str, pattern: str = "") -> list[Request]:
        return [request for request in self.log if request.method == method and re.search(pattern, request.path)]


Route = Callable[..., Answer]
HUB_ROUTES: list[tuple[str, re.Pattern, Route]] = []
STORAGE_ROUTES: list[tuple[str, re.Pattern, Route]] = []


def route(table: list, method: str, path: str) -> Callable[[Route], Route]:
    """Registers a function for a method and a path; {repo} stands for `owner/name`, {name} for one part, {name...} for
    all that follows."""
    pattern = re.escape(path).replace(r"\{repo\}", r"(?P<repo>[^/]+/[^/]+)")
    pattern = re.sub(r"\\\{(\w+)\\\.\\\.\\\.\\\}", r"(?P<\1>.+)", pattern)
    pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", pattern)

    def register(function: Route) -> Route:
        table.append((method, re.compile(pattern), function))
        return function

    return register


# --- who one is, and which repositories there are


@route(HUB_ROUTES, "GET", "/api/whoami-v2")
def who_am_i(hub: LoopbackHub, request: Request, account: Account | None) -> Answer:
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    role = "write" if account.may_write else "read"
    organisations = [{"type": "org", "name": name} for name in account.organisations]
    token = {"accessToken": {"displayName": "test", "role": role}}
    return Answer.json({"type": "user", "id": "1", "name": account.name, "orgs": organisations, "auth": token})


@route(HUB_ROUTES, "POST", "/api/validate-yaml")
def validate_card(hub: LoopbackHub, request: Request, account: Account | None) -> Answer:
    content = request.json()["content"]
    opened = content.startswith("---\n")
    errors = [{"message": "the metadata block is never closed"}] if opened and "\n---" not in content[4:] else []
    return Answer.json({"errors": errors, "warnings": []})


@route(HUB_ROUTES, "POST", "/api/repos/create")
def create_repository(hub: LoopbackHub, request: Request, account: Account | None) -> Answer:
    wanted = request.json()
    private = wanted.get("private") or wanted.get("visibility") == "private"
    repo_id = f"{wanted.get('organization') or (account.name if account else '')}/{wanted['name']}"
    try:
        hub.create(account, repo_id, bool(private))
    except Refusal as refusal:
        if refusal.status != 409:
            raise
        return Answer.json({"error": refusal.message, "url": f"{hub.url}/{repo_id}"}, 409)
    return Answer.json({"url": f"{hub.url}/{repo_id}", "name": repo_id})


@route(HUB_ROUTES, "GET", "/api/models/{repo}")
@route(HUB_ROUTES, "GET", "/api/models/{repo}/revision/{revision}")
def describe(hub: LoopbackHub, request: Request, account: Account | None, repo: str, revision="main") -> Answer:
    repository = hub.repository(account, repo)
    commit = repository.find(revision)
    siblings = [{"rfilename": path, "size": file.size} for path, file in sorted(commit.files.items())]
    return Answer.json(
        {
            "_id": "0" * 24,
            "id": repo,
            "modelId": repo,
            "author": repo.split("/")[0],
            "sha": commit.oid,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "lastModified": DATE,
            "createdAt": DATE,
            "siblings": siblings,
        }
    )


# --- branches, tags, listings


@route(HUB_ROUTES, "GET", "/api/models/{repo}/refs")
def list_references(hub: LoopbackHub, request: Request, account: Account | None, repo: str) -> Answer:
    repository = hub.repository(account, repo)

    def references(points: dict[str, str], where: str) -> list[dict]:
        return [{"name": name, "ref": f"refs/{where}/{name}", "targetCommit": oid} for name, oid in points.items()]

    branches, tags = references(repository.branches, "heads"), references(repository.tags, "tags")
    return Answer.json({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


@route(HUB_ROUTES, "POST", "/api/models/{repo}/branch/{branch}")
def create_branch(hub: LoopbackHub, request: Request, account: Account | None, repo: str, branch: str) -> Answer:
    repository = hub.repository(account, repo, write=True)
    if branch in repository.branches:
        raise Refusal(409, f"Reference already exists: refs/heads/{branch}")
    repository.branches[branch] = repository.find(request.json().get("startingPoint") or "main").oid
    return Answer.json({})


@route(HUB_ROUTES, "POST", "/api/models/{repo}/tag/{revision}")
def create_tag(hub: LoopbackHub, request: Request, account: Account | None, repo: str, revision: str) -> Answer:
    repository = hub.repository(account, repo, write=True)
    if request.json()["tag"] in repository.tags:
        raise Refusal(409, f"Tag already exists: {request.json()['tag']}")
    repository.tags[request.json()["tag"]] = repository.find(revision).oid
    return Answer.json({})


@route(HUB_ROUTES, "GET", "/api/models/{repo}/tree/{revision}")
@route(HUB_ROUTES, "GET", "/api/models/{repo}/tree/{revision}/{folder...}")
def list_tree(
    hub: LoopbackHub, request: Request, account: Account | None, repo: str, revision: str, folder=""
) -> Answer:
    commit = hub.repository(account, repo).find(revision)
    start = f"{folder.rstrip('/')}/" if folder else ""
    everything = request.query.get("recursive", "").lower() in ("1", "true")
    entries, folders = [], set[str]()
    for path in sorted(path for path in commit.files if path.startswith(start)):
        inner = path.removeprefix(start).split("/")
        for depth in range(1, len(inner) if everything else min(len(inner), 2)):
            folders.add(start + "/".join(inner[:depth]))
        if everything or len(inner) == 1:
            entries.append(entry(path, commit.files[path]))
    if start and not entries and not folders:
        raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    return Answer.json([{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders] + entries)


@route(HUB_ROUTES, "POST", "/api/models/{repo}/paths-info/{revision}")
def list_paths(hub: LoopbackHub, request: Request, account: Account | None, repo: str, revision: str) -> Answer:
    files = hub.repository(account, repo).find(revision).files
    if request.headers.get("content-type", "").startswith("application/json"):
        wanted = request.json()["paths"]
    else:
        wanted = urllib.parse.parse_qs(request.body.decode()).get("paths", [])
    return Answer.json([entry(path, files[path]) for path in wanted if path in files])


def entry(path: str, file: File) -> dict:
    described = {"type": "file", "oid": file.git_oid, "size": file.size, "path": path}
    if file.large:
        described["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
    return described


# --- uploading: ask how, send the large files to the storage, commit


@route(HUB_ROUTES, "POST", "/api/models/{repo}/preupload/{revision}")
def preupload(hub: LoopbackHub, request: Request, account: Account | None, repo: str, revision: str) -> Answer:
    repository = hub.repository(account, repo, write=True)
    held = repository.find(revision).files
    answers = []
    for file in request.json()["files"]:
        large = repository.is_large(file["path"], file["size"], base64.b64decode(file["sample"]))
        old = held.get(file["path"])
        mode = "lfs" if large else "regular"
        oid = old.etag if old else None
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return Answer.json({"files": answers})


@route(HUB_ROUTES, "POST", "/{repo}.git/info/lfs/objects/batch")
def plan_upload(hub: LoopbackHub, request: Request, account: Account | None, repo: str) -> Answer:
    hub.repository(account, repo, write=True)
    objects = []
    for wanted in request.json()["objects"]:
        planned = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in hub.objects:
            verify = {"href": f"{hub.url}/{repo}.git/info/lfs/verify"}
            planned["actions"] = {"upload": upload_action(hub, wanted["oid"], wanted["size"]), "verify": verify}
        objects.append(planned)
    return Answer.json({"transfer": "basic", "objects": objects})


def upload_action(hub: LoopbackHub, oid: str, size: int) -> dict:
    """Where the content goes: to one address, or to one for each part and a last one that joins them."""
    if hub.part_size is None or size <= hub.part_size:
        return {"href": f"{hub.storage_url}/upload/{oid}?signature=valid"}
    numbers = range(1, -(-size // hub.part_size) + 1)
    parts = {f"{number:05d}": f"{hub.storage_url}/upload/{oid}/{number}?signature=valid" for number in numbers}
    return {"href": f"{hub.url}/join/{oid}", "header": {"chunk_size": str(hub.part_size), **parts}}


@route(HUB_ROUTES, "POST", "/join/{oid}")
def join_parts(hub: LoopbackHub, request: Request, account: Account | None, oid: str) -> Answer:
    numbers = [part["partNumber"] for part in request.json()["parts"]]
    hub.store(oid, b"".join(hub.parts[oid, number] for number in numbers))
    return Answer.json({})


@route(HUB_ROUTES, "POST", "/{repo}.git/info/lfs/verify")
def verify_upload(hub: LoopbackHub, request: Request, account: Account | None, repo: str) -> Answer:
    hub.repository(account, repo, write=True)
    if len(hub.objects.get(request.json()["oid"], b"")) != request.json()["size"]:
        raise Refusal(404, "the object was not uploaded")
    return Answer.json({})


@route(HUB_ROUTES, "POST", "/api/models/{repo}/commit/{revision}")
def commit_changes(hub: LoopbackHub, request: Request, account: Account | None, repo: str, revision: str) -> Answer:
    repository = hub.repository(account, repo, write=True)
    commit = repository.change(revision, map(json.loads, request.body.splitlines()), hub.objects)
    url = f"{hub.url}/{repo}/commit/{commit.oid}"
    return Answer.json({"success": True, "commitOid": commit.oid, "commitUrl": url, "pullRequestUrl": None})


# --- downloading: small files from the Hub, large ones by way of the storage


@route(HUB_ROUTES, "GET", "/{repo}/resolve/{revision}/{path...}")
def resolve(
    hub: LoopbackHub, request: Request, account: Account | None, repo: str, revision: str, path: str
) -> Answer:
    repository = hub.repository(account, repo)
    commit = repository.find(revision)
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    if path not in commit.files:
        missing = Answer.refusal(Refusal(404, "Entry not found", "EntryNotFound"))
        return dataclasses.replace(missing, headers={**missing.headers, **headers})
    file = commit.files[path]
    if not file.large:
        return in_range(request, file.content, {**headers, "ETag": f'"{file.etag}"'})
    headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    headers["Location"] = f"{hub.storage_url}/download/{file.sha256}?signature=valid"
    return Answer(302, headers=headers)


def in_range(request: Request, content: bytes, headers: dict[str, str]) -> Answer:
    """The content, or the part of it that was asked for."""
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    headers = {"Content-Type": "application/octet-stream", **headers}
    if wanted is None:
        return Answer(200, content, headers)
    first = int(wanted[1])
    last = min(int(wanted[2] or len(content)), len(content) - 1)
    if first >= len(content):
        return Answer(416, headers={"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Answer(206, content[first : last + 1], headers)


@route(STORAGE_ROUTES, "PUT", "/upload/{oid}")
def upload(hub: LoopbackHub, request: Request, oid: str) -> Answer:
    hub.store(oid, request.body)
    return Answer(headers={"ETag": f'"{oid}"'})


@route(STORAGE_ROUTES, "PUT", "/upload/{oid}/{number}")
def upload_part(hub: LoopbackHub, request: Request, oid: str, number: str) -> Answer:
    hub.parts[oid, int(number)] = request.body
    return Answer(headers={"ETag": f'"{oid[:8]}-{number}"'})


@route(STORAGE_ROUTES, "GET", "/download/{oid}")
def download(hub: LoopbackHub, request: Request, oid: str) -> Answer:
    return in_range(request, hub.objects[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


# --- HTTP


class Exchange(BaseHTTPRequestHandler):
    """One connection: reads requests, finds their routes, sends the answers, or fails as planned."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer's body waits 40 ms for the acknowledgement of its head
    timeout = 60
    hub: LoopbackHub
    name = "hub"
    routes = HUB_ROUTES

    def exchange(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        with self.hub.lock:
            fault = self.hub.fault(self.command, address.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(urllib.parse.parse_qsl(address.query))
        request = Request(self.name, self.command, address.path, query, headers, b"")
        if fault and fault.cut and self.command in ("PUT", "POST"):
            request.body = self.rfile.read(int(fault.cut * int(headers.get("content-length", 0))))
            request.completed = False
            self.hub.log.append(request)
            self.hang_up()
            return
        request.body = self.read_body()
        with self.hub.lock:
            self.hub.log.append(request)
            answer = (
                Answer.json({"error": "planned"}, fault.status) if fault and fault.status else self.answer(request)
            )
        if fault and fault.lost:
            self.hang_up()
        else:
            self.send(answer, fault.cut if fault and fault.cut else 1.0)

    do_GET = do_HEAD = do_POST = do_PUT = exchange

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, request: Request) -> Answer:
        method = "GET" if request.method == "HEAD" else request.method
        for known, pattern, function in self.routes:
            if known == method and (match := pattern.fullmatch(request.path)):
                parts = {name: urllib.parse.unquote(value) for name, value in match.groupdict().items()}
                try:
                    return function(self.hub, request, **self.identity(request), **parts)
                except Refusal as refusal:
                    return Answer.refusal(refusal)
        return Answer.json({"error": f"{self.name} has no route for {request.method} {request.path}"}, 404)

    def identity(self, request: Request) -> dict:
        return {"account": self.hub.account(request.headers.get("authorization"))}

    def send(self, answer: Answer, fraction: float = 1.0) -> None:
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: int(fraction * len(answer.body))])
        if fraction < 1:
            self.wfile.flush()
            self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client may have gone first
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format, *args) -> None:  # requests are in hub.log
        return


class StorageExchange(Exchange):
    """The storage: no accounts, but signed addresses; a token that is sent here has leaked."""

    name = "storage"
    routes = STORAGE_ROUTES

    def identity(self, request: Request) -> dict:
        if "authorization" in request.headers:
            raise Refusal(400, "Only one auth mechanism allowed: the address is signed already")
        if request.query.get("signature") != "valid":
            raise Refusal(403, "the address is not signed")
        return {}


@contextlib.contextmanager
def serve(part_size: int | None = None) -> Iterator[LoopbackHub]:
    """A Hub that answers at `hub.url` until the block ends."""
    hub = LoopbackHub(part_size)
    servers = []
    for exchange in (Exchange, StorageExchange):
        server = ThreadingHTTPServer(("127.0.0.1", 0), type(exchange.__name__, (exchange,), {"hub": hub}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
    hub.url, hub.storage_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


__all__ = ["Answer", "Commit", "Fault", "LoopbackHub", "Repository", "Request", "serve"]
