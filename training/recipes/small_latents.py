"""The recipe `small_latents`: the autoencoder of the embedded model, pictures of 64 x 64 to latents of 8 x 8 and back.

    unibrivl train --recipe small_pictures --set data.folder=PACKS
    unibrivl train --recipe small_latents --set data.folder=PACKS

diffusers' `AutoencoderTiny`, which has no norms: on a CPU the group norms of `AutoencoderKL` take half a step.
Pixels alone would leave pictures soft: what the frozen image tower sees in a picture and in its copy is compared too,
layer by layer. The decoder gets latents with some noise on them, as the generator's will have, and latents are held
near a mean of zero and a deviation of one, so that no factor has to scale them.

Shapes: B batch, H and W sides, C latent channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import nn
from transformers import AutoModel

from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.gather import Shares
from unibrivl.training.objectives.base import Objective
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.photos import normalised, processor_for
from unibrivl.training.recipes.small_pictures import Pictures, SmallPicturesData, counted, licences_of, moved
from unibrivl.training.recipes.small_world import KINDS, SIDE, SmallWorld

AT_ONCE = 128  # pictures of one forward pass of the evaluation


@dataclass(frozen=True)
class SmallLatentsModel:
    """
    Args:
        channels (`int`): of the autoencoder, at all sizes.
        blocks: of the decoder at 8 x 8, 16 x 16, 32 x 32 and 64 x 64; the encoder has them the other way round.
        latent_channels (`int`): numbers at each of the 8 x 8 places.
        tower: folder of the image tower that compares.
    """

    channels: int = 64
    blocks: tuple[int, ...] = (3, 3, 3, 1)
    latent_channels: int = 8
    tower: str = "runs/small_pictures/model"


@dataclass(frozen=True)
class SmallLatentsObjective:
    """
    Args:
        seen_weight (`float`): of the difference in what the tower sees.
        noise (`float`): deviation of what is added to latents, whose own is about one.
        scale_weight (`float`): of the latents' distance from mean zero and deviation one, by channel.
    """

    seen_weight: float = 0.5  # OURS: the two terms begin about alike; the only one tried
    noise: float = 0.1  # OURS: the generator's latents will not be exact either
    scale_weight: float = 0.05  # OURS: enough to hold them


def config() -> RunConfig:
    return RunConfig(
        recipe="small_latents",
        output_dir="runs/small_latents",
        model=SmallLatentsModel(),
        # OURS: pictures change less than for the tower, and nothing is hidden
        data=SmallPicturesData(photos=0.65, drawings=0.25, digits=0.1, zoom=0.15, turn=5.0, shift=6.0, erase=0.0),
        objective=SmallLatentsObjective(),
        steps=6000,
        batch_size=16,
        precision="bf16",
        learning_rate=1e-3,  # OURS: small networks take more than the 4.5e-6 times batch of latent diffusion
        betas=(0.9, 0.99),  # OURS: a shorter memory for a changing scale
        weight_decay=0.0,  # latent diffusion code: none
        warmup=200,
        ema=0.998,
        evaluate_every=1000,
        save_every=500,
        log_every=50,
    )  # fmt: skip


def build(config: RunConfig) -> Parts:
    if not Path(config.model.tower).is_dir():
        raise ConfigError(
            f"there is no image tower in {config.model.tower}: train one, unibrivl train --recipe small_pictures "
            f"--set data.folder={config.data.folder}, or name one with --set model.tower=..."
        )
    world, size = SmallWorld(config.data), config.model
    learned = Pictures(world.pictures("world"), world.labels, config.data)
    gallery = Pictures(world.pictures("test", ("photo",)), world.labels, config.data)
    levels = len(size.blocks)
    model = AutoencoderTiny(
        encoder_block_out_channels=(size.channels,) * levels,
        decoder_block_out_channels=(size.channels,) * levels,
        num_encoder_blocks=size.blocks[::-1],
        num_decoder_blocks=size.blocks,
        latent_channels=size.latent_channels,
    ).to(memory_format=torch.channels_last)
    processor = processor_for(SIDE)

    def collate(examples: list[dict]) -> Batch:
        pixels_B3HW = torch.from_numpy(np.stack([one["pixels"] for one in examples])).float() / 255
        is_no_digit_B = torch.tensor([one["kind"] != KINDS.index("digit") for one in examples])
        chance = torch.Generator().manual_seed(examples[0]["seed"])
        pixels_B3HW = moved(pixels_B3HW, is_no_digit_B, chance, config.data)
        return {"pixel_values": (2 * pixels_B3HW - 1).contiguous(memory_format=torch.channels_last)}

    def evaluate(model: Any) -> dict[str, float]:
        """How far copies of held-out photographs are from them, and the latents' deviation."""
        errors, latents = [], []
        for some in torch.from_numpy(gallery.pixels_N3HW).split(AT_ONCE):
            pixels_B3HW = normalised(some.float(), processor)
            latents.append(model.encode(pixels_B3HW).latents)
            copy_B3HW = model.decode(latents[-1]).sample.clamp(-1, 1)
            errors.append(((copy_B3HW - pixels_B3HW) / 2).square().mean((1, 2, 3)))
        deviation = torch.cat(latents).float().std()
        return {"psnr": float(-10 * torch.cat(errors).log10().mean()), "deviation": float(deviation)}

    about = About(
        task="image-to-image",
        dataset=f"{len(gallery)} photographs that were held out, {world.variant}",
        data=[{"name": f"{kind}s", "found": count, "expected": count} for kind, count in counted(learned.items)],
        licences=licences_of(learned.items),
    )
    return Parts(model, CopyLoss(model, AutoModel.from_pretrained(size.tower), config.objective), learned, collate,
                 evaluate, processor, about)  # fmt: skip


class CopyLoss(Objective):
    """How far an autoencoder's copies are from the pictures: in pixels, and in what a frozen tower sees.

    Args:
        model: an `AutoencoderTiny`.
        tower: gives `hidden_states`, one map a stage.

    Inputs: `pixel_values`, in -1..1.
    Terms: `pixels`, `seen`, `scale`.
    """

    def __init__(self, model: nn.Module, tower: nn.Module, settings: SmallLatentsObjective):
        super().__init__(model)
        self.tower = tower.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.settings = settings

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        pixels_B3HW = batch["pixel_values"]
        latents = model.encode(pixels_B3HW).latents  # type: ignore[operator]
        noisy = latents + self.settings.noise * torch.randn_like(latents)
        copy_B3HW = model.decode(noisy).sample.float()  # type: ignore[operator]
        self.tower.to(pixels_B3HW.device)
        with torch.no_grad():
            wanted = self._seen(pixels_B3HW)
        found = self._seen(copy_B3HW)
        seen_B = sum((a - b).square().mean((1, 2, 3)) for a, b in zip(found, wanted, strict=True)) / len(wanted)
        deviation_C, mean_C = torch.std_mean(latents.float(), (0, 2, 3))
        shares = Shares.of(copy_B3HW)
        return {
            "pixels": shares.mean((copy_B3HW - pixels_B3HW).abs().mean((1, 2, 3))),
            "seen": self.settings.seen_weight * shares.mean(seen_B),
            "scale": self.settings.scale_weight * (mean_C.square() + (deviation_C - 1).square()).mean(),
        }

    def _seen(self, pixels_B3HW: torch.Tensor) -> list[torch.Tensor]:
        """The maps of all stages, each place of length one."""
        states = self.tower(pixels_B3HW, output_hidden_states=True, return_dict=True).hidden_states
        return [nn.functional.normalize(state.float(), dim=1) * state.shape[1] ** 0.5 for state in states]
