"""A picture that a sound changes, or that is drawn in its style, with the sound as a word of the prompt.

The difference between this and `unibrivl edit` and `unibrivl stylize` is who asks: here everything is checked as what
a stranger sends, and the picture is made as large as the model draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from unibrivl.app.drawing import FEWEST_STEPS, MOST_SEED, MOST_STEPS, png_of
from unibrivl.app.limits import Refusal
from unibrivl.pipelines.words_audio_token import sounds_in

METHODS = {  # what `edit_method` calls a way -> what the page does
    "p2p": "Keep the form (prompt-to-prompt)",
    "sdedit": "Blur, then draw anew (SDEdit)",
    "ledits++": "Only where the sound belongs (LEDITS++)",
}
MOST_TEXT = 300
MOST_WEIGHT, MOST_GUIDANCE = 2.0, 15.0

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """What a visitor may choose of how a picture is changed.

    Args:
        method (`str`): one of `METHODS`.
        strength (`float`): of "sdedit": how much may change.
        words, places (`float`): of "p2p": the share of the steps that keep the attention to words, and to places.
        blend (`bool`): of "p2p": only where the sound's word looks.
        weight (`float`): how strongly the sound counts; 1 is the sound as it is.
        guidance (`float`): how strictly the prompt is followed.
        steps, seed (`int`): the same numbers give the same picture.
    """

    method: str = "p2p"
    strength: float = 0.8
    words: float = 0.8
    places: float = 0.4
    blend: bool = False
    weight: float = 1.0
    guidance: float = 5.0  # OURS: between what Stable Diffusion (7.5) and the embedded model (3) like best
    steps: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise Refusal(f"There is no way of changing that is called {self.method!r}.")
        for name, least, most in (("steps", FEWEST_STEPS, MOST_STEPS), ("seed", 0, MOST_SEED)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise Refusal(f"{name.capitalize()} must be a whole number from {least} to {most}.")

    def told(self) -> dict[str, Any]:
        """As arguments of a call."""
        call: dict[str, Any] = {
            "audio_weights": self.weight,
            "guidance_scale": self.guidance,
            "num_inference_steps": self.steps,
        }
        call |= {"edit_method": self.method, "generator": torch.Generator().manual_seed(self.seed)}
        if self.method == "p2p":
            call |= {"cross_replace_steps": self.words, "self_replace_steps": self.places}
            call |= {"local_blend": True} if self.blend else {}
        elif self.method == "sdedit":
            call["strength"] = self.strength
        return call


@dataclass(frozen=True)
class Changed:
    """
    Args:
        after: the picture with the sound.
        before (*optional*): the one without it, if there is one: the visitor's, or what was drawn beside it.
        asked (`str`): the prompt, with `<audio>` in it.
        was (`str`, *optional*): what a drawn `before` was asked for as; None of a visitor's own.
        scores (`list[float]`): cosines to the sound: of `before`, if there is one, and of `after`.
        receipt (`dict`): what it takes to make `after` again.
        hidden (`bool`): whether a safety checker has blackened it.
    """

    after: Image.Image
    before: Image.Image | None
    asked: str
    was: str | None
    scores: list[float]
    receipt: dict[str, Any]
    hidden: bool = False

    def png(self) -> bytes:
        """A file with its receipt inside, as `unibrivl edit` writes it."""
        return png_of(self.after, self.receipt)


def edit(
    pipe: Any, sound: Any, embeds_1E: torch.Tensor, picture: Image.Image | None, prompt: str, source: str | None,
    settings: Settings, watch: Watch | None = None, name: str | None = None,
) -> Changed:  # fmt: skip
    """A picture that a sound has changed.

    Args:
        sound: what `<audio>` stands for.
        embeds_1E: it as the matcher hears it, which pictures are compared with.
        picture (*optional*): the one to change; without one, source and target are drawn together.
        prompt, source: what shall be there, and what is.
        name (*optional*): of the picture's file.
    """
    from unibrivl.pipelines.edit_receipt_audio_token import with_receipt

    prompt = checked(prompt, "The prompt") or "a photo of <audio>"
    source = checked(source, "What is in the picture", sounds=0)
    check_speaks(prompt)
    if settings.method == "p2p" and not source:
        raise Refusal("Say what is in the picture before the change, such as: a photo of a dog.")
    if settings.method != "p2p" and picture is None:
        raise Refusal("This way of changing needs a picture: choose one, or choose the way that keeps the form.")
    call = {**settings.told(), "source_prompt": source, **watching(settings, watch)}
    output, receipt = with_receipt(pipe, "edit", name, prompt=prompt, image=picture, audio=sound, **call)
    drawn = picture is None
    before = output.source_images[0] if drawn else picture
    return changed(pipe, output, receipt, embeds_1E, before, prompt, source if drawn else None)


def style(
    pipe: Any, sound: Any, embeds_1E: torch.Tensor, picture: Image.Image | None, prompt: str | None,
    settings: Settings, watch: Watch | None = None, name: str | None = None,
) -> Changed:  # fmt: skip
    """A prompt, or a picture, in the style of a sound; arguments as those of `edit`."""
    from unibrivl.pipelines.edit_receipt_audio_token import with_receipt
    from unibrivl.pipelines.pipeline_audio_token_edit import IN_THE_STYLE

    prompt = checked(prompt, "What to draw", sounds=0)
    if not prompt and picture is None:
        raise Refusal("Say what to draw, such as: a photo of a dog. Or choose a picture to change.")
    call = {**settings.told(), **watching(settings, watch)}
    output, receipt = with_receipt(pipe, "stylize", name, prompt=prompt or None, image=picture, audio=sound, **call)
    return changed(pipe, output, receipt, embeds_1E, picture, f"{prompt or 'a photo'}{IN_THE_STYLE}", None)


def changed(
    pipe: Any, output: Any, receipt: dict[str, Any], embeds_1E: torch.Tensor, before: Image.Image | None, asked: str,
    was: str | None,
) -> Changed:  # fmt: skip
    after = output.images[0]
    shown = [one for one in (before, after) if one is not None]
    found = pipe.embed_pictures(shown)
    scores = (found @ embeds_1E[0].to(found)).tolist()
    flagged = getattr(output, "nsfw_content_detected", None)
    return Changed(after, before, asked, was, scores, receipt, bool(flagged and flagged[0]))


def watching(settings: Settings, watch: Watch | None) -> dict[str, Any]:
    """A callback that only watches, where the way of changing takes one."""
    if watch is None or settings.method == "ledits++":
        return {}
    tell = watch

    def seen(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        tell(step + 1, settings.steps)
        return tensors

    seen.only_watches = True  # type: ignore[attr-defined]  # receipts stay replayable
    return {"callback_on_step_end": seen}


def checked(text: Any, name: str, sounds: int | None = None, most: int = MOST_TEXT) -> str:
    """A visitor's words.

    Args:
        name (`str`): what the page calls them.
        sounds (*optional*): of how many sounds they may speak.
        most (`int`): letters that are read.
    """
    text = " ".join(str(text or "").split())
    if len(text) > most:
        raise Refusal(f"{name} is {len(text)} letters long: {most} are read, shorten it.")
    if sounds is not None and sounds_in(text) > sounds:
        raise Refusal(f"{name} is said without the sound: leave out <audio>.")
    return text


def check_speaks(prompt: str) -> None:
    if sounds_in(prompt) != 1:
        raise Refusal("The prompt must speak of the sound once: write <audio> where it belongs.")


__all__ = ["METHODS", "MOST_GUIDANCE", "MOST_WEIGHT", "Changed", "Settings", "checked", "edit", "style"]
