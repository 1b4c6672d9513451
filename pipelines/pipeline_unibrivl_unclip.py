"""`UniBriVLUnCLIPPipeline`: Stable unCLIP, conditioned on a sound's embedding in the place of a picture's."""

import functools
from typing import Any

import torch
from diffusers import AutoencoderKL, StableUnCLIPImg2ImgPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from diffusers.schedulers import KarrasDiffusionSchedulers
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
    ProcessorMixin,
)

from .calling_unibrivl import with_parameters_of
from .mixin_unibrivl import UniBriVLMixin


class UnCLIPOfRows(StableUnCLIPImg2ImgPipeline):
    """Diffusers' own, with a callback of today, and image embeddings that need no image encoder beside them."""

    @functools.wraps(StableUnCLIPImg2ImgPipeline.__call__)
    def __call__(self, *args, callback_on_step_end=None, callback_on_step_end_tensor_inputs=None, **kwargs):
        if callback_on_step_end is not None:
            kwargs["callback"] = lambda step, timestep, latents: callback_on_step_end(
                self, step, timestep, {"latents": latents}
            )
        return super().__call__(*args, **kwargs)

    def _encode_image(
        self, image, device, batch_size, num_images_per_prompt, do_classifier_free_guidance, noise_level, generator,
        image_embeds,
    ):  # fmt: skip
        if image_embeds is None and self.image_encoder is None:
            raise ValueError(
                "this pipeline has no image_encoder, so it takes no picture: pass audio, or image_embeds, or load it "
                "with its image_encoder"
            )
        if image_embeds is None or (self.image_encoder is not None and len(image_embeds) != batch_size):
            return super()._encode_image(
                image, device, batch_size, num_images_per_prompt, do_classifier_free_guidance, noise_level, generator,
                image_embeds,
            )  # fmt: skip
        if batch_size % len(image_embeds):
            raise ValueError(f"{len(image_embeds)} image_embeds for {batch_size} pictures: pass one for each, or one")
        if isinstance(generator, list) or len(image_embeds) == batch_size:  # each row has noise of its own
            image_embeds = image_embeds.repeat_interleave(batch_size // len(image_embeds), dim=0)
        image_embeds = self.noise_image_embeddings(
            image_embeds=image_embeds.to(device), noise_level=noise_level, generator=generator
        )
        image_embeds = image_embeds.repeat_interleave(batch_size // len(image_embeds), dim=0)
        if do_classifier_free_guidance:
            image_embeds = torch.cat([torch.zeros_like(image_embeds), image_embeds])
        return image_embeds


class UniBriVLUnCLIPPipeline(UniBriVLMixin, UnCLIPOfRows):
    """`pipe(audio="dog.wav")` draws what the sound would look like; the prompt may say more.

    Args:
        feature_extractor, image_encoder, image_normalizer, image_noising_scheduler, tokenizer, text_encoder, unet,
        scheduler, vae: of `StableUnCLIPImg2ImgPipeline`; the first two may be missing, a sound needs neither.
        matcher (*optional*): a UniBriVL whose image tower is the CLIP that this unCLIP was trained with.
        matcher_processor (*optional*): what prepares its input.
        label_banks (*optional*): name -> {label: prompt}, saved with the pipeline: where sounds without a prompt find
            one. The matcher reads the labels, the prompts are drawn; the first bank is the default.
    """

    _optional_components = ["feature_extractor", "image_encoder", "matcher", "matcher_processor"]
    # it is asked before, during and after denoising, and by other methods than forward: it stays where it runs
    _exclude_from_cpu_offload = [*StableUnCLIPImg2ImgPipeline._exclude_from_cpu_offload, "matcher"]

    def __init__(
        self,
        feature_extractor: CLIPImageProcessor | None,
        image_encoder: CLIPVisionModelWithProjection | None,
        image_normalizer: StableUnCLIPImageNormalizer,
        image_noising_scheduler: KarrasDiffusionSchedulers,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        vae: AutoencoderKL,
        matcher: PreTrainedModel | None = None,
        matcher_processor: ProcessorMixin | None = None,
        label_banks: dict[str, dict[str, str]] | None = None,
    ):
        super().__init__(
            feature_extractor, image_encoder, image_normalizer, image_noising_scheduler, tokenizer, text_encoder, unet,
            scheduler, vae,
        )  # fmt: skip
        self.register_modules(matcher=matcher, matcher_processor=matcher_processor)
        self._register_banks(label_banks)

    @with_parameters_of(UniBriVLMixin.__call__)
    @with_parameters_of(UnCLIPOfRows.__call__)
    def __call__(  # type: ignore[override]
        self, image: Any = None, prompt: Any = None, *, strategy: Any = "embed", **kwargs
    ):
        """As `UniBriVLPipeline`, and as `StableUnCLIPImg2ImgPipeline`, with the sound in the picture's place.

        Args:
            image (*optional*): in place of the sound's embedding, with another strategy than `embed`.
            strategy: "embed", alone or with others as in "embed+halving"; or, with `image`, any other.
            kwargs: all else of these two.
        """
        return super().__call__(prompt, image=image, strategy=strategy, **kwargs)

    def _call_arguments(self, prompt: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        image = kwargs.pop("image", None)
        call = super()._call_arguments(image, args, {"prompt": prompt, **kwargs})
        return {name: value for name, value in call.items() if value is not None}


__all__ = ["UniBriVLUnCLIPPipeline"]
