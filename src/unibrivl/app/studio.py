"""A press of the button: sounds and wishes in, what the page shows out, whatever happens on the way.

An answer is never an exception: what a visitor can mend is a sentence, what is our fault is a sentence too, and goes
to the log with its traceback.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unibrivl.app import markup
from unibrivl.app.drawing import Wishes, draw
from unibrivl.app.folder import PictureFolder
from unibrivl.app.hearing import Ear
from unibrivl.app.limits import Limits, Refusal, read_upload, shown_name

logger = logging.getLogger(__name__)

LEAST_DB, MOST_DB = -40.0, 20.0


@dataclass(frozen=True)
class Answer:
    """What the page shows, as HTML; None leaves a part as it is."""

    status: str
    best: str | None = None
    heard: str | None = None
    candidates: str | None = None
    found: str | None = None


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
        self._lock = threading.Lock()  # a pipeline keeps its steps in itself: one call at a time

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
        # first: a screen reader says the same refusal twice only if something else stood there in between
        yield Answer(markup.status("Listening ..."))
        try:
            if not first:
                raise Refusal("There is no sound yet: choose a file or record one, then press the button again.")
            gain_db = number(gain_db, "Volume", LEAST_DB, MOST_DB)
            share = number(percent, "The share of the second sound", 0, 100) / 100
            wishes = Wishes(bank or None, whole(candidates), whole(steps), whole(seed))
            rate_hz, other = self.ear.rate_hz, None
            sound = read_upload(first, self.limits, rate_hz)
            if second:
                other = read_upload(second, self.limits, rate_hz, "The second sound")
            with self._lock:
                heard = self.ear.listen(sound, other, gain_db=gain_db, share=share)
                found = None if self.folder is None else markup.found(self.folder.nearest(heard.embeds_1E))
            likeliest = "" if not heard.labels else f"Heard: {heard.labels[0][0]} ({percent_of(heard.labels)}). "
            yield Answer(markup.status(f"{likeliest}Drawing ..."), heard=markup.heard(heard.labels), found=found)
            with self._lock:
                drawn = draw(self.pipe, heard.embeds_1E, wishes, watch)
            asked = f' The best was drawn for "{drawn[0].prompt}".' if drawn[0].prompt else ""
            yield Answer(
                markup.status(
                    f"Done: {len(drawn)} {'picture' if len(drawn) == 1 else 'pictures'}. {likeliest}{asked}"
                ),
                best=markup.best(drawn, Path(shown_name(first)).stem),
                candidates=markup.candidates(drawn),
            )
        except Refusal as error:
            yield Answer(markup.status(str(error), problem=True))
        except (ValueError, OSError, ImportError) as error:  # told in words by whoever raised it
            logger.warning("a request was refused: %s", error)
            yield Answer(markup.status(f"This does not work: {error}", problem=True))
        except Exception:
            logger.exception("a request failed")
            words = "Something went wrong on our side; the log of the server says what. Your sound and settings stay."
            yield Answer(markup.status(words, problem=True))


def percent_of(labels: list[tuple[str, float]]) -> str:
    return markup.percent(labels[0][1])


def number(value: Any, name: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Refusal(f"{name} must be a number from {least:g} to {most:g}.")
    if not least <= value <= most:
        raise Refusal(f"{name} must be from {least:g} to {most:g}.")
    return float(value)


def whole(value: Any) -> Any:
    """4.0 as 4; anything else stays what it is, to be refused by its own name."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


__all__ = ["LEAST_DB", "MOST_DB", "Answer", "Studio"]
