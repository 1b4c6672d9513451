"""`unibrivl push DIR org/name`: a model's folder goes to the Hub, private unless it is said otherwise.

A token is read from a file, from `HF_TOKEN` or from `hf auth login`, and never from the command line, where others see
it. The progress bars are the client's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Uploaded are configuration, processor, safetensors weights, and what else lies in the folder but caches, "
        "hidden files and states of training. Pickles are refused. A model of ours takes its code along, and a folder "
        "without README.md gets a model card. --dry-run needs neither network nor token."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what save_pretrained wrote")
    parser.add_argument("repo_id", metavar="ORG/NAME", help="the repository on the Hub")
    parser.add_argument("--create", action="store_true", help="create the repository or the branch if it is not there")
    parser.add_argument(
        "--public", action="store_true", help="create it public; without this an upload to a public one is refused"
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be uploaded, and upload nothing")
    parser.add_argument("--revision", metavar="BRANCH", help="the branch; default: main")
    parser.add_argument("--message", help="of the commit")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="a file that holds the token and nothing else")
    parser.add_argument("--no-code", action="store_true", help="do not add the code that loads it without unibrivl")
    parser.add_argument("--no-card", action="store_true", help="do not add a model card where there is no README.md")


def run(args: argparse.Namespace) -> int:
    from unibrivl.hub.plan import plan
    from unibrivl.hub.push import check_repo_id, send

    check_repo_id(args.repo_id)
    token = read_token(args.token_file) if args.token_file else None
    planned = plan(args.folder, repo_id=args.repo_id, code=not args.no_code, card=not args.no_card)
    for warning in planned.warnings:
        print(f"unibrivl push: {warning}", file=sys.stderr)
    if args.dry_run:
        for line in describe(planned, args):
            print(line)
        return 0
    pushed = send(
        planned,
        args.repo_id,
        private=not args.public,
        create=args.create,
        token=token,
        revision=args.revision,
        message=args.message,
    )
    for path in pushed.removed:
        print(f"deleted there: {path}, which these weights replace")
    print(f"{pushed.url} ({'private' if pushed.private else 'public'}{', created' if pushed.created else ''})")
    if args.public and pushed.private:
        print("it stays private: --public is for a repository that is created. Its settings page publishes it")
    if pushed.changed:
        print(f"commit {pushed.commit}: {count(planned.files)}, {in_units(planned.total)} in all")
    else:
        print(f"nothing to do: commit {pushed.commit} holds all of it")
    return 0


def read_token(path: Path) -> str:
    token = path.read_text(encoding="utf-8").strip()
    if not token or len(token.split()) != 1:
        raise ValueError(f"{path} must hold a token and nothing else")
    return token


def describe(planned, args: argparse.Namespace) -> Iterator[str]:
    """The dry run's report: the files, what stays behind, the total, and who would see it."""
    branch = f", branch {args.revision}" if args.revision else ""
    yield f"would upload to {args.repo_id}{branch}:"
    width = max(len(file.path) for file in planned.files)
    for file in planned.files:
        yield f"  {file.path:<{width}}  {in_units(file.size):>9}  {file.note}".rstrip()
    if planned.left_out:
        yield "would leave out:"
        width = max(len(path) for path, _ in planned.left_out)
        for path, why in planned.left_out:
            yield f"  {path:<{width}}  {why}"
    yield f"{count(planned.files)}, {in_units(planned.total)} in all"
    if args.public:
        yield "public: everybody sees it, unless the repository is private already"
    elif args.create:
        yield "private: the repository would be created private if it is not there; a public one is refused"
    else:
        yield "private: the repository has to be there (or --create) and to be private; a public one is refused"


def count(files) -> str:
    return f"{len(files)} file{'' if len(files) == 1 else 's'}"


def in_units(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
