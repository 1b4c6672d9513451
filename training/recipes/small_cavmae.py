"""The recipe `small_cavmae`: a CAV-MAE for the small world, from nothing: sounds and pictures of one class.

    unibrivl train --recipe small_cavmae --set data.folder=PACKS

It is what `small_cavtmae` begins with. Three quarters of a sound and of its picture are hidden and rebuilt, and sounds
and pictures look for each other; those of one class are all right. Where the original's ImageNet weights would stand
there are none, so the contrast has a larger share than in the original.

Shapes: B batch, N sounds, M pictures, E width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from unibrivl.metrics import Relevance, mrr, ranks, recall_at
from unibrivl.modeling import (
    CAVMAEConfig,
    CAVMAEFeatureExtractor,
    CAVMAEForPreTraining,
    CAVMAEImageProcessor,
    UniBriVLProcessor,
)
from unibrivl.training.augment_sound import FeatureMasking
from unibrivl.training.config import RunConfig
from unibrivl.training.objectives.cavmae import CAVMAELoss
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.small_pictures import licences_of
from unibrivl.training.recipes.small_sounds import HeardPairs, SmallSoundsData, clip, evaluated
from unibrivl.training.recipes.small_world import Item, SmallWorld, pixels_of
from unibrivl.training.recipes.sounds_and_pictures_data import RATE_HZ
from unibrivl.training.sampler import Draw, derive

AT_ONCE = 32  # sounds or pictures of one forward pass
FLIP = 3  # what a draw's seed is derived for


@dataclass(frozen=True)
class SmallCAVMAEModel:
    """
    Args:
        hidden_size (`int`): that of the text encoder that `small_words` makes, so that CAVT-MAE needs no projection.
        num_hidden_layers (`int`): of them the last is the joint one.
        num_mel_bins, frames (`int`): of a sound; 512 frames are 5.1 s.
        image_size (`int`): pictures of 64 pixels are enlarged, so that a patch of 16 sees eight of theirs.
    """

    hidden_size: int = 192
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_mel_bins: int = 64
    frames: int = 512
    image_size: int = 128
    decoder_hidden_size: int = 128
    decoder_num_hidden_layers: int = 2


@dataclass(frozen=True)
class SmallCAVMAEData(SmallSoundsData):
    """
    Args:
        masks: of the frames that a model is aligned with; pre-training hides enough by itself.
    """

    mixup: float = 0.0  # CAV-MAE code: pre-training mixes none
    masks: FeatureMasking = field(
        default_factory=lambda: FeatureMasking(max_frames=60, max_share=0.12, max_features=10)  # OURS: of 512 and 64
    )


@dataclass(frozen=True)
class SmallCAVMAEObjective:
    contrast_weight: float = 0.1  # OURS: CAV-MAE's 0.01 goes with weights from ImageNet
    temperature: float = 0.05  # CAV-MAE code


def config() -> RunConfig:
    return RunConfig(
        recipe="small_cavmae",
        output_dir="runs/small_cavmae",
        model=SmallCAVMAEModel(),
        data=SmallCAVMAEData(),
        objective=SmallCAVMAEObjective(),
        steps=2000,
        batch_size=48,
        precision="bf16",
        learning_rate=5e-4,  # OURS: a transformer of four layers from nothing
        betas=(0.9, 0.95),  # MAE paper: its AdamW
        weight_decay=0.05,  # MAE paper
        warmup=100,
        evaluate_every=500,
        save_every=250,
        log_every=20,
    )


def build(config: RunConfig) -> Parts:
    data = config.data
    world = SmallWorld(data)
    model, processor = model_for(config.model), processor_for(config.model)
    pairs = SeenPairs(world, data)
    held = evaluated(world, data)

    def evaluate(model: Any) -> dict[str, float]:
        return retrieval(model.cavmae, processor, world, held, data.seconds)

    def collate(examples: list[dict]) -> Batch:
        sounds, pictures = [one["sound"] for one in examples], [one["picture"] for one in examples]
        batch = dict(processor(audio=sounds, images=pictures, sampling_rate=RATE_HZ, return_tensors="pt"))
        return {**batch, "label": torch.tensor([one["label"] for one in examples])}

    about = About(
        task="audio-to-image-retrieval",
        dataset=f"{len(held)} sounds that were held out and the test photographs, {world.variant}",
        data=[{"name": "sounds", "found": len(pairs), "expected": len(pairs)}],
        licences=licences_of(world.learned),
    )
    objective = CAVMAELoss(model, config.objective.contrast_weight, config.objective.temperature)
    return Parts(model, objective, pairs, collate, evaluate, processor, about)


def model_for(size: SmallCAVMAEModel) -> CAVMAEForPreTraining:
    return CAVMAEForPreTraining(
        CAVMAEConfig(
            hidden_size=size.hidden_size,
            num_hidden_layers=size.num_hidden_layers,
            num_attention_heads=size.num_attention_heads,
            intermediate_size=4 * size.hidden_size,
            num_mel_bins=size.num_mel_bins,
            max_audio_frames=size.frames,
            image_size=size.image_size,
            decoder_hidden_size=size.decoder_hidden_size,
            decoder_num_hidden_layers=size.decoder_num_hidden_layers,
            decoder_num_attention_heads=size.num_attention_heads,
            decoder_intermediate_size=4 * size.decoder_hidden_size,
        )
    )


def processor_for(size: SmallCAVMAEModel, **texts: Any) -> UniBriVLProcessor:
    """
    Args:
        texts: of the processor: a tokenizer, and how texts are padded.
    """
    return UniBriVLProcessor(
        CAVMAEFeatureExtractor(num_mel_bins=size.num_mel_bins, max_length=size.frames),
        CAVMAEImageProcessor(size=size.image_size, crop_size=size.image_size),
        **texts,
    )


class SeenPairs(HeardPairs):
    """Sounds of classes that have pictures, each with a picture itself, mirrored or not; digits are not mirrored."""

    def __init__(self, world: SmallWorld, settings: SmallSoundsData):
        self.pictures: list[Item] = []

        def seen(pictures: Sequence[Item]) -> torch.Tensor:
            """In place of embeddings the pictures' numbers."""
            self.pictures = list(pictures)
            return torch.arange(len(pictures))[:, None]

        super().__init__(world, settings, lambda labels: torch.full((len(labels), 1), -1), seen)
        self.pixels_N3HW = pixels_of(self.pictures)
        has_N = np.array([len(self.pictures_of[one.label]) > 0 for one in self.items])
        self.chances_N = np.where(has_N, self.chances_N, 0) / self.chances_N[has_N].sum()

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        found = super().__getitem__(draw)
        place = int(found.pop("image_embeds"))
        pixels_3HW = self.pixels_N3HW[place]
        if self.pictures[place].kind != "digit" and derive(draw.seed, FLIP) % 2:
            pixels_3HW = pixels_3HW[:, :, ::-1]
        return {**found, "picture": Image.fromarray(np.ascontiguousarray(pixels_3HW.transpose(1, 2, 0)))}


# ---- what both recipes evaluate -------------------------------------------------------------------------------------


@torch.no_grad()
def heard_by(model: Any, processor: UniBriVLProcessor, sounds: Sequence[np.ndarray]) -> torch.Tensor:
    """(N, E) unit vectors of sounds."""
    rows = []
    for start in range(0, len(sounds), AT_ONCE):
        batch = processor(audio=list(sounds[start : start + AT_ONCE]), sampling_rate=RATE_HZ, return_tensors="pt")
        rows.append(model.get_audio_features(**batch.to(model.device)).pooler_output.float().cpu())
    return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


@torch.no_grad()
def seen_by(features: Any, processor: UniBriVLProcessor, items: Sequence[Item]) -> torch.Tensor:
    """(M, E) unit vectors of pictures.

    Args:
        features: a model's `get_image_features`, or the one before its projection.
    """
    pixels_N3HW, rows = pixels_of(items), []
    device = features.__self__.device
    for start in range(0, len(items), AT_ONCE):
        some = [Image.fromarray(one.transpose(1, 2, 0)) for one in pixels_N3HW[start : start + AT_ONCE]]
        pixels = processor(images=some, return_tensors="pt")["pixel_values"].to(device)
        rows.append(features(pixel_values=pixels).pooler_output.float().cpu())
    return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


def retrieval(
    model: Any, processor: UniBriVLProcessor, world: SmallWorld, items: Sequence[Item], seconds: float
) -> dict[str, float]:
    """Held-out sounds find the test photographs of their class: the mean reciprocal rank of the first, and R@1."""
    photos = world.pictures("test", ("photo",))
    present = {one.label for one in photos}
    asked = [one for one in items if one.label in present]
    if not asked:
        return {}
    heard = heard_by(model, processor, [clip(one, seconds) for one in asked])
    seen = seen_by(model.get_image_features, processor, photos)
    relevance = Relevance.from_labels([one.label for one in asked], [one.label for one in photos])
    found = ranks((heard @ seen.t()).numpy(), relevance)
    return {"mrr": mrr(found), "r1": recall_at(found, 1)}
