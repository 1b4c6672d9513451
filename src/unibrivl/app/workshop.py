"""A press of the buttons that change pictures: a sound, perhaps a picture, words; out comes what the page shows.

It shares the ear, the limits and the lock of a `Studio`, since both drive one UNet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from unibrivl.app import markup
from unibrivl.app.answers import Answer, told
from unibrivl.app.changing import METHODS, MOST_GUIDANCE, MOST_WEIGHT, Changed, Settings, Watch, edit, style
from unibrivl.app.limits import Refusal, number, read_upload, shown_name, whole
from unibrivl.app.picturing import read_picture
from unibrivl.app.studio import LISTENING, NO_SOUND, Studio
from unibrivl.pipelines.fitting_audio_token import fitted, grid_of
from unibrivl.pipelines.ledits_audio_token import SIDES, takes

Upload = str | os.PathLike | None


class Workshop:
    """
    Args:
        pipe: an `AudioTokenEditPipeline` with an adapter and ears.
        studio (`Studio`): of the same model.
    """

    def __init__(self, pipe: Any, studio: Studio) -> None:
        self.pipe, self.studio = pipe, studio
        self.side, self.step = grid_of(pipe)

    @property
    def methods(self) -> dict[str, str]:
        """What this base can do: `edit_method` -> what the page calls it."""
        return {name: words for name, words in METHODS.items() if name != "ledits++" or takes(self.pipe)}

    def edit(
        self, sound: Upload, picture: Upload, source: Any, prompt: Any, settings: dict[str, Any],
        watch: Watch | None = None,
    ) -> Iterator[Answer]:  # fmt: skip
        """That it listens, then what was heard, then the picture before and after; or what is wrong.

        Args:
            sound, picture: uploaded files; without a picture both are drawn.
            source, prompt: what is in the picture, and what shall be, with `<audio>`.
            settings: the fields of `Settings`, shares as percent, as the page has them.
            watch (*optional*): called after each step.
        """
        work = partial(edit, self.pipe, prompt=prompt, source=source, watch=watch)
        return told(self._answer(sound, picture, settings, work))

    def style(
        self, sound: Upload, picture: Upload, prompt: Any, settings: dict[str, Any], watch: Watch | None = None
    ) -> Iterator[Answer]:
        """As `edit`: the prompt, or the picture, in the style of the sound."""
        return told(self._answer(sound, picture, settings, partial(style, self.pipe, prompt=prompt, watch=watch)))

    def _answer(
        self, sound: Upload, picture: Upload, settings: dict[str, Any], work: Callable[..., Changed]
    ) -> Iterator[Answer]:
        yield Answer(markup.status(LISTENING))
        if not sound:
            raise Refusal(NO_SOUND)
        studio = self.studio
        wanted = self._settings(settings)
        seen = None
        if picture:
            step = SIDES if wanted.method == "ledits++" else self.step
            seen = fitted(read_picture(picture, studio.limits), self.side, step)
        waveform = read_upload(sound, studio.limits, studio.ear.rate_hz)
        with studio.lock:
            heard = studio.ear.listen(waveform)
        likeliest = markup.likeliest(heard.labels)
        yield Answer(markup.status(f"{likeliest}Drawing ..."), heard=markup.heard(heard.labels))
        with studio.lock:
            made = work(
                sound=waveform, embeds_1E=heard.embeds_1E, picture=seen, settings=wanted,
                name=shown_name(picture) if picture else None,
            )  # fmt: skip
        name = Path(shown_name(picture or sound)).stem
        yield Answer(markup.status(f"Done: {described(made)}. {likeliest}"), best=markup.pair(made, f"{name} changed"))

    def _settings(self, given: dict[str, Any]) -> Settings:
        """The page's numbers, checked."""
        shares = {
            name: number(given[name], words, 0, 100) / 100
            for name, words in (
                ("strength", "How much may change"), ("words", "Steps that keep what words look at"),
                ("places", "Steps that keep the layout"),
            )
            if name in given
        }  # fmt: skip
        if given.get("method") not in (None, *self.methods):
            raise Refusal("This model cannot change pictures in this way: choose another.")
        return Settings(
            method=given.get("method") or "p2p",
            blend=bool(given.get("blend")),
            weight=number(given.get("weight", 1.0), "How strongly the sound counts", 0, MOST_WEIGHT),
            guidance=number(given.get("guidance", Settings.guidance), "Guidance", 1, MOST_GUIDANCE),
            steps=whole(given.get("steps", Settings.steps)),
            seed=whole(given.get("seed", 0)),
            **shares,
        )


def described(made: Changed) -> str:
    """What there is to see, in words."""
    if made.before is None:
        return "1 picture"
    if made.was is None:
        return "your picture, and what the sound made of it"
    return "2 pictures, without the sound and with it"


__all__ = ["Workshop"]
