"""An audio-token adapter and a LoRA of its base's UNet as one model: they train together and are saved together.

What is saved is an adapter's folder with a LoRA of diffusers beside it: `AudioTokenAdapter.from_pretrained(folder)`
reads the one and `pipe.load_lora_weights(folder)` the other.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from unibrivl.modeling import AudioTokenAdapter
from unibrivl.training.checkpoint import CheckpointError

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]  # of the UNet's attention
FILE = "pytorch_lora_weights.safetensors"  # diffusers' own
PREFIX = "unet."
NAME = "default"  # of the LoRA within the UNet


class AdapterWithLoRA(nn.Module):
    """
    Args:
        adapter: an `AudioTokenAdapter`.
        unet: of the base. A new LoRA is put into it, whose weights are this model's too.
        rank (`int`): of the LoRA; its terms are not scaled.
    """

    def __init__(self, adapter: AudioTokenAdapter, unet: Any, rank: int):
        super().__init__()
        from peft import LoraConfig

        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS), adapter_name=NAME)
        found = {name: weight for name, weight in unet.named_parameters() if f".{NAME}." in name and "lora_" in name}
        for weight in found.values():  # weights that train need 32 bits, whatever the base has
            weight.data = weight.data.float()
            weight.requires_grad_(True)
        self.adapter, self.lora = adapter, nn.ParameterDict({as_key(name): one for name, one in found.items()})

    @property
    def config(self):
        return self.adapter.config

    @property
    def device(self) -> torch.device:
        return self.adapter.device

    def forward(self, features: torch.Tensor, attention_mask: torch.Tensor | None = None):
        return self.adapter(features, attention_mask)

    def save_pretrained(self, folder: str | os.PathLike, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        from diffusers import StableDiffusionPipeline

        state = self.state_dict() if state_dict is None else state_dict
        words = {name.removeprefix("adapter."): one for name, one in state.items() if name.startswith("adapter.")}
        save: Any = self.adapter.save_pretrained
        save(folder, state_dict=words)
        layers = {as_layer(name): one for name, one in state.items() if name.startswith("lora.")}
        StableDiffusionPipeline.save_lora_weights(str(folder), unet_lora_layers=layers)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The weights of a folder, without a UNet around the LoRA: for going on with a run."""
        path = os.path.join(folder, FILE)
        if not os.path.isfile(path):
            raise CheckpointError(f"{folder} holds no {FILE}: the run in it trained no LoRA, or the file was removed")
        held = nn.Module()
        held.adapter = AudioTokenAdapter.from_pretrained(folder, dtype=dtype)
        weights = {as_key(name.removeprefix(PREFIX), saved=True): one for name, one in load_file(path).items()}
        held.lora = nn.ParameterDict(weights)
        return held


def as_key(name: str, saved: bool = False) -> str:
    """A weight's name within the UNet, or as diffusers saves it, as a key that torch takes."""
    name = name if saved else name.replace(f".{NAME}.", ".")
    return name.replace(".", "__")


def as_layer(name: str) -> str:
    """The way back, to the name in diffusers' file, whose `unet.` diffusers itself puts in front."""
    return name.removeprefix("lora.").replace("__", ".")
