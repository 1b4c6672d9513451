"""A press of the button: sounds and wishes in, what the page shows out, whatever happens on the way.

An answer is never an exception: see `answers.told`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unibrivl.app import markup
from unibrivl.app.answers import Answer, told
from unibrivl.app.drawing import Wishes, draw
from unibrivl.app.folder import PictureFolder
from unibrivl.app.hearing import Ear
from unibrivl.app.limits import Limits, Refusal, number, read_upload, shown_name, whole

LEAST_DB, MOST_DB = -40.0, 20.0
LISTENING = "Listening ..."
NO_SOUND = "There is no sound yet: choose a file or record one, then press the button again."


class Studio:
    """
    Args:
        pipe: a pipeline with a matcher.
        limits (`Limits`): of sounds.
        labels (*optional*): what may be heard; see `hearing.known_labels`.
        folder (`PictureFolder`, *optional*): where pictures are looked for.
    """

    def __init__(
        self,
        pipe: Any,
        limits: Limits | None = None,
        labels: list[str] | None = None,
        folder: PictureFolder | None = None,
    ) -> None:
        self.pipe, self.limits, self.folder = pipe, limits or Limits(), folder
        self.ear = Ear(pipe, labels)
        self.lock = threading.Lock()  # a pipeline keeps its steps in itself: one call at a time

    @property
    def banks(self) -> list[str]:
        return list(self.pipe.label_banks)

    def answer(
        self,
        first: str | os.PathLike | None,
        *,
        bank: str | None = None,
        gain_db: Any = 0.0,
        second: str | os.PathLike | None = None,
        percent: Any = 50,
        candidates: Any = 4,
        steps: Any = 20,
        seed: Any = 0,
        watch: Callable[[int, int], None] | None = None,
    ) -> Iterator[Answer]:
        """That it listens, then what was heard, then the pictures; or at some point what is wrong.

        Args:
            first, second: uploaded files; the second is mixed with the first.
            percent: share of the second in the mix.
            watch (*optional*): called after each step.
        """
        return told(self._answer(first, bank, gain_db, second, percent, candidates, steps, seed, watch))

    def _answer(
        self, first: Any, bank: Any, gain_db: Any, second: Any, percent: Any, candidates: Any, steps: Any, seed: Any,
        watch: Any,
    ) -> Iterator[Answer]:  # fmt: skip
        # first: a screen reader says the same refusal twice only if something else stood there in between
        yield Answer(markup.status(LISTENING))
        if not first:
            raise Refusal(NO_SOUND)
        gain_db = number(gain_db, "Volume", LEAST_DB, MOST_DB)
        share = number(percent, "The share of the second sound", 0, 100) / 100
        wishes = Wishes(bank or None, whole(candidates), whole(steps), whole(seed))
        rate_hz, other = self.ear.rate_hz, None
        sound = read_upload(first, self.limits, rate_hz)
        if second:
            other = read_upload(second, self.limits, rate_hz, "The second sound")
        with self.lock:
            heard = self.ear.listen(sound, other, gain_db=gain_db, share=share)
            found = None if self.folder is None else markup.found(self.folder.nearest(heard.embeds_1E))
        likeliest = markup.likeliest(heard.labels)
        yield Answer(markup.status(f"{likeliest}Drawing ..."), heard=markup.heard(heard.labels), found=found)
        with self.lock:
            drawn = draw(self.pipe, heard.embeds_1E, wishes, watch)
        asked = f' The best was drawn for "{drawn[0].prompt}".' if drawn[0].prompt else ""
        yield Answer(
            markup.status(f"Done: {len(drawn)} {'picture' if len(drawn) == 1 else 'pictures'}. {likeliest}{asked}"),
            best=markup.best(drawn, Path(shown_name(first)).stem),
            candidates=markup.candidates(drawn),
        )


__all__ = ["LEAST_DB", "LISTENING", "MOST_DB", "NO_SOUND", "Studio"]
