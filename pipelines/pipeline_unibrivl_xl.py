"""`UniBriVLXLPipeline`: Stable Diffusion XL, steered by a sound."""

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.schedulers import KarrasDiffusionSchedulers
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
    ProcessorMixin,
)

from .mixin_unibrivl import UniBriVLMixin


class UniBriVLXLPipeline(UniBriVLMixin, StableDiffusionXLPipeline):
    """`pipe(audio="dog.wav")` returns the picture that fits the sound best.

    Args:
        vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, unet, scheduler, image_encoder, feature_extractor,
        force_zeros_for_empty_prompt, add_watermarker: of `StableDiffusionXLPipeline`.
        matcher (*optional*): a model that puts sounds and pictures into one space: UniBriVL, PE-AV.
        matcher_processor (*optional*): what prepares its input.
        label_banks (*optional*): name -> {label: prompt}, saved with the pipeline: where sounds without a prompt find
            one. The matcher reads the labels, the prompts are drawn; the first bank is the default.
    """

    model_cpu_offload_seq = StableDiffusionXLPipeline.model_cpu_offload_seq
    _optional_components = [*StableDiffusionXLPipeline._optional_components, "matcher", "matcher_processor"]
    # it is asked before, during and after denoising, and by other methods than forward: it stays where it runs
    _exclude_from_cpu_offload = [*StableDiffusionXLPipeline._exclude_from_cpu_offload, "matcher"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        tokenizer_2: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        feature_extractor: CLIPImageProcessor | None = None,
        force_zeros_for_empty_prompt: bool = True,
        add_watermarker: bool | None = None,
        matcher: PreTrainedModel | None = None,
        matcher_processor: ProcessorMixin | None = None,
        label_banks: dict[str, dict[str, str]] | None = None,
    ):
        super().__init__(
            vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, unet, scheduler, image_encoder,
            feature_extractor, force_zeros_for_empty_prompt, add_watermarker,
        )  # fmt: skip
        self.register_modules(matcher=matcher, matcher_processor=matcher_processor)
        self._register_banks(label_banks)

    def _decode(self, latents_ACHW: torch.Tensor) -> torch.Tensor:
        vae, config = self.vae, self.vae.config
        upcast = vae.dtype == torch.float16 and config.force_upcast  # SDXL's own VAE overflows in float16
        if upcast:
            self.upcast_vae()
        try:
            latents = latents_ACHW.to(next(iter(vae.post_quant_conv.parameters())).dtype if upcast else vae.dtype)
            mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
            if mean is None or std is None:
                latents = latents / config.scaling_factor
            else:
                mean, std = (torch.tensor(one).view(1, -1, 1, 1).to(latents) for one in (mean, std))
                latents = latents * std / config.scaling_factor + mean
            return vae.decode(latents, return_dict=False)[0]
        finally:
            if upcast:
                vae.to(dtype=torch.float16)


__all__ = ["UniBriVLXLPipeline"]
