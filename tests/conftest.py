"""Shared fixtures: tiny models of the real classes, one config per published shape."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test talks to the Hub

import pytest
import torch


@pytest.fixture(params=["base", "large"])
def tiny_config(request):
    """SpeechLM at toy size in the shape of Base (post-norm, GroupNorm) and of Large (pre-norm, LayerNorm)."""
    from unibrivl.modeling import SPEECHLM_PRESETS, SpeechLMConfig

    preset = SPEECHLM_PRESETS["base-p" if request.param == "base" else "large-p"]
    small = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_speech_layers": 2,
        "num_shared_layers": 2,
        "conv_dim": [24] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,  # 8 channels a group is wrong in bfloat16 on some CPUs (oneDNN)
        "max_relative_position": 20,
        "max_source_positions": 120,
        "unit_vocab_size": 37,
        "unit_proj_size": 12,
        "ctc_vocab_size": 11,
        "feature_grad_mult": 1.0,
    }
    return SpeechLMConfig(**{**preset, **small})


@pytest.fixture
def clips():
    """Three clips of 1.0, 0.4 and 0.7 s, padded: samples and mask."""
    generator = torch.Generator().manual_seed(0)
    lengths = [16000, 6400, 11200]
    samples, mask = torch.zeros(3, 16000), torch.zeros(3, 16000, dtype=torch.long)
    for row, length in enumerate(lengths):
        samples[row, :length] = 0.1 * torch.randn(length, generator=generator)
        mask[row, :length] = 1
    return samples, mask, lengths
