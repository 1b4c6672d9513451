"""CAV-MAE at toy size, as if trained, with sounds and pictures of it."""

from __future__ import annotations

import torch

from unibrivl.modeling import (
    CAVMAEAudioConfig,
    CAVMAEAudioModel,
    CAVMAEConfig,
    CAVMAEForAudioClassification,
    CAVMAEImageConfig,
    CAVMAEImageModel,
)

SHARED = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_joint_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_mel_bins": 32,
    "patch_size": 8,
    "max_audio_frames": 64,
}
BOTH = {
    **SHARED,
    "image_size": 32,
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 40,
}


def build(cls, seed=0, **fields):
    """A tiny model whose layers tell their inputs, and its streams one another, apart."""
    torch.manual_seed(seed)
    if cls in (CAVMAEAudioModel, CAVMAEForAudioClassification):
        config = CAVMAEAudioConfig(**SHARED | fields)
    elif cls is CAVMAEImageModel:
        config = CAVMAEImageConfig(**SHARED | {"image_size": 32} | fields)
    else:
        config = CAVMAEConfig(**BOTH | fields)
    model = cls(config)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight, 1, 0.2)
            torch.nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, 0, module.in_features**-0.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


def sounds(number=3, frames=64, bins=32):
    return torch.randn(number, frames, bins, generator=torch.Generator().manual_seed(1))


def pictures(number=3, side=32):
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(2))


def noise(number=3):
    """For tiny sounds of 4 x 8 patches and pictures of 4 x 4."""
    generator = torch.Generator().manual_seed(3)
    return {
        "audio_noise": torch.rand(number, 32, generator=generator),
        "image_noise": torch.rand(number, 16, generator=generator),
    }


def close(ours, other, atol=1e-5):
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)
