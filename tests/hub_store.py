"""What a Hub keeps, for the tests' own Hub: accounts, repositories of commits, large objects, and planned faults.

No HTTP here: `hub_server.py` speaks it. What is not allowed raises `Refusal`, with the real Hub's status and words.
"""

from __future__ import annotations

import base64
import dataclasses
import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable

LARGE = "*.safetensors *.bin *.pt *.npz *.parquet *.wav".split()
ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE).encode()


class Refusal(Exception):
    """An answer that is not a success: status, words, and the code by which the client tells its errors apart."""

    def __init__(self, status: int, message: str, code: str = ""):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclasses.dataclass(frozen=True)
class Account:
    name: str
    token: str
    may_write: bool = True
    organisations: tuple[str, ...] = ()

    def owns(self, repo_id: str) -> bool:
        return repo_id.split("/")[0] in (self.name, *self.organisations)


@dataclasses.dataclass(frozen=True)
class File:
    content: bytes
    large: bool = False

    @property
    def git_oid(self) -> str:
        """The hash of the git blob: of the content, or of the pointer that stands for a large file."""
        blob = self.content
        if self.large:
            blob = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.git_oid

    @property
    def size(self) -> int:
        return len(self.content)


@dataclasses.dataclass(frozen=True)
class Commit:
    oid: str
    message: str
    files: dict[str, File]


class Repository:
    """Commits, and the branches and tags that point at them."""

    def __init__(self, repo_id: str, private: bool):
        self.id, self.private = repo_id, private
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commit("main", {".gitattributes": File(ATTRIBUTES)}, "initial commit")

    def find(self, revision: str) -> Commit:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def file(self, revision: str, path: str) -> tuple[Commit, File]:
        commit = self.find(revision)
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        return commit, commit.files[path]

    def commit(self, branch: str, files: dict[str, File], message: str, parent: str | None = None) -> Commit:
        """A new head of `branch` that holds `files` and nothing else."""
        head = self.branches.get(branch)
        if parent is not None and parent != head:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        listing = sorted((path, file.git_oid) for path, file in files.items())
        oid = hashlib.sha1(json.dumps([self.id, len(self.commits), head, message, listing]).encode()).hexdigest()
        self.commits[oid] = Commit(oid, message, dict(files))
        self.branches[branch] = oid
        return self.commits[oid]

    def change(self, branch: str, lines: Iterable[dict], objects: dict[str, bytes]) -> Commit:
        """A commit as the client writes it: lines of a header, files, large files and deletions."""
        if branch not in self.branches:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        files, header = dict(self.find(branch).files), {}
        for line in lines:
            kind, value = line["key"], line["value"]
            if kind == "header":
                header = value
            elif kind == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]))
            elif kind == "lfsFile":
                if value["oid"] not in objects:
                    raise Refusal(400, f"{value['path']}: its content was never uploaded")
                files[value["path"]] = File(objects[value["oid"]], large=True)
            elif kind == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise Refusal(400, f"this Hub knows no {kind}")
        return self.commit(branch, files, header.get("summary", ""), header.get("parentCommit"))

    def is_large(self, path: str, size: int, sample: bytes) -> bool:
        """By the repository's own .gitattributes, and whatever is too big or no text."""
        attributes = self.find("main").files[".gitattributes"].content.decode()
        patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line]
        name = path.rsplit("/", 1)[-1]
        return size > 10_000_000 or b"\0" in sample or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


@dataclasses.dataclass
class Fault:
    """What goes wrong with the next `times` requests of a method whose path holds `pattern`.

    Either it is answered with `status`, or the connection breaks when the fraction `cut` of the body has passed: of
    the request's for PUT and POST, of the answer's for GET. `lost=True`: the request is done and its answer lost.
    """

    method: str
    pattern: str
    times: int = 1
    status: int = 0
    cut: float = 0.0
    lost: bool = False

    def strikes(self, method: str, path: str) -> bool:
        if self.times < 1 or method != self.method or not re.search(self.pattern, path):
            return False
        self.times -= 1
        return True


class Hub:
    """Accounts, repositories, the large objects they share, and the rules of who may do what."""

    def __init__(self, part_size: int | None = None):
        self.accounts: dict[str, Account] = {}
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # SHA-256 -> content
        self.parts: dict[tuple[str, int], bytes] = {}  # of large objects that come in parts
        self.part_size = part_size  # bytes; larger objects come in parts
        self.faults: list[Fault] = []

    def add_account(self, name: str, token: str, **rights) -> Account:
        self.accounts[token] = Account(name, token, **rights)
        return self.accounts[token]

    def account(self, authorization: str | None) -> Account | None:
        """Who asks; None without a token. An unknown token is refused whatever it asks for."""
        if authorization is None:
            return None
        token = authorization.removeprefix("Bearer ")
        if token not in self.accounts:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.accounts[token]

    def create(self, account: Account | None, repo_id: str, private: bool) -> Repository:
        if account is None:
            raise Refusal(401, "Invalid username or password.")
        if not (account.may_write and account.owns(repo_id)):
            owner = repo_id.split("/")[0]
            raise Refusal(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        if repo_id in self.repositories:
            raise Refusal(409, "You already created this model repo")
        self.repositories[repo_id] = Repository(repo_id, private)
        return self.repositories[repo_id]

    def repository(self, account: Account | None, repo_id: str, *, write: bool = False) -> Repository:
        """A repository for reading or writing. To those who may not see it, a private one does not exist."""
        repository = self.repositories.get(repo_id)
        hidden = repository is not None and repository.private and not (account and account.owns(repo_id))
        if repository is None or hidden:
            if account is None:  # by the code the client knows it too where the address is not https
                raise Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        if write and account is None:
            raise Refusal(401, "Invalid username or password.")
        if write and account and not (account.may_write and account.owns(repo_id)):
            raise Refusal(403, f"You don't have the required permissions to write to {repo_id}")
        return repository

    def store(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, "the content's SHA-256 is not the one announced")
        self.objects[oid] = content

    def fault(self, method: str, path: str) -> Fault | None:
        return next((fault for fault in self.faults if fault.strikes(method, path)), None)


__all__ = ["Account", "Commit", "Fault", "File", "Hub", "Refusal", "Repository"]
