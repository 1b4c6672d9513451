"""A press of the button that searches an index: a sound, a picture, words or a mixture in, what is nearest out.

The index is opened for each press: it is read as it is then, another process may bring it up to its files meanwhile,
and threads share nothing of it. An answer is never an exception: see `answers.told`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unibrivl.app import markup, markup_found
from unibrivl.app.answers import Answer, told
from unibrivl.app.changing import checked
from unibrivl.app.finding import Thing, thing_of
from unibrivl.app.limits import Limits, Refusal, number, read_upload, whole
from unibrivl.app.picturing import read_picture
from unibrivl.search import Index, Query, encoded

logger = logging.getLogger(__name__)

KINDS = {"audio": "Sounds", "image": "Pictures", "text": "Words"}
MOST_FOUND, MOST_COUNTS = 24, 2.0
LOOKING = "Looking ..."
NOTHING_ASKED = (
    "Nothing is asked for yet: choose a sound or a picture, or write some words, then press the button again."
)
UNSUITED = "The index cannot be searched any more: it has gone or has changed. Start the page again."
CANCELLED = "What you ask for cancels itself out: choose other numbers for how much each part counts."


@dataclass(frozen=True)
class Asked:
    """A query as visitors make it: uploads and words, each with how much it counts, below zero for what should not be.

    Args:
        sound, picture (*optional*): uploaded files.
        words (`str`): may be empty.
        sound_counts, picture_counts, words_count (`float`): weights.
        kind (`str`, *optional*): of `KINDS`; all if None.
        most (`int`): how many shall be found.
    """

    sound: str | os.PathLike | None = None
    picture: str | os.PathLike | None = None
    words: Any = ""
    sound_counts: Any = 1.0
    picture_counts: Any = 1.0
    words_count: Any = 1.0
    kind: str | None = None
    most: Any = 8


class Archive:
    """
    Args:
        folder: what `unibrivl index` wrote.
        embedder: of the model whose vectors it holds, with its windows.
        limits (`Limits`, *optional*): of sounds and files.
        lock (*optional*): of whatever else uses the same model.
    """

    def __init__(
        self, folder: str | os.PathLike, embedder: Any, limits: Limits | None = None, lock: Any = None
    ) -> None:
        self.folder, self.embedder, self.limits = Path(folder), embedder, limits or Limits()
        self.lock = lock or threading.Lock()
        with Index.open(self.folder) as index:
            index.check_model(embedder.fingerprint)
            self.kinds, self.count = index.kinds(), len(index)
        if not self.kinds:
            raise ValueError(f"{folder} holds nothing yet: `unibrivl index PATH... --out {folder}` fills it")

    def takes(self, kind: str) -> bool:
        """Whether the model can be asked by such a thing."""
        return kind in self.embedder.matcher.kinds

    def find(self, asked: Asked) -> Iterator[Answer]:
        """That it looks, then what is nearest; or what is wrong."""
        return told(self._answer(asked))

    def _answer(self, asked: Asked) -> Iterator[Answer]:
        # first: a screen reader says the same refusal twice only if something else stood there in between
        yield Answer(markup.status(LOOKING))
        most = whole(number(asked.most, "How many", 1, MOST_FOUND))
        if not isinstance(most, int):
            raise Refusal(f"How many must be a whole number from 1 to {MOST_FOUND}.")
        if asked.kind not in (None, *self.kinds):
            raise Refusal("The index holds nothing of this kind: choose another.")
        things = self._read(asked)
        if not things:
            raise Refusal(NOTHING_ASKED)
        with ExitStack() as stack:
            with still_there(self.folder):
                index = stack.enter_context(Index.open(self.folder))
                index.check_model(self.embedder.fingerprint)
                kinds = [kind for kind in index.kinds() if asked.kind in (None, kind)]
            with self.lock:
                query = self._query(things, kinds)
            check_direction(query, kinds)
            with still_there(self.folder):
                hits, roots = index.search(query, top=most, kind=asked.kind), list(index.about["roots"])
        found = [thing_of(hit, roots) for hit in hits]
        if not found:
            raise Refusal("The index holds nothing of this kind any more: choose another.")
        yield Answer(markup.status(sentence(found)), found=markup_found.listed(found, len(things) > 1))

    def _read(self, asked: Asked) -> list[tuple[str, str, Any, float]]:
        """What is asked for: kind, what the page calls it, the thing and its weight."""
        things: list[tuple[str, str, Any, float]] = []
        weights = {
            name: number(value, f"How much {name} count{'s' if one else ''}", -MOST_COUNTS, MOST_COUNTS)
            for name, value, one in (
                ("the sound", asked.sound_counts, True), ("the picture", asked.picture_counts, True),
                ("the words", asked.words_count, False),
            )
        }  # fmt: skip
        if asked.sound and self.takes("audio"):
            sound = read_upload(asked.sound, self.limits, self.embedder.matcher.sampling_rate)
            things.append(("audio", "the sound", sound, weights["the sound"]))
        if asked.picture and self.takes("image"):
            picture = read_picture(asked.picture, self.limits)
            things.append(("image", "the picture", picture, weights["the picture"]))
        if self.takes("text") and (words := checked(asked.words, "What you look for")):
            things.append(("text", "the words", words, weights["the words"]))
        return things

    def _query(self, things: list[tuple[str, str, Any, float]], kinds: list[str]) -> Query:
        given = {kind: [(thing, weight)] for kind, _, thing, weight in things}
        query = encoded(self.embedder, kinds, **given)
        names = [name for _, name, _, _ in things]  # both in the order sound, picture, words
        return replace(
            query, parts=tuple(replace(part, name=name) for part, name in zip(query.parts, names, strict=True))
        )


@contextmanager
def still_there(folder: Path) -> Iterator[None]:
    """What is wrong with the index is told in words that name no folder, and is in the log."""
    try:
        yield
    except (sqlite3.Error, ValueError, OSError) as error:
        logger.warning("the index %s: %s", folder, error)
        raise Refusal(UNSUITED) from error


def check_direction(query: Query, kinds: list[str]) -> None:
    try:
        for kind in kinds:
            query.vector(kind)
    except ValueError as error:
        raise Refusal(CANCELLED) from error


def sentence(found: list[Thing]) -> str:
    """What there is to see, to be read aloud."""
    lost = sum(bool(one.problem) for one in found)
    words = f"Done: {len(found)} found. The nearest is {found[0].name}."
    if lost:
        words += (
            f" {lost} of them cannot be shown: {'its file is' if lost == 1 else 'their files are'} gone or broken."
        )
    return words


__all__ = ["KINDS", "MOST_COUNTS", "MOST_FOUND", "Archive", "Asked"]
