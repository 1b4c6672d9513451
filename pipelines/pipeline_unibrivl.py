"""`UniBriVLPipeline`: Stable Diffusion 1.x and 2.x, steered by a sound."""

from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.schedulers import KarrasDiffusionSchedulers
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
    ProcessorMixin,
)

from .mixin_unibrivl import UniBriVLMixin


class UniBriVLPipeline(UniBriVLMixin, StableDiffusionPipeline):
    """`pipe(audio="dog.wav")` returns the picture that fits the sound best.

    Args:
        vae, text_encoder, tokenizer, unet, scheduler, safety_checker, feature_extractor, image_encoder: of
            `StableDiffusionPipeline`.
        matcher (*optional*): a model that puts sounds and pictures into one space: UniBriVL, PE-AV.
        matcher_processor (*optional*): what prepares its input.
        label_banks (*optional*): name -> {label: prompt}, saved with the pipeline: where sounds without a prompt find
            one. The matcher reads the labels, the prompts are drawn; the first bank is the default.
    """

    model_cpu_offload_seq = StableDiffusionPipeline.model_cpu_offload_seq
    _optional_components = [*StableDiffusionPipeline._optional_components, "matcher", "matcher_processor"]
    # it is asked before, during and after denoising, and by other methods than forward: it stays where it runs
    _exclude_from_cpu_offload = [*StableDiffusionPipeline._exclude_from_cpu_offload, "matcher"]

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        safety_checker: StableDiffusionSafetyChecker | None,
        feature_extractor: CLIPImageProcessor | None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        requires_safety_checker: bool = True,
        matcher: PreTrainedModel | None = None,
        matcher_processor: ProcessorMixin | None = None,
        label_banks: dict[str, dict[str, str]] | None = None,
    ):
        super().__init__(
            vae, text_encoder, tokenizer, unet, scheduler, safety_checker, feature_extractor, image_encoder,
            requires_safety_checker,
        )  # fmt: skip
        self.register_modules(matcher=matcher, matcher_processor=matcher_processor)
        self._register_banks(label_banks)


__all__ = ["UniBriVLPipeline"]
