"""`AudioTokenInpaintPipeline`: a part of a picture is drawn anew, where a sound is a word of the prompt."""

from diffusers import StableDiffusionInpaintPipeline

from .parts_audio_token import AudioTokenParts


class AudioTokenInpaintPipeline(AudioTokenParts, StableDiffusionInpaintPipeline):
    """`pipe("<audio>", image=picture, mask_image=mask, audio="dog.wav")`: white of the mask is drawn anew.

    See `AudioTokenParts` for the components.
    """

    _ranked_by = "rerank"

    def propose(self, query, strategy, call, label_bank=None):
        """As in `UniBriVLMixin`; all candidates stay to the end."""
        if strategy.steers:
            raise ValueError(
                f"inpainting blends every picture with the same number of rows at each step, and {strategy.name!r} "
                "changes rows on the way: pass strategy='rerank'"
            )
        return super().propose(query, strategy, call, label_bank)

    def _channels_taken(self, latent: int) -> tuple[int, ...]:
        return (latent, 2 * latent + 1)  # bases for inpainting see mask and masked picture too


__all__ = ["AudioTokenInpaintPipeline"]
