"""`AudioTokenImg2ImgPipeline`: from a picture to another, where a sound is a word of the prompt."""

from diffusers import StableDiffusionImg2ImgPipeline

from .parts_audio_token import AudioTokenParts


class AudioTokenImg2ImgPipeline(AudioTokenParts, StableDiffusionImg2ImgPipeline):
    """`pipe("a lighthouse in the style of <audio>", image=picture, audio="storm.wav", strength=0.6)`.

    See `AudioTokenParts` for the components.
    """


__all__ = ["AudioTokenImg2ImgPipeline"]
