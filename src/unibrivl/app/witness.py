"""A press of the button that asks why: a sound and a picture in, which seconds and which part made their score out.

An answer is never an exception: see `answers.told`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from unibrivl.app import markup, markup_evidence
from unibrivl.app.answers import Answer, told
from unibrivl.app.limits import Limits, Refusal, read_upload, shown_name
from unibrivl.app.picturing import read_picture
from unibrivl.app.studio import NO_SOUND
from unibrivl.embedder import Embedder
from unibrivl.embedder.evidence import REGIONS

NO_PICTURE = "There is no picture yet: choose one, then press the button again."
HIDING = "Hiding one part after another ..."
MOST_SIDE = 768  # pixels: a picture is held once for each region, and models see less of it
LEAST_SIDE = 16

Watch = Callable[[int, int, str], None]


class Witness:
    """
    Args:
        embedder: of a matcher that hears and sees.
        limits (`Limits`, *optional*): of sounds and files.
        lock (*optional*): of whatever else uses the same model.
    """

    def __init__(self, embedder: Embedder, limits: Limits | None = None, lock: Any = None) -> None:
        self.embedder, self.limits, self.lock = embedder, limits or Limits(), lock or threading.Lock()

    def explain(
        self, sound: str | os.PathLike | None, picture: str | os.PathLike | None, watch: Watch | None = None
    ) -> Iterator[Answer]:
        """That it works, then the evidence as a picture, a sentence and tables; or what is wrong.

        Args:
            sound, picture: uploaded files.
            watch (*optional*): called with how many are done, of how many, of what.
        """
        return told(self._answer(sound, picture, watch))

    def _answer(self, sound: Any, picture: Any, watch: Watch | None) -> Iterator[Answer]:
        # first: a screen reader says the same refusal twice only if something else stood there in between
        yield Answer(markup.status(HIDING))
        if not sound:
            raise Refusal(NO_SOUND)
        if not picture:
            raise Refusal(NO_PICTURE)
        heard = read_upload(sound, self.limits, self.embedder.matcher.sampling_rate)
        seen = small(read_picture(picture, self.limits), shown_name(picture))
        with self.lock:
            found = self.embedder.evidence(heard, seen, regions=REGIONS, progress=watch or False)
        found = replace(found, names=(shown_name(sound), shown_name(picture)))
        words = markup_evidence.sentence(found)
        yield Answer(
            markup.status(f"Done: {words}"),
            best=markup_evidence.drawn(found, words, f"why {Path(shown_name(sound)).stem}"),
            heard=markup_evidence.tables(found),
        )


def small(picture: Image.Image, name: str) -> Image.Image:
    """A picture as large as is worth hiding parts of."""
    picture.thumbnail((MOST_SIDE, MOST_SIDE))
    if min(picture.size) < LEAST_SIDE:
        raise Refusal(f"The picture ({name}) is too small or too narrow to hide parts of it: choose another.")
    return picture


__all__ = ["Witness"]
