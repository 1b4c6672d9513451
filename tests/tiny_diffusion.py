"""Tiny Stable Diffusion, SDXL and matchers of the real classes, random weights, made offline: they run in a second.

`sd_parts()` and `xl_parts()` are what a pipeline of diffusers takes; `matcher()` and `pe_av()` are a model and its
processor; `pipeline()` and `xl_pipeline()` put them together, without a progress bar.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from tiny_text import text_config, tokenizer
from tiny_towers import AUDIO, WIDE, unibrivl_config
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

from unibrivl.modeling import SpeechLMFeatureExtractor, SpeechLMPhoneTokenizer, UniBriVLModel, UniBriVLProcessor

SIDE = 32  # pixels of a picture: 16 x 16 latents, since the tiny VAE halves once
RATE_HZ = 16000
CLIP_WIDTH = 20  # of the matcher's CLIP tower
LEXICON = {"A": ["AH0"], "DOG": ["D", "AO1", "G"], "RAIN": ["R", "EY1", "N"], "CAT": ["K", "AE1", "T"]}


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=[16, 32],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
    )


def unet(**fields) -> UNet2DConditionModel:
    shape: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "sample_size": SIDE // 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**{**shape, **fields}).eval()


NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def sd_parts(seed: int = 0) -> dict[str, Any]:
    """What `StableDiffusionPipeline` takes, without a safety checker."""
    torch.manual_seed(seed)
    return {
        "unet": unet(),
        "vae": vae().eval(),
        "text_encoder": CLIPTextModel(text_config()).eval(),
        "tokenizer": tokenizer(),
        "scheduler": DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        "safety_checker": None,
        "feature_extractor": None,
    }


def unclip_parts(seed: int = 0) -> dict[str, Any]:
    """What `UniBriVLUnCLIPPipeline` takes, without an image encoder."""
    torch.manual_seed(seed)
    parts = sd_parts(seed)
    del parts["safety_checker"], parts["feature_extractor"]
    normalizer = StableUnCLIPImageNormalizer(embedding_dim=CLIP_WIDTH)
    normalizer.mean.data.normal_()
    return {
        **parts,
        "unet": unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * CLIP_WIDTH),
        "image_normalizer": normalizer,
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "feature_extractor": None,
        "image_encoder": None,
    }


def xl_parts(seed: int = 0) -> dict[str, Any]:
    """What `StableDiffusionXLPipeline` takes."""
    torch.manual_seed(seed)
    both = {"cross_attention_dim": 64, "projection_class_embeddings_input_dim": 80}
    return {
        "unet": unet(**both, addition_embed_type="text_time", addition_time_embed_dim=8),
        "vae": vae().eval(),
        "text_encoder": CLIPTextModel(text_config()).eval(),
        "text_encoder_2": CLIPTextModelWithProjection(text_config(projection_dim=32)).eval(),
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer(),
        "scheduler": EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
    }


def matcher(seed: int = 1, audio: str = "speechlm", reads: str = "units") -> tuple[UniBriVLModel, UniBriVLProcessor]:
    """UniBriVL with its processor.

    Args:
        reads: `"units"`, the words of `LEXICON` through SpeechLM's units, or `"native"`, any text by CLIP's tower.
    """
    torch.manual_seed(seed)
    native = reads == "native"
    model = UniBriVLModel(unibrivl_config(audio, "clip", "clip" if native else None)).eval()
    processor = UniBriVLProcessor(
        feature_extractor=SpeechLMFeatureExtractor(),
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer(16) if native else None,
        unit_tokenizer=None if native else SpeechLMPhoneTokenizer(lexicon=LEXICON),
        text_max_length=16 if native else None,
    )
    return model, processor


def pe_av(seed: int = 2) -> tuple[Any, UniBriVLProcessor]:
    """PE-AV with what prepares sounds and texts for it; its own processor needs torchvision."""
    towers = {**WIDE, "num_hidden_layers": 2, "num_key_value_heads": 4, "head_dim": 8}
    vision = transformers.ViTConfig(**WIDE, num_hidden_layers=1, image_size=SIDE, patch_size=8, num_labels=20)
    marks = dict.fromkeys(("pad_token_id", "bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id"), 1)
    try:
        config = transformers.PeAudioVideoConfig(
            text_config={"model_type": "modernbert", **WIDE, "num_hidden_layers": 2, "vocab_size": 64, **marks},
            audio_video_config=transformers.PeAudioVideoEncoderConfig(
                audio_config=AUDIO["pe_audio"],
                video_config=transformers.PeVideoEncoderConfig(vision_config=vision, **towers),
                **towers,
            ),
        )
    except ImportError as error:
        pytest.skip(f"this transformers builds no PE-AV configuration without timm: {error}")
    torch.manual_seed(seed)
    model = transformers.PeAudioVideoModel(config).eval()
    with torch.no_grad():
        model.audio_model.text_audio_logit_scale.fill_(10.0)
    extractor = transformers.PeAudioFeatureExtractor(hop_length=32)
    return model, UniBriVLProcessor(feature_extractor=extractor, tokenizer=tokenizer(16))


def sound(seed: int = 0, seconds: float = 0.4, rate_hz: int = RATE_HZ) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(int(seconds * rate_hz))
    return (0.1 * noise).astype(np.float32)


def pipeline(seed: int = 0, reads: str = "units", **parts):
    """`UniBriVLPipeline` of tiny components; `parts` go over the rest."""
    from unibrivl.pipelines import UniBriVLPipeline

    model, processor = matcher(reads=reads)
    pipe = UniBriVLPipeline(**{**sd_parts(seed), "matcher": model, "matcher_processor": processor, **parts})
    return quiet(pipe)


def xl_pipeline(seed: int = 0, reads: str = "units", **parts):
    """`UniBriVLXLPipeline` of tiny components; `parts` go over the rest."""
    from unibrivl.pipelines import UniBriVLXLPipeline

    model, processor = matcher(reads=reads)
    return quiet(UniBriVLXLPipeline(**{**xl_parts(seed), "matcher": model, "matcher_processor": processor, **parts}))


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
