"""The components of Stable Diffusion 1.x and 2.x with sounds as words: one constructor for all its pipelines."""

from typing import Any

from diffusers import (
    AsymmetricAutoencoderKL,
    AutoencoderKL,
    AutoencoderTiny,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.schedulers import KarrasDiffusionSchedulers
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    FeatureExtractionMixin,
    PreTrainedModel,
    ProcessorMixin,
)

from .loading_audio_token import PARTS, LoadsAdapter
from .mixin_audio_token import AudioTokenMixin
from .mixin_unibrivl import UniBriVLMixin


class AudioTokenParts(AudioTokenMixin, LoadsAdapter, UniBriVLMixin):
    """Stands before `StableDiffusionPipeline`, or one with the same components.

    Args:
        vae, text_encoder, tokenizer, unet, scheduler, safety_checker, feature_extractor, image_encoder: of
            `StableDiffusionPipeline`.
        audio_adapter (*optional*): `AudioTokenAdapter`, what makes words of sounds.
        audio_encoder, audio_feature_extractor (*optional*): the ears that the adapter was trained with, and what
            prepares their sounds; without them the matcher is the ears.
        matcher, matcher_processor, label_banks (*optional*): as in `UniBriVLPipeline`: what ranks candidates.
    """

    register_modules: Any  # of the pipeline it stands before
    components: Any
    set_progress_bar_config: Any

    model_cpu_offload_seq = StableDiffusionPipeline.model_cpu_offload_seq
    _optional_components = [*StableDiffusionPipeline._optional_components, "matcher", "matcher_processor", *PARTS]
    # they are asked by other methods than forward: they stay where everything runs
    _exclude_from_cpu_offload = [
        *StableDiffusionPipeline._exclude_from_cpu_offload, "matcher", "audio_adapter", "audio_encoder"
    ]  # fmt: skip

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny | AsymmetricAutoencoderKL,
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
        audio_adapter: PreTrainedModel | None = None,
        audio_encoder: PreTrainedModel | None = None,
        audio_feature_extractor: FeatureExtractionMixin | ProcessorMixin | None = None,
    ):
        super().__init__(  # type: ignore[call-arg]
            vae, text_encoder, tokenizer, unet, scheduler, safety_checker, feature_extractor, image_encoder,
            requires_safety_checker,
        )  # fmt: skip
        self.register_modules(
            matcher=matcher, matcher_processor=matcher_processor, audio_adapter=audio_adapter,
            audio_encoder=audio_encoder, audio_feature_extractor=audio_feature_extractor,
        )  # fmt: skip
        self._register_banks(label_banks)

    def _as(self, kind: type) -> Any:
        """Another pipeline with the same components."""
        if type(self) is kind:
            return self
        pipe = kind(**self.components, requires_safety_checker=self.config.requires_safety_checker)
        pipe.set_progress_bar_config(**getattr(self, "_progress_bar_config", {}))
        return pipe


__all__ = ["AudioTokenParts"]
