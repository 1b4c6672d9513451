"""Tiny towers of every kind for UniBriVL's tests: configurations, and inputs as each tower's own processor makes them.

`AUDIO`, `IMAGE` and `TEXT` hold fields by a short name; `unibrivl_config("hubert", "clip")` joins two or three, and
`save_unibrivl(folder)` writes a whole model that `unibrivl.load` takes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from unibrivl.modeling.configuration_unibrivl import UniBriVLConfig

WIDE = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
DEEP = {**WIDE, "num_hidden_layers": 3}
WAVES = {**DEEP, "conv_dim": [24] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
PATCHES = {**WIDE, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8}

AUDIO: dict[str, dict] = {
    "speechlm": {
        "model_type": "speechlm",
        **WIDE,
        "num_speech_layers": 2,
        "num_shared_layers": 2,
        "conv_dim": [24] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
        "max_relative_position": 20,
        "max_source_positions": 120,
        "unit_vocab_size": 369,  # the phone tokenizer's
        "unit_proj_size": 12,
        "ctc_vocab_size": 11,
    },
    "hubert": {"model_type": "hubert", **WAVES},
    "wav2vec2": {"model_type": "wav2vec2", **WAVES},
    "wavlm": {"model_type": "wavlm", **WAVES},
    "ast": {"model_type": "audio-spectrogram-transformer", **DEEP, "max_length": 64, "num_mel_bins": 32},
    "whisper": {
        "model_type": "whisper",
        "d_model": 32,
        "encoder_layers": 3,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_layers": 1,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 48,
        "num_mel_bins": 16,
        "max_source_positions": 50,
        "vocab_size": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 3,
    },
    "clap": {
        "model_type": "clap_audio_model",
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 2],
        "patch_embeds_hidden_size": 16,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "spec_size": 128,
        "num_mel_bins": 32,
        "window_size": 4,
    },
    "pe_audio": {
        "model_type": "pe_audio_encoder",
        **DEEP,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "dac_config": {
            "encoder_hidden_size": 8,
            "downsampling_ratios": [2, 4, 4],
            "decoder_hidden_size": 16,
            "codebook_dim": 8,
            "hidden_size": 64,
        },
    },
    "cavmae": {
        "model_type": "cavmae_audio",
        **WIDE,
        "num_hidden_layers": 3,
        "num_mel_bins": 32,
        "patch_size": 8,
        "max_audio_frames": 64,
    },
    "mel_encoder": {
        "model_type": "mel_encoder",
        "num_mel_bins": 32,
        "backbone_config": {
            "model_type": "resnet",
            "num_channels": 1,
            "embedding_size": 8,
            "hidden_sizes": [8, 16],
            "depths": [1, 1],
            "layer_type": "basic",
        },
    },
}

IMAGE: dict[str, dict] = {
    "clip": {"model_type": "clip_vision_model", **PATCHES, "projection_dim": 20},
    "siglip": {"model_type": "siglip_vision_model", **PATCHES},
    "dinov2": {
        "model_type": "dinov2",
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "image_size": 32,
        "patch_size": 8,
    },
    "vit": {"model_type": "vit", **PATCHES},
    "resnet": {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "layer_type": "basic",
    },
    "brivl": {
        "model_type": "brivl_vision",
        "width_coefficient": 0.25,
        "depth_coefficient": 0.1,
        "hidden_size": 320,
        "image_size": 64,
        "num_sa_layers": 1,
    },
}

TEXT: dict[str, dict] = {
    "clip": {
        "model_type": "clip_text_model",
        **WIDE,
        "num_hidden_layers": 2,
        "vocab_size": 64,
        "max_position_embeddings": 16,
        "projection_dim": 20,
        "bos_token_id": 0,
        "eos_token_id": 63,
    },
    "siglip": {
        "model_type": "siglip_text_model",
        **WIDE,
        "num_hidden_layers": 2,
        "vocab_size": 64,
        "max_position_embeddings": 16,
        "projection_size": 32,
        "bos_token_id": 0,
        "eos_token_id": 63,
    },
    "brivl": {
        "model_type": "brivl_text",
        **WIDE,
        "num_hidden_layers": 2,
        "vocab_size": 64,
        "max_position_embeddings": 16,
        "max_length": 12,
        "projection_dim": 320,
        "num_sa_layers": 1,
        "sa_intermediate_size": 40,
    },
}

HEAD = {
    "embed_dim": 24,
    "num_sa_layers": 2,
    "num_sa_heads": 2,
    "sa_intermediate_size": 40,
    "classifier_hidden_size": 16,
}


def unibrivl_config(audio: str = "speechlm", image: str = "clip", text: str | None = None, **fields) -> UniBriVLConfig:
    """A tiny configuration of the towers named; `fields` go over the rest."""
    towers = {"audio_config": dict(AUDIO[audio]), "vision_config": dict(IMAGE[image])}
    if text is not None:
        towers["text_config"] = dict(TEXT[text])
    return UniBriVLConfig(**{**HEAD, **towers, **fields})


def save_unibrivl(folder: Path) -> str:
    """A model with its processor, of SpeechLM and CLIP, in `folder`; of texts it knows the words dog and rain."""
    from transformers import CLIPImageProcessorPil

    from unibrivl.modeling import SpeechLMFeatureExtractor, SpeechLMPhoneTokenizer, UniBriVLModel, UniBriVLProcessor

    torch.manual_seed(0)
    UniBriVLModel(unibrivl_config("speechlm", "clip")).eval().save_pretrained(folder)
    UniBriVLProcessor(
        feature_extractor=SpeechLMFeatureExtractor(),
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        unit_tokenizer=SpeechLMPhoneTokenizer(lexicon={"DOG": ["D", "AO1", "G"], "RAIN": ["R", "EY1", "N"]}),
    ).save_pretrained(folder)
    return str(folder)


def save_noise(folder: Path, number: int, rate: int = 16000) -> Path:
    """So many sounds of noise in `folder`, a third of a second to a second long."""
    import numpy as np
    import soundfile

    generator = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for one in range(number):
        noise = 0.1 * generator.standard_normal(generator.integers(rate // 3, rate))
        soundfile.write(folder / f"{one:02}.wav", noise, rate)
    return folder


def sounds(audio: str = "speechlm", number: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Sounds under the names the model takes; the last one is shorter where the tower has a mask."""
    generator = torch.Generator().manual_seed(seed)
    shape, real = {
        "ast": ((number, 64, 32), None),
        "cavmae": ((number, 64, 32), None),
        "clap": ((number, 1, 512, 32), None),
        "whisper": ((number, 16, 100), 60),
        "pe_audio": ((number, 1, 640), 320),
        "mel_encoder": ((number, 64, 32), 40),
    }.get(audio, ((number, 4000), 2500))
    values = torch.randn(shape, generator=generator)
    name = "input_features" if audio in ("clap", "whisper", "mel_encoder") else "input_values"
    if real is None:
        return {name: values}
    mask = torch.ones(number, shape[2] if audio in ("whisper", "pe_audio") else shape[1], dtype=torch.long)
    mask[-1, real:] = 0
    if audio == "mel_encoder":
        values = values * mask[..., None]
    elif audio != "whisper":
        values = values * (mask[:, None] if audio == "pe_audio" else mask)
    return {name: values, "padding_mask" if audio == "pe_audio" else "attention_mask": mask}


def pictures(image: str = "clip", number: int = 3, seed: int = 1) -> torch.Tensor:
    """Pictures as the image tower's processor gives them, (number, 3, S, S)."""
    side = 64 if image in ("brivl", "resnet") else 32
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(seed))


def units(number: int = 2, seed: int = 2) -> dict[str, torch.Tensor]:
    """Texts as SpeechLM's units; the last is shorter."""
    ids = torch.randint(4, 300, (number, 20), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    ids[-1, 12:], mask[-1, 12:] = 1, 0
    return {"unit_ids": ids, "unit_attention_mask": mask}


def tokens(text: str = "clip", number: int = 2, seed: int = 3) -> dict[str, torch.Tensor]:
    """Texts as the native text tower's tokens, padded to 12; the last is shorter."""
    ids = torch.randint(4, 60, (number, 12), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    ids[:, -1], ids[-1, 7:], mask[-1, 8:] = 63, 63, 0
    if text == "brivl":
        ids[-1, 8:] = 0
    return {"input_ids": ids, "text_attention_mask": mask}
