"""`AudioTokenPipeline`: Stable Diffusion 1.x and 2.x, where a sound is a word of the prompt."""

from typing import Any

from diffusers import StableDiffusionPipeline

from .parts_audio_token import AudioTokenParts
from .pipeline_audio_token_edit import AudioTokenEditPipeline


class AudioTokenPipeline(AudioTokenParts, StableDiffusionPipeline):
    """`pipe("a cabin, with <audio>", audio="thunder.wav")`; see `AudioTokenParts` for the components."""

    def edit(self, prompt: Any = None, image: Any = None, **how: Any) -> Any:
        """A picture that a sound changes: the call of an `AudioTokenEditPipeline` with these components."""
        return self._as(AudioTokenEditPipeline)(prompt, image, **how)

    def stylize(self, prompt: str | None = None, *, image: Any = None, **how: Any) -> Any:
        """A picture in the style of a sound: see `AudioTokenEditPipeline.stylize`."""
        return self._as(AudioTokenEditPipeline).stylize(prompt, image=image, **how)


__all__ = ["AudioTokenPipeline"]
