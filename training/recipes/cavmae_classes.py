"""The recipe `cavmae_classes`: a pre-trained CAV-MAE is told classes by sounds and their pictures, as on VGGSound.

    unibrivl train --recipe cavmae_classes --set data.folder=VGGSOUND --set model.start=runs/cavmae/model

`model.start` is the folder of a CAV-MAE, or a size that begins from nothing. What changes in training is CAV-MAE's:
half of the examples are mixed with another one, waveforms and pictures alike, and so are their classes; frames and
bins of a sound are masked; noise is laid over it, and it is turned round in time. The original's head learns ten times
as fast as the rest, its rate halves every epoch, and the weights of several epochs are averaged; here all weights have
one rate with the loop's cosine, and `--set ema=0.999` averages.

Shapes: B batch, S samples, T frames, M mel bins, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from unibrivl.modeling import CAVMAEConfig, CAVMAEForAudioVisualClassification
from unibrivl.modeling.clips_unibrivl import most_samples
from unibrivl.training.augment import PictureAugmentation
from unibrivl.training.augment_sound import FeatureMasking
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.objectives.supervised import SupervisedLoss
from unibrivl.training.pairs import Collate, Pairs, check_files
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.cavmae import CAVMAEData, processor_for
from unibrivl.training.recipes.cavtmae import SHAPES, SIZES, told
from unibrivl.training.recipes.pairs import listings
from unibrivl.training.retrieval import on, some
from unibrivl.training.sampler import Draw, derive
from unibrivl.training.target_cache import pixels_of

PARTNER, MIX, CHANGE = 11, 12, 13  # what a draw's seed is derived for
MOST_NOISE = 0.1  # CAV-MAE code: of normalised frames, times two draws from 0 to 1


@dataclass(frozen=True)
class CAVMAEClassesModel:
    """
    Args:
        start: folder of a CAV-MAE, or a size.
        mode: what a class is told by; see `CAVMAEConfig`.
    """

    start: str = "small"
    mode: Literal["multimodal", "audioonly", "videoonly"] = "multimodal"


@dataclass(frozen=True)
class CAVMAEClassesData(CAVMAEData):
    """
    Args:
        mixup_rate, mixup (`float`): the part of the examples that is mixed, by weights from Beta(mixup, mixup).
        masks: of frames and bins; what is masked is like the rows behind the end of a sound.
        noise (`bool`): lay noise over the frames, and turn them round in time.
    """

    mixup_rate: float = 0.5  # CAV-MAE code
    mixup: float = 10.0  # CAV-MAE code
    masks: FeatureMasking = field(
        default_factory=lambda: FeatureMasking(
            num_times=1, max_frames=192, num_bands=1, max_features=48  # CAV-MAE code: timem, freqm
        )
    )  # fmt: skip
    noise: bool = True


@dataclass(frozen=True)
class CAVMAEClassesObjective:
    label_smoothing: float = 0.1  # CAV-MAE code


def config() -> RunConfig:
    return RunConfig(
        recipe="cavmae_classes",
        output_dir="runs/cavmae_classes",
        model=CAVMAEClassesModel(),
        data=CAVMAEClassesData(),
        objective=CAVMAEClassesObjective(),
        steps=35000,
        batch_size=48,  # with 35000 steps ten epochs of VGGSound's training part
        learning_rate=1e-4,  # CAV-MAE code: of all but the head
        betas=(0.95, 0.999),  # CAV-MAE code: its Adam
        weight_decay=5e-7,  # CAV-MAE code
        warmup=1000,
        evaluate_every=3500,
        save_every=1000,
        log_every=50,
        primary="accuracy",
    )


def build(config: RunConfig) -> Parts:
    data = config.data
    listing, train, valid = listings(data, config.seed)
    labels = list(listing.labels)
    model = model_for(config.model, labels)
    processor = processor_for(model.config, data)
    extractor = processor.feature_extractor
    seconds = min(data.seconds, (most_samples(extractor) or np.inf) / extractor.sampling_rate)
    pairs = Pairs(train, extractor.sampling_rate, seconds, True, data.sound if data.augment_sounds else None)
    if not pairs.labelled:
        raise ConfigError(f"{listing.name} has sounds without a label, or with several: each needs one")
    if len(pairs) < config.batch_size:
        raise ConfigError(f"{pairs.summary()} to train on: set batch_size={len(pairs)} or less")
    numbers = {label: number for number, label in enumerate(labels)}
    mixed = MixedPairs(pairs, data, numbers)
    evaluate = None
    if config.evaluate_every:
        held = Pairs(valid, extractor.sampling_rate, seconds, False)
        evaluate = Accuracy(held, Collate(processor), config.batch_size, data.most_validation, numbers)

    def prepare() -> None:
        check_files(pairs, *([evaluate.pairs] if evaluate is not None else []))

    about = About(
        task="audio-classification",
        dataset=f"{valid.name}: {evaluate.summary() if evaluate else 'nothing'}",
        towers={"audio": {"model": told(config.model.start)}, "image": {"model": told(config.model.start)}},
        data=[{"name": listing.name, "found": listing.found, "expected": listing.expected}],
    )
    objective = SupervisedLoss(model, config.objective.label_smoothing)
    return Parts(
        model, objective, mixed, MixedCollate(processor, data, len(labels)), evaluate, processor, about, prepare
    )


def model_for(size: CAVMAEClassesModel, labels: list[str]) -> CAVMAEForAudioVisualClassification:
    fields = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
        "classifier_mode": size.mode,
        "problem_type": "single_label_classification",
    }
    if size.start in SIZES:
        shapes = {**SIZES[size.start], **SHAPES[size.start]}
        return CAVMAEForAudioVisualClassification(CAVMAEConfig(**shapes, **fields))
    return CAVMAEForAudioVisualClassification.from_pretrained(size.start, dtype=torch.float32, **fields)


class MixedPairs:
    """`Pairs` of which some are mixed: `audio` is, and `images`, `classes` and `shares` say the rest."""

    def __init__(self, pairs: Pairs, settings: CAVMAEClassesData, numbers: Mapping[str, int]):
        if not 0 <= settings.mixup_rate <= 1 or settings.mixup <= 0:
            raise ConfigError("data.mixup_rate is a share, from 0 to 1, and data.mixup above 0")
        self.pairs, self.settings, self.numbers = pairs, settings, numbers

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        chance = np.random.default_rng(derive(draw.seed, MIX))
        is_mixed = chance.random() < self.settings.mixup_rate
        partner, weight = int(chance.integers(len(self))), float(chance.beta(self.settings.mixup, self.settings.mixup))
        members = [(draw, 1.0)]
        if is_mixed:
            members = [(draw, weight), (Draw(partner, draw.epoch, derive(draw.seed, PARTNER)), 1 - weight)]
        found = [self.pairs[one] for one, _ in members]
        audio_S = np.zeros_like(found[0]["audio"])  # as long as its own sound
        for one, (_, share) in zip(found, members, strict=True):
            part_S = one["audio"][: len(audio_S)]
            audio_S[: len(part_S)] += np.float32(share) * part_S
        return {
            "audio": audio_S,
            "images": [one["image"] for one in found],
            "image_seeds": [one["image_seed"] for one in found],
            "classes": [self.numbers[self.pairs.sounds[one.index].labels[0]] for one, _ in members],
            "shares": [share for _, share in members],
            "change_seed": derive(draw.seed, CHANGE),
        }


@dataclass(frozen=True)
class MixedCollate:
    """Examples of `MixedPairs` as a batch: frames, pictures and, as `label`, (B, C) shares of the classes."""

    processor: Any
    settings: CAVMAEClassesData
    num_classes: int

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        extractor = self.processor.feature_extractor
        sounds = [one["audio"] for one in examples]
        batch = dict(self.processor(audio=sounds, sampling_rate=extractor.sampling_rate, return_tensors="pt"))
        silence = (extractor.padding_value - extractor.mean) / extractor.std
        frames_BTM, label_BC = batch["input_values"], torch.zeros(len(examples), self.num_classes)
        pictures, changes = [], PictureAugmentation() if self.settings.augment_pictures else None
        for row, one in enumerate(examples):
            chance = np.random.default_rng(one["change_seed"])
            masked_TM = self.settings.masks.mask(frames_BTM[row : row + 1], chance)[0]
            frames_BTM[row].masked_fill_(masked_TM, silence)
            if self.settings.noise:
                frames_BTM[row] = noisy(frames_BTM[row], chance)
            for number, share in zip(one["classes"], one["shares"], strict=True):
                label_BC[row, number] += share
            seen = pixels_of(one["images"], self.processor.image_processor, changes, one["image_seeds"])
            pictures.append(sum(share * picture for share, picture in zip(one["shares"], seen, strict=True)))
        return {"input_values": frames_BTM, "pixel_values": torch.stack(pictures), "label": label_BC}


def noisy(frames_TM: torch.Tensor, chance: np.random.Generator) -> torch.Tensor:
    """With noise of an amplitude by chance, and turned round by any number of frames."""
    noise_TM = torch.from_numpy(chance.random(tuple(frames_TM.shape), np.float32))
    amplitude, turn = MOST_NOISE * chance.random(), int(chance.integers(len(frames_TM)))
    return (frames_TM + amplitude * noise_TM).roll(turn, 0)


class Accuracy:
    """model -> the share of held-out sounds, each with its picture, whose class is named first."""

    def __init__(self, pairs: Pairs, collate: Collate, batch_size: int, most: int, numbers: Mapping[str, int]):
        self.pairs, self.collate, self.batch_size, self.numbers = pairs, collate, batch_size, numbers
        self.places = some(range(len(pairs)), most)

    def __call__(self, model: Any) -> dict[str, float]:
        hits = 0
        for start in tqdm(range(0, len(self.places), self.batch_size), desc="classes", leave=False, disable=None):
            places = self.places[start : start + self.batch_size]
            batch = on(self.collate([self.pairs[Draw(place, 0, 0)] for place in places]), model)
            logits_BC = model(input_values=batch["input_values"], pixel_values=batch["pixel_values"]).logits
            right = torch.tensor([self.numbers[self.pairs.sounds[place].labels[0]] for place in places])
            hits += int((logits_BC.argmax(1).cpu() == right).sum())
        return {"accuracy": hits / len(self.places)}

    def summary(self) -> str:
        return f"{len(self.places)} sounds and pictures"
