"""LEDITS++ of diffusers, with a sound as the word of the change: no source prompt, and a mask from where it looks."""

import inspect
from typing import Any

from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, LEditsPPPipelineStableDiffusion

from .inversion_audio_token import settings_of
from .mixin_audio_token import said
from .words_audio_token import Speaker, Words

SIDES = 32  # of its masks: pictures are multiples of it
OF_ITS_CALL = {"generator", "output_type", "negative_prompt", "clip_skip", "guidance_rescale", "return_dict"}


class SpeakingLedits(LEditsPPPipelineStableDiffusion):
    """Reads sounds where the texts of a change have placeholders."""

    spoken: list[list[Words]]

    def encode_prompt(self, *args, **kwargs):
        parent = super().encode_prompt
        bound = inspect.signature(parent).bind(*args, **kwargs)
        with Speaker(self) as say:
            if bound.arguments.get("editing_prompt") is not None:
                bound.arguments["editing_prompt"] = said(say, bound.arguments["editing_prompt"], self.spoken)
            return parent(*bound.args, **bound.kwargs)


def looks_at_a_quarter(unet: Any) -> bool:
    """Whether a UNet looks for words at a quarter of its size, where LEDITS++ takes its masks from."""
    blocks = unet.config.down_block_types
    return len(blocks) > 2 and "CrossAttn" in blocks[2]


def takes(pipe: Any) -> bool:
    """Whether the pictures of a base can be inverted by it, which asks an autoencoder for a distribution."""
    return isinstance(pipe.vae, AutoencoderKL)


def edited(
    pipe: Any, prompt: Any, image: Any, heard: dict[str, Any], source_prompt: Any, steps: int, kwargs: dict[str, Any]
) -> Any:
    """One picture, changed by one prompt; arguments as those of `AudioTokenEditPipeline`."""
    if image is None or (isinstance(image, (list, tuple)) and len(image) != 1):
        raise ValueError("edit_method='ledits++' changes one picture at a time: pass image=")
    if not takes(pipe):
        raise ValueError(
            f"edit_method='ledits++' needs a base with an AutoencoderKL, and this one has {type(pipe.vae).__name__}: "
            "take edit_method='p2p' or 'sdedit'"
        )
    if heard["negative_audio"] is not None:
        raise ValueError("edit_method='ledits++' takes no sound in the negative prompt: leave negative_audio out")
    unknown = sorted(kwargs.keys() - OF_ITS_CALL - {"guidance_scale", "height", "width"})
    if unknown:
        raise TypeError(f"edit_method='ledits++' takes no argument {unknown[0]!r}")
    prompts, spoken = pipe.understood(
        prompt, heard["audio"], heard["audio_embeds"], sampling_rate=heard["audio_sampling_rate"],
        mix=heard["audio_mix"], weights=heard["audio_weights"],
    )  # fmt: skip
    if len(prompts) != 1:
        raise ValueError(f"edit_method='ledits++' changes one picture by one prompt, and there are {len(prompts)}")
    pixels = pipe.image_processor.preprocess(image, kwargs.get("height"), kwargs.get("width"))
    height, width = pixels.shape[-2:]
    if height % SIDES or width % SIDES:
        raise ValueError(
            f"edit_method='ledits++' takes sides that are multiples of {SIDES}, and this picture is {width} x "
            f"{height}: pass height= and width="
        )
    noise = DPMSolverMultistepScheduler.from_config(
        settings_of(pipe.scheduler), algorithm_type="sde-dpmsolver++", solver_order=2
    )
    inner = SpeakingLedits(
        pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.unet, noise, pipe.safety_checker, pipe.feature_extractor,
        requires_safety_checker=False,
    )  # fmt: skip
    inner.spoken = spoken
    inner.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    processors = dict(pipe.unet.attn_processors)
    try:
        inner.invert(
            image, source_prompt=source_prompt, num_inversion_steps=steps, generator=kwargs.get("generator"),
            height=height, width=width,
        )  # fmt: skip
        more = {name: value for name, value in kwargs.items() if name in OF_ITS_CALL}
        more["use_intersect_mask"] = looks_at_a_quarter(pipe.unet)
        if "guidance_scale" in kwargs:
            more["edit_guidance_scale"] = kwargs["guidance_scale"]
        return inner(editing_prompt=prompts, **more)
    finally:
        pipe.unet.set_attn_processor(processors)  # it leaves its own behind


__all__ = ["SIDES", "edited", "takes"]
