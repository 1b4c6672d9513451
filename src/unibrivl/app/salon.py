"""A press of the buttons of spoken sentences: what somebody says in, what was understood and pictures that fit out.

An answer is never an exception: see `answers.told`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

from unibrivl.app import markup
from unibrivl.app.answers import Answer, told
from unibrivl.app.changing import checked
from unibrivl.app.folder import Found, Match, PictureFolder
from unibrivl.app.limits import Limits, Refusal, read_upload
from unibrivl.app.studio import LISTENING, NO_SOUND
from unibrivl.embedder import Embedder

SHOWN = 8
MOST_WORDS = 1000  # letters of a corrected sentence: more than is said in half a minute
NO_WORDS = "There are no words to rank by: write what was said, or find pictures by the sound first."


class Salon:
    """
    Args:
        embedder (`Embedder`): of a matcher that hears channel by channel, such as a BrewCLIP.
        folder (`PictureFolder`): the pictures, embedded by it.
        limits (`Limits`, *optional*): of sounds.
    """

    def __init__(self, embedder: Embedder, folder: PictureFolder, limits: Limits | None = None) -> None:
        self.embedder, self.folder, self.limits = embedder, folder, limits or Limits()
        self.lock = threading.Lock()

    @property
    def reads(self) -> bool:
        """Whether what is said is written down, and counts."""
        return "text" in self.embedder.matcher.channels

    def find(self, sound: str | os.PathLike | None) -> Iterator[Answer]:
        """That it listens, then what was understood and the pictures; or what is wrong.

        Args:
            sound: an uploaded file.
        """
        return told(self._answer(sound, None))

    def again(self, sound: str | os.PathLike | None, words: Any) -> Iterator[Answer]:
        """As `find`, with a visitor's words in the place of what was understood."""
        return told(self._answer(sound, words or ""))

    def _answer(self, sound: Any, words: Any) -> Iterator[Answer]:
        # first: a screen reader says the same refusal twice only if something else stood there in between
        yield Answer(markup.status(LISTENING))
        if not sound:
            raise Refusal(NO_SOUND)
        if words is not None and not (words := checked(words, "What was said", most=MOST_WORDS)):
            raise Refusal(NO_WORDS)
        waveform = read_upload(sound, self.limits, self.embedder.matcher.sampling_rate)
        known = None if words is None else [words]
        with self.lock:
            [heard] = self.embedder.rank([waveform], self.folder.vectors, explain=True, transcripts=known)
        found = self.folder.opened(matches(heard), SHOWN)
        if not found:
            raise Refusal("None of the pictures can be opened any more: the folder must be named anew.")
        said = None if heard.transcript is None else heard.transcript.strip()
        yield Answer(
            markup.status(f"Done: {counted(found)}. {sentence(said, words is not None)}"),
            heard=markup.understood(said, words is not None),
            found=markup.ranked(found, len(self.folder)),
            words=said,
        )


def matches(heard: Any) -> Iterator[Match]:
    """A ranking with the scores of each channel, where there are several: of one they are those of the whole."""
    several = len(heard.channels) > 1
    for place, (name, score) in enumerate(zip(heard.ids, heard.scores, strict=True)):
        own = {channel: scores[place] for channel, scores in heard.channels.items()} if several else {}
        yield Match(name, score, own)


def counted(found: list[Found]) -> str:
    return f"{len(found)} {'picture' if len(found) == 1 else 'pictures'}"


def sentence(said: str | None, corrected: bool) -> str:
    """What was understood, to be read aloud."""
    if said is None:
        return "Ranked by the voice alone."
    if not said:
        return "Nothing was understood."
    return f'{"Your words" if corrected else "Understood"}: "{said}"'


__all__ = ["Salon"]
