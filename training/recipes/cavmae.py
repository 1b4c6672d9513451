"""The recipe `cavmae`: CAV-MAE's pre-training on sounds and pictures that belong together, such as VGGSound's.

    unibrivl train --recipe cavmae --set data.folder=VGGSOUND --set model.start=facebook/vit-mae-base

`model.start` is the name or folder of an image MAE, as its authors began; of a CAV-MAE that goes on; or a size, tiny
or small, that begins from nothing. Labels are not used: a picture looks for its own sound.

The optimiser is the loop's AdamW with its cosine, where the original halves Adam's rate every five epochs; contrast is
over the batch of all processes and in both directions, where the original's pictures look within their device.

Shapes: A sounds, V pictures, E width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoConfig

from unibrivl.modeling import (
    CAVMAEConfig,
    CAVMAEFeatureExtractor,
    CAVMAEForPreTraining,
    CAVMAEImageProcessor,
    UniBriVLProcessor,
)
from unibrivl.modeling.clips_unibrivl import most_samples
from unibrivl.modeling.start_cavmae import from_image_mae
from unibrivl.training.augment import PictureAugmentation
from unibrivl.training.augment_sound import SoundAugmentation
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.momentum import bare
from unibrivl.training.objectives.cavmae import CAVMAELoss
from unibrivl.training.pairs import Collate, Pairs, check_files
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.cavtmae import SHAPES, SIZES, told
from unibrivl.training.recipes.pairs import PairsData, listings
from unibrivl.training.retrieval import Retrieval, on
from unibrivl.training.sampler import Draw


@dataclass(frozen=True)
class CAVMAERecipeModel:
    """
    Args:
        start: name or folder of an image MAE or of a CAV-MAE, or a size.
        mel_bins, frames (`int`, *optional*): of a sound, of a model that begins from an image MAE or from nothing.
        mask_mode, norm_pix_loss: see `CAVMAEConfig`.
    """

    start: str = "small"
    mel_bins: int | None = None
    frames: int | None = None
    mask_mode: Literal["unstructured", "time", "freq", "tf"] = "unstructured"
    norm_pix_loss: bool = True


@dataclass(frozen=True)
class CAVMAEData(PairsData):
    """
    Args:
        mean, std (`float`): what is taken off the frames of sounds, and what they are divided by; `unibrivl doctor
            --frames` measures a folder's.
    """

    loader: str = "vggsound"
    augment_pictures: bool = False  # CAV-MAE code: random frames, otherwise as they are
    augment_sounds: bool = False  # CAV-MAE code: pre-training hides enough
    sound: SoundAugmentation = field(default_factory=SoundAugmentation)
    mean: float = -5.081  # CAV-MAE code: over AudioSet
    std: float = 4.4849  # CAV-MAE code: over AudioSet


@dataclass(frozen=True)
class CAVMAEObjective:
    contrast_weight: float = 0.01  # CAV-MAE code: contrast_loss_weight
    temperature: float = 0.05  # CAV-MAE code


def config() -> RunConfig:
    return RunConfig(
        recipe="cavmae",
        output_dir="runs/cavmae",
        model=CAVMAERecipeModel(),
        data=CAVMAEData(),
        objective=CAVMAEObjective(),
        steps=86000,
        batch_size=48,  # with 86000 steps 25 epochs of VGGSound's training part
        learning_rate=1e-4,  # CAV-MAE code: with batches of 48 and of 120
        betas=(0.95, 0.999),  # CAV-MAE code: its Adam
        weight_decay=5e-7,  # CAV-MAE code
        warmup=1000,
        evaluate_every=8600,
        save_every=1300,
        log_every=50,
        primary="recall",
    )


def build(config: RunConfig) -> Parts:
    data = config.data
    listing, train, valid = listings(data, config.seed)
    model = model_for(config.model)
    processor = processor_for(model.config, data)
    extractor = processor.feature_extractor
    seconds = min(data.seconds, (most_samples(extractor) or np.inf) / extractor.sampling_rate)
    pairs = Pairs(train, extractor.sampling_rate, seconds, True, data.sound if data.augment_sounds else None)
    if len(pairs) < config.batch_size:
        raise ConfigError(f"{pairs.summary()} to train on: set batch_size={len(pairs)} or less")
    plain = Collate(processor)
    collate = Unlabelled(Collate(processor, PictureAugmentation() if data.augment_pictures else None))
    evaluate = None
    if config.evaluate_every:
        held = Pairs(valid, extractor.sampling_rate, seconds, False)
        evaluate = SideRetrieval(held, plain, config.batch_size, data.most_validation)

    def prepare() -> None:
        check_files(pairs, *([evaluate.pairs] if evaluate is not None else []))

    about = About(
        task="audio-to-image-retrieval",
        dataset=f"{valid.name}: {evaluate.summary() if evaluate else 'nothing'}",
        towers={"audio": {"model": told(config.model.start)}, "image": {"model": told(config.model.start)}},
        data=[{"name": listing.name, "found": listing.found, "expected": listing.expected}],
    )
    objective = CAVMAELoss(model, config.objective.contrast_weight, config.objective.temperature)
    return Parts(model, objective, pairs, collate, evaluate, processor, about, prepare)


def model_for(size: CAVMAERecipeModel) -> CAVMAEForPreTraining:
    fields: dict[str, Any] = {"mask_mode": size.mask_mode, "norm_pix_loss": size.norm_pix_loss}
    sounds = {"num_mel_bins": size.mel_bins, "max_audio_frames": size.frames}
    sounds = {name: value for name, value in sounds.items() if value is not None}
    if size.start in SIZES:
        shapes = {**SIZES[size.start], **SHAPES[size.start]}
        width = shapes["hidden_size"] // 2
        decoder = {
            "decoder_hidden_size": width,
            "decoder_num_hidden_layers": 2,
            "decoder_num_attention_heads": shapes["num_attention_heads"],
            "decoder_intermediate_size": 4 * width,
        }
        return CAVMAEForPreTraining(CAVMAEConfig(**shapes | decoder | sounds, **fields))
    if AutoConfig.from_pretrained(size.start).model_type == "vit_mae":
        return from_image_mae(size.start, **sounds, **fields)
    if sounds:
        raise ConfigError(
            f"{size.start} knows its sounds: leave model.{'mel_bins' if size.mel_bins else 'frames'} out"
        )
    return CAVMAEForPreTraining.from_pretrained(size.start, dtype=torch.float32, **fields)


def processor_for(config: CAVMAEConfig, data: CAVMAEData) -> UniBriVLProcessor:
    return UniBriVLProcessor(
        CAVMAEFeatureExtractor(
            num_mel_bins=config.num_mel_bins,
            max_length=config.max_audio_frames,
            mean=data.mean,
            std=data.std,
            pad_to_multiple_of=config.patch_size,
        ),
        CAVMAEImageProcessor(size=config.image_size, crop_size=config.image_size),
    )


@dataclass(frozen=True)
class Unlabelled:
    """A batch of `Collate` that does not say which sounds are of one label."""

    collate: Collate

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        batch = self.collate(examples)
        batch.pop("label", None)
        return batch


class SideRetrieval(Retrieval):
    """`Retrieval` by the streams of a single modality, nothing hidden."""

    def _sounds(self, model: Any) -> np.ndarray:
        trunk = bare(model).cavmae

        def embed(places: list[int]):
            heard = [self.pairs.heard(self.pairs.sounds[place], Draw(place, 0, 0)) for place in places]
            return (trunk.get_audio_features(**on(self.collate(heard), trunk)).pooler_output,)

        return self._embedded(self.sounds, embed, "sounds")

    def _pictures(self, model: Any) -> np.ndarray:
        trunk = bare(model).cavmae
        processor = self.collate.processor.image_processor

        def embed(places: list[int]):
            seen = [self.pairs.seen(place, Draw(place, 0, 0))["image"] for place in places]
            return (trunk.get_image_features(**on(processor(seen, return_tensors="pt"), trunk)).pooler_output,)

        return self._embedded(self.pictures, embed, "pictures")
