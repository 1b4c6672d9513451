"""`push(folder, "org/name")`: a folder becomes a commit on the Hub, all of it or nothing.

The client of huggingface_hub does the talking. It hashes the files, sends only what the Hub does not hold, and repeats
a request for a large file that breaks off; it does not repeat the commit itself, nor what fails for longer. So the
whole is tried again here, a few times, with growing pauses: what has arrived is not sent again, and a commit whose
answer was lost is found to be there already.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shlex
import time
from collections.abc import Callable
from typing import TypeVar

from unibrivl.hub.plan import Plan, PushError, is_weights, plan, same_weights

logger = logging.getLogger(__name__)

WAITS_S = (1, 4, 16)  # before the second, third and fourth try
PASSING = {408, 412, 429, 500, 502, 503, 504}  # 412: somebody else's commit came first
TOKENS = "https://huggingface.co/settings/tokens"
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Pushed:
    """What a push did: where the commit is, and whether anything was new."""

    url: str
    commit: str
    private: bool
    created: bool  # the repository
    changed: bool  # False: all of it was there already
    removed: tuple[str, ...] = ()  # weights there that these replace


def push(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = True,
    create: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str | None = None,
    code: bool = True,
    card: bool = True,
) -> Pushed:
    """Uploads a model's folder to the Hub in one commit.

    Weights that lie there in another cut (other shards, or one file instead of them) are deleted by the same commit:
    `from_pretrained` would prefer some of them to the new ones. All other files there stay.

    Args:
        folder: what save_pretrained wrote.
        repo_id (`str`): `"org/name"`.
        private (`bool`): a repository that is created is private. With True, an upload to a public one is refused.
        create (`bool`): create the repository, and the branch, where they do not exist.
        token (*optional*): default: the one of `HF_TOKEN` or of `hf auth login`.
        revision (*optional*): the branch; default: main.
        message (*optional*): of the commit.
        code (`bool`): add the modeling files that load a model of ours where this package is absent.
        card (`bool`): add a model card where the folder has no README.md.
    """
    check_repo_id(repo_id)
    planned = plan(folder, repo_id=repo_id, code=code, card=card)
    for warning in planned.warnings:
        logger.warning(warning)
    return send(planned, repo_id, private=private, create=create, token=token, revision=revision, message=message)


def send(
    planned: Plan,
    repo_id: str,
    *,
    private: bool = True,
    create: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str | None = None,
) -> Pushed:
    """Uploads what `plan` listed; the arguments are those of `push`."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    from unibrivl import __version__

    check_repo_id(repo_id)
    if not (token or get_token()):
        raise PushError(f"no token: run `hf auth login`, or set HF_TOKEN, to a token of {TOKENS} that may write")
    api = HfApi(token=token or None, library_name="unibrivl", library_version=__version__)
    branch = ["--revision", revision] if revision else []
    command = shlex.join(["unibrivl", "push", str(planned.folder), repo_id, *branch])
    translate = Translation(api.endpoint, repo_id, command)

    known = before = translate(lambda: look_up(api, repo_id))
    if before is None:
        if not create:
            raise PushError(
                f"{repo_id} does not exist on {api.endpoint}, or this token may not see it. To create it, "
                f"{'private' if private else 'public'}: {command} --create{'' if private else ' --public'}"
            )
        translate(lambda: patiently(lambda: api.create_repo(repo_id, private=private, exist_ok=True)))
        before = translate(lambda: api.repo_info(repo_id))
    if private and not before.private:
        raise PushError(
            f"{repo_id} is public, and this would publish the folder. If that is meant: {command} --public "
            "(private=False in Python)"
        )
    if revision:
        before = translate(lambda: look_up(api, repo_id, revision))
        if before is None:
            if not create:
                raise PushError(f"{repo_id} has no branch {revision}. To create it: {command} --create")
            translate(lambda: patiently(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True)))
            before = translate(lambda: api.repo_info(repo_id, revision=revision))

    removed: list[str] = []

    def commit():
        # all anew for every try: what is there may have changed, and the client marks the operations it has used
        removed[:] = outdated(planned, api.list_repo_files(repo_id, revision=revision))
        operations = [
            *(CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.source) for file in planned.files),
            *(CommitOperationDelete(path_in_repo=path) for path in removed),
        ]
        title = message or f"Upload {planned.folder.resolve().name}"
        return api.create_commit(repo_id, operations, commit_message=title, revision=revision)

    done = translate(lambda: patiently(commit))
    return Pushed(
        url=f"{api.endpoint}/{repo_id}",
        commit=done.oid,
        private=bool(before.private),
        created=known is None,
        changed=done.oid != before.sha,
        removed=tuple(removed),
    )


def check_repo_id(repo_id: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
        ok = repo_id.count("/") == 1
    except HFValidationError:
        ok = False
    if not ok:
        raise PushError(
            f"{repo_id!r} is no name of a repository. It is org/name: letters, digits, and - _ . within, at most 96 "
            "characters, no -- or .., not ending in .git"
        )


def outdated(planned: Plan, there: list[str]) -> list[str]:
    """Weights on the Hub that those of the plan replace under other names: shards, or the file they were cut from."""
    paths = {file.path for file in planned.files}
    replaced = {same_weights(path) for path in paths if is_weights(path)}
    return sorted(path for path in there if is_weights(path) and path not in paths and same_weights(path) in replaced)


def look_up(api, repo_id: str, revision: str | None = None):
    """What the Hub says of a repository or branch; None where it does not exist for this token."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return api.repo_info(repo_id, revision=revision)
    except GatedRepoError:
        raise
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        if status(error) == 401:
            raise  # the token is not accepted at all
        return None


def patiently(call: Callable[[], Result]) -> Result:
    """`call()`, again after a pause where it failed for what may pass."""
    for wait_s in WAITS_S:
        try:
            return call()
        except Exception as error:
            if not may_pass(error):
                raise
            logger.warning(f"the upload broke off ({in_short(error)}); trying again in {wait_s} s")
            time.sleep(wait_s)
    return call()


def causes(error: BaseException | None) -> list[BaseException]:
    """An error and those it was raised from: the client wraps what happened to a large file."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__
    return chain


def status(error: BaseException) -> int | None:
    """The HTTP status of an answer of the Hub that is an error."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_transport(error: BaseException) -> bool:
    # by name: the client's HTTP library is httpx in some versions and httpx2 in others
    names = {kind.__name__ for kind in type(error).__mro__}
    return "TransportError" in names or isinstance(error, ConnectionError | TimeoutError)


def may_pass(error: BaseException) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return any(
        status(cause) in PASSING or (is_transport(cause) and not isinstance(cause, OfflineModeIsEnabled))
        for cause in causes(error)
    )


def in_short(error: BaseException) -> str:
    lines = [line for line in str(causes(error)[-1]).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


@dataclasses.dataclass(frozen=True)
class Translation:
    """Calls something and says what went wrong in the user's words: `translate(lambda: ...)`."""

    endpoint: str
    repo_id: str
    command: str

    def __call__(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except Exception as error:
            for cause in causes(error):
                if said := self.explain(cause):
                    raise PushError(said) from error
            raise

    def explain(self, error: BaseException) -> str | None:
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError

        if isinstance(error, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, and a push needs the network: unset it"
        if is_transport(error):
            return (
                f"{self.endpoint} cannot be reached, or broke off ({in_short(error)}). What has arrived is not sent "
                f"again: when the network is back, {self.command}"
            )
        if not isinstance(error, HfHubHTTPError):
            return None
        code, said = status(error), getattr(error, "server_message", None) or in_short(error)
        if isinstance(error, RevisionNotFoundError):
            return f"{self.repo_id} has no such branch ({said}): commits go to branches, not to tags or other commits"
        if code == 401:
            return (
                f"the Hub does not accept this token ({said}): run `hf auth login`, or set HF_TOKEN to one of {TOKENS}"
            )
        if code == 403:
            return (
                f"this token may not write to {self.repo_id} ({said}): it has to be one of {TOKENS} with the right to "
                f"write, of an account that may write to {self.repo_id.split('/')[0]}"
            )
        if code == 404:
            return f"{self.repo_id} was there and is not, or this token may not see it ({said})"
        if code in PASSING:
            return (
                f"{self.endpoint} answered {code} again and again ({said}). What has arrived is not sent again: try "
                f"later, {self.command}"
            )
        return f"{self.endpoint} refused the upload to {self.repo_id}: {said}"
