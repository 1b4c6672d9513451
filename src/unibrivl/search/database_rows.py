"""What the database engines share: rows that are checked before they leave, and a name that the folder remembers.

Shapes: N vectors, Q queries, E embedding.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unibrivl.search.engine import checked_vectors

FORMAT = 1  # of what a database holds: a change that breaks a reader raises it


def checked_rows(ids: Sequence[str], vectors_NE: Any, width: int, most_bytes: int) -> np.ndarray:
    """The vectors as they may be written, under ids that a database takes."""
    vectors_NE = checked_vectors(ids, vectors_NE, width)
    for name in ids:
        if not can_be_held(name, most_bytes):
            raise ValueError(
                f"the id {name[:80]!r} cannot be held: an id is Unicode text without NUL, of at most {most_bytes} "
                "bytes in UTF-8"
            )
    return vectors_NE


def can_be_held(name: str, most_bytes: int) -> bool:
    """Whether an id may be in a database: neither of them takes NUL or half of a surrogate pair."""
    try:
        return "\0" not in name and len(name.encode()) <= most_bytes
    except UnicodeEncodeError:
        return False


def as_result(found: Sequence[Sequence[tuple[str, float]]]) -> tuple[list[list[str]], np.ndarray]:
    """Pairs of id and cosine for each query -> ids, and cosines (Q, most found); NaN where fewer were found."""
    ranked = [sorted(pairs, key=lambda pair: (-pair[1], pair[0])) for pairs in found]
    cosines_QK: np.ndarray = np.full((len(ranked), max(map(len, ranked), default=0)), np.nan, np.float32)
    for row, pairs in enumerate(ranked):
        cosines_QK[row, : len(pairs)] = [cosine for _, cosine in pairs]
    return [[name for name, _ in pairs] for pairs in ranked], cosines_QK


def known_name(folder: str | os.PathLike, file: str, given: str | None, what: str) -> str:
    """The name of the table or collection of this index: what the folder says, or what is given, or one made here.

    One made here is of this folder alone, so that two folders of the same name do not share a table unasked.
    """
    path = Path(folder) / file
    if not path.is_file():
        return given or f"unibrivl_{secrets.token_hex(6)}"
    try:
        known = str(json.loads(path.read_text(encoding="utf-8"))["name"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not name a {what}: delete it and name the {what} again ({error})") from error
    if given not in (None, known):
        raise ValueError(f"{path.parent} belongs to the {what} {known!r}, not {given!r}: choose another folder")
    return known


def remember_name(folder: str | os.PathLike, file: str, name: str) -> None:
    """So that the folder finds its table again; written once that is known to be ours."""
    path = Path(folder) / file
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps({"format": FORMAT, "name": name}), encoding="utf-8")
        os.replace(partial, path)


def check_about(there: dict[str, Any], width: int, fingerprint: str | None, where: str) -> None:
    """Refuses a table or collection of another width, model or later format."""
    if there["format"] > FORMAT:
        raise ValueError(
            f"{where} has format {there['format']}, and this version reads up to {FORMAT}: update unibrivl"
        )
    if there["width"] != width:
        raise ValueError(f"{where} holds vectors of {there['width']} numbers, and these have {width}: choose another")
    if fingerprint is not None and there["fingerprint"] != fingerprint:
        raise ValueError(
            f"{where} holds vectors of another model or other settings, which cannot be compared (fingerprint "
            f"{there['fingerprint'][:12]!r}, not {fingerprint[:12]!r}): choose another, or index everything anew"
        )
