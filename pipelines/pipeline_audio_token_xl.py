"""`AudioTokenXLPipeline`: Stable Diffusion XL, where a sound is a word of the prompt."""

from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.schedulers import KarrasDiffusionSchedulers
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    FeatureExtractionMixin,
    PreTrainedModel,
    ProcessorMixin,
)

from .loading_audio_token import PARTS, LoadsAdapter
from .mixin_audio_token import AudioTokenMixin
from .pipeline_unibrivl_xl import UniBriVLXLPipeline


class AudioTokenXLPipeline(AudioTokenMixin, LoadsAdapter, UniBriVLXLPipeline):
    """`pipe("a cabin, with <audio>", audio="thunder.wav")`.

    Args:
        vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, unet, scheduler, image_encoder, feature_extractor,
        force_zeros_for_empty_prompt, add_watermarker, matcher, matcher_processor, label_banks: of
            `UniBriVLXLPipeline`.
        audio_adapter, audio_encoder, audio_feature_extractor (*optional*): as in `AudioTokenPipeline`.
    """

    model_cpu_offload_seq = UniBriVLXLPipeline.model_cpu_offload_seq
    _optional_components = [*UniBriVLXLPipeline._optional_components, *PARTS]
    _exclude_from_cpu_offload = [*UniBriVLXLPipeline._exclude_from_cpu_offload, "audio_adapter", "audio_encoder"]

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
        audio_adapter: PreTrainedModel | None = None,
        audio_encoder: PreTrainedModel | None = None,
        audio_feature_extractor: FeatureExtractionMixin | ProcessorMixin | None = None,
    ):
        super().__init__(
            vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, unet, scheduler, image_encoder,
            feature_extractor, force_zeros_for_empty_prompt, add_watermarker, matcher, matcher_processor, label_banks,
        )  # fmt: skip
        self.register_modules(
            audio_adapter=audio_adapter, audio_encoder=audio_encoder, audio_feature_extractor=audio_feature_extractor
        )


__all__ = ["AudioTokenXLPipeline"]
