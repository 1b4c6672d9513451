"""`unibrivl info MODEL`: what a model is made of, what it may be used for, and the fingerprint of its vectors.

MODEL is a folder or a name on the Hub. Sizes come from the headers of the weights, licences and origins from the files
beside them. Only the fingerprint needs the weights themselves; `--no-fingerprint` leaves it out, and then a model on
the Hub costs a few kilobytes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JSON_VERSION = 1  # of the object that --json prints: a change that breaks a reader raises it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder that save_pretrained wrote, or org/name on the Hub")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit, of a model on the Hub")
    parser.add_argument("--no-fingerprint", action="store_true", help="do not load the weights")


def run(args: argparse.Namespace) -> int:
    from unibrivl.hub.facts import facts_of, fetch_saved, open_saved

    is_folder = Path(args.model).exists() or args.model.startswith((".", "/", "~"))
    if is_folder and args.revision:
        raise ValueError(f"{args.model} is a folder, which has no revisions: leave --revision out")
    saved = open_saved(Path(args.model).expanduser()) if is_folder else fetch_saved(args.model, args.revision)
    facts = facts_of(saved)
    fingerprint, why = None, "not asked for"
    if not args.no_fingerprint:
        fingerprint, why = fingerprint_of(str(saved.folder) if is_folder else args.model, saved.revision, facts)
    found = {**facts, "fingerprint": fingerprint, "no_fingerprint": why}
    if args.json:
        print(json.dumps({"version": JSON_VERSION, **found}, indent=1, allow_nan=False))
    else:
        for line in lines(found):
            print(line)
    return 0


def fingerprint_of(source: str, revision: str | None, facts: dict[str, Any]) -> tuple[str | None, str]:
    """The fingerprint of the embedder that `unibrivl.load` makes by default; or None, and why."""
    if not facts["embeds"]:
        return None, "it has no embedder: it puts no two kinds of things into one space, or lacks what prepares them"
    from unibrivl.embedder import load

    where = {"revision": revision} if revision else {}
    try:
        with hushed():
            return load(source, **where).fingerprint, ""
    except Exception as error:  # of foreign models whatever their libraries raise; the rest of the report holds
        first = (str(error).strip().splitlines() or [""])[0]
        return None, f"it could not be loaded: {type(error).__name__}: {first}"


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Without the bars and remarks of loading, which some classes of transformers print where the report goes."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def lines(facts: dict[str, Any]) -> Iterator[str]:
    yield f"{facts['name']}" + (f" at {facts['revision']}" if facts["revision"] else "")
    rows = [("class", facts["class"] or "not stated"), ("model type", facts["model_type"] or "not stated")]
    if facts["format_version"] is not None:
        rows.append(("format version", str(facts["format_version"])))
    if facts["sampling_rate"]:
        rows.append(("hears", f"{facts['sampling_rate']} Hz"))
    if facts["image_size"]:
        rows.append(("sees", f"{facts['image_size'][0]} x {facts['image_size'][1]} pixels"))
    embeds = ", ".join(facts["embeds"]) or "nothing by itself"
    rows.append(("embeds", embeds + (f", as {facts['width']} numbers" if facts["embeds"] and facts["width"] else "")))
    rows.append(("fingerprint", facts["fingerprint"] or f"none: {facts['no_fingerprint']}"))
    for name, value in rows:
        yield f"  {name:<15} {value}"
    yield ""
    table: list[tuple[str, ...]] = [("part", "kind", "parameters", "size", "stored as", "weights from")]
    table += [
        (part["name"], part["model_type"] or "", f"{part['parameters']:,}", size(part["bytes"]),
         ", ".join(part["dtypes"]), origin(part["weights"]))
        for part in facts["parts"]
    ]  # fmt: skip
    whole = ((facts["training"] or {}).get("towers") or {}).get("model") or {}
    table.append(("all", "", f"{facts['parameters']:,}", size(facts["bytes"]), "", origin(whole)))
    yield from aligned(table)
    conversion = facts["conversion"]
    if conversion:
        yield f"converted from {conversion['source']}, SHA-256 {conversion['source_sha256']}"
    yield ""
    for name, licence in facts["licences"].items():
        yield f"  licence of the {name + ':':<9} {licence}"


def size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def origin(stated: dict[str, str]) -> str:
    if stated.get("recorded"):
        return f"{stated['recorded']} (recorded)"
    named = stated.get("model", "")
    return f"{named}, {stated['licence']}" if named and stated.get("licence") else named


def aligned(table: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = [f"{cell:>{width}}" if column in (2, 3) else f"{cell:<{width}}"
                 for column, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        yield f"  {'  '.join(cells)}".rstrip()
