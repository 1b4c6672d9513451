"""Other families than Stable Diffusion 1, 2 and XL: a pipeline of sounds as words is a class of two names there.

`AudioTokenSD3Pipeline` and `AudioTokenFluxPipeline` are not shipped, since no adapter for them has been trained. What
they would be stands here, and draws what the pipeline itself draws from a word whose rows the sound has.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_text  # noqa: E402
from diffusers import (  # noqa: E402
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tiny_diffusion import generator  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402
from transformers import (  # noqa: E402
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from unibrivl.modeling import AudioCue  # noqa: E402
from unibrivl.pipelines.mixin_audio_token import AudioTokenMixin  # noqa: E402

WORDS = ["a", "b", "d"]  # one token each for CLIP's tiny tokenizer, too
DRAWN = {"num_inference_steps": 2, "output_type": "np", "height": 16, "width": 16, "max_sequence_length": 16}


class AudioTokenSD3Pipeline(AudioTokenMixin, StableDiffusion3Pipeline):
    audio_adapter = audio_encoder = audio_feature_extractor = None


class AudioTokenFluxPipeline(AudioTokenMixin, FluxPipeline):
    audio_adapter = audio_encoder = audio_feature_extractor = None


def t5_tokenizer() -> PreTrainedTokenizerFast:
    pieces = ["<pad>", "</s>", "<unk>", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({piece: place for place, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


def clip(kind, tokenizer):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, projection_dim=16, num_hidden_layers=2,
        num_attention_heads=2, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return kind(config).eval()


def t5(tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    ).eval()


def vae(channels: int) -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=channels, shift_factor=0.1,
                         scaling_factor=0.5, use_quant_conv=False, use_post_quant_conv=False)  # fmt: skip


def sd3():
    torch.manual_seed(0)
    words, others = tiny_text.tokenizer(), t5_tokenizer()
    return AudioTokenSD3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16, patch_size=1, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(4), image_encoder=None, feature_extractor=None,
        text_encoder=clip(CLIPTextModelWithProjection, words), tokenizer=words,
        text_encoder_2=clip(CLIPTextModelWithProjection, words), tokenizer_2=words,
        text_encoder_3=t5(others), tokenizer_3=others,
    )  # fmt: skip


def flux():
    torch.manual_seed(0)
    words, others = tiny_text.tokenizer(), t5_tokenizer()
    return AudioTokenFluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae(1), text_encoder=clip(CLIPTextModel, words),
        tokenizer=words, text_encoder_2=t5(others), tokenizer_2=others,
    )  # fmt: skip


@pytest.mark.parametrize("make", [sd3, flux])
def test_a_sound_is_read_by_all_text_encoders(make):
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    encoders = {name: getattr(pipe, name) for name in ("text_encoder", "text_encoder_2", "text_encoder_3")
                if getattr(pipe, name, None) is not None}  # fmt: skip
    rows = {}
    for name, encoder in encoders.items():
        tokenizer = getattr(pipe, name.replace("text_encoder", "tokenizer"))
        (place,) = tokenizer("d", add_special_tokens=False).input_ids
        rows[name] = encoder.get_input_embeddings().weight[place].detach()[None].clone()
    cue = AudioCue.for_base(rows, encoders)
    tables = {name: encoder.get_input_embeddings().weight.clone() for name, encoder in encoders.items()}
    wanted = pipe("a b d", generator=generator(), **DRAWN).images
    found = pipe("a b <audio>", audio=cue, generator=generator(), **DRAWN).images
    assert np.abs(found - wanted).max() <= 1e-6
    assert np.abs(pipe("a b b", generator=generator(), **DRAWN).images - wanted).max() > 1e-4
    assert all(torch.equal(encoders[name].get_input_embeddings().weight, table) for name, table in tables.items())
