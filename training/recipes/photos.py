"""The recipe `photos`: a small image tower learns to name the pictures of a pack, and is kept frozen after that.

    unibrivl train --recipe photos --set data.folder=FOLDER

It is the image side of `sounds_and_pictures` where no trained one is at hand: a ResNet of 1.2 million parameters over
pictures of 64 x 64, from nothing, in some minutes of one core. The finished model is transformers' classifier;
`AutoModel.from_pretrained` takes its backbone out of the folder.

Shapes: B batch, H and W sides of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from unibrivl import data as datasets
from unibrivl.data import DatasetError, Listing, Sample
from unibrivl.data.pictures import open_picture
from unibrivl.training.augment import PictureAugmentation
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.objectives.supervised import SupervisedLoss
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.sampler import Draw

AT_ONCE = 256  # pictures of one forward pass of the evaluation


@dataclass(frozen=True)
class PhotosModel:
    side: int = 64
    embedding_size: int = 32
    hidden_sizes: tuple[int, ...] = (64, 128, 256)
    depths: tuple[int, ...] = (1, 1, 1)


@dataclass(frozen=True)
class PhotosData:
    """
    Args:
        folder, loader: whatever `unibrivl.data.load` takes: a pack, or your own folder of pictures by label.
        shift (`int`): in training a picture moves by up to so many pixels, either way; what is uncovered is mirrored.
        flip_prob (`float`): chance of being mirrored.
        jitter (`bool`): BriVL's colour jitter and greyscale.
        balance (`float`): a label with n pictures is drawn in proportion to n to the power of 1 - balance.
    """

    folder: str = ""
    loader: str = "sounds_and_pictures"
    shift: int = 8
    flip_prob: float = 0.5  # OURS: the usual half
    jitter: bool = True
    balance: float = 0.5  # OURS: 270 photographs of some labels, four drawings of others


@dataclass(frozen=True)
class PhotosObjective:
    label_smoothing: float = 0.1  # Inception v3 paper: its value


def config() -> RunConfig:
    return RunConfig(
        recipe="photos",
        output_dir="runs/photos",
        model=PhotosModel(),
        data=PhotosData(),
        objective=PhotosObjective(),
        steps=600,
        batch_size=128,
        learning_rate=2e-3,  # OURS: the usual one of small residual networks under AdamW
        weight_decay=0.05,  # ConvNeXt paper: its AdamW
        warmup=60,
        evaluate_every=200,
        save_every=200,
        log_every=20,
        primary="accuracy",
    )


def build(config: RunConfig) -> Parts:
    listing = listing_of(config.data.folder, config.data.loader)
    labels = listing.labels
    pictures = [one for one in listing if one.image and len(one.labels) == 1]
    train = [one for one in pictures if one.split != "test"]
    held_out = [one for one in pictures if one.split == "test"]
    if not train or not held_out:
        raise DatasetError(
            f"{listing.summary()}: {len(train)} pictures to train on and {len(held_out)} of the split 'test'. This "
            "recipe needs both, with one label each"
        )
    size = config.model
    processor = processor_for(size.side)
    model = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=size.embedding_size,
            hidden_sizes=list(size.hidden_sizes),
            depths=list(size.depths),
            layer_type="basic",
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
    )
    seen = Pictures(train, labels, processor, config.data)
    gallery = Pictures(held_out, labels, processor, config.data)

    def collate(examples: list[dict]) -> Batch:
        return augmented(examples, processor, config.data)

    def evaluate(model: Any) -> dict[str, float]:
        """The share of held-out pictures that are named right."""
        found = [
            model(pixel_values=normalised(some_B3HW, processor).to(model.device)).logits.argmax(1).cpu()
            for some_B3HW in torch.from_numpy(gallery.pixels_N3HW).split(AT_ONCE)
        ]
        return {"accuracy": float((torch.cat(found).numpy() == gallery.label_N).mean())}

    about = About(
        task="image-classification",
        dataset=f"{listing.name}, {len(gallery)} pictures of the split test",
        data=[{"name": listing.name, "found": listing.found, "expected": listing.expected}],
    )
    return Parts(model, SupervisedLoss(model, config.objective.label_smoothing), seen, collate, evaluate, processor,
                 about)  # fmt: skip


def listing_of(folder: str, loader: str) -> Listing:
    if not folder:
        raise ConfigError("where are the sounds and pictures? --set data.folder=FOLDER")
    return datasets.load(folder, loader)


def processor_for(side: int) -> CLIPImageProcessorPil:
    """Pictures of one size, whole, in -1..1."""
    return CLIPImageProcessorPil(
        size={"height": side, "width": side},
        crop_size={"height": side, "width": side},
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


class Pictures:
    """Pictures in memory, as bytes: (N, 3, H, W). Which one an example is follows from its draw, by label."""

    def __init__(self, samples: Sequence[Sample], labels: Sequence[str], processor: Any, settings: PhotosData):
        numbers = {label: number for number, label in enumerate(labels)}
        self.label_N = np.array([numbers[one.labels[0]] for one in samples])
        read = [
            processor(open_picture(one.image), do_normalize=False, do_rescale=False)["pixel_values"][0]
            for one in tqdm(samples, desc="pictures", unit="file", disable=None)
        ]
        self.pixels_N3HW = np.stack(read).astype(np.uint8)
        self.chances_N = chances(self.label_N, settings.balance)

    def __len__(self) -> int:
        return len(self.label_N)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        place = drawn(self.chances_N, draw.seed)
        return {"pixels": self.pixels_N3HW[place], "label": int(self.label_N[place]), "seed": draw.seed}


def chances(label_N: np.ndarray, balance: float) -> np.ndarray:
    """(N,), the chance of each example: those of a label with n of them share n to the power of 1 - balance."""
    counts = np.bincount(label_N)[label_N]
    weights_N = counts.astype(np.float64) ** -balance
    return weights_N / weights_N.sum()


def drawn(chances_N: np.ndarray, seed: int) -> int:
    """One of N by their chances, the same one for the same seed."""
    uniform = np.random.default_rng(seed).random()
    return min(int(np.searchsorted(np.cumsum(chances_N), uniform)), len(chances_N) - 1)


def normalised(pixels_B3HW: torch.Tensor, processor: Any) -> torch.Tensor:
    """Bytes as the processor would make them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
    return (pixels_B3HW.float() / 255 - mean) / std


def augmented(examples: list[dict], processor: Any, settings: PhotosData) -> Batch:
    """Moved, mirrored and recoloured. The draws follow from those of the first example: one generator for a batch
    takes a fraction of the time of one for each picture."""
    pixels_B3HW = torch.from_numpy(np.stack([one["pixels"] for one in examples])).float() / 255
    chance = torch.Generator().manual_seed(examples[0]["seed"])
    batch, by = len(examples), settings.shift
    height, width = pixels_B3HW.shape[2:]
    moves_B2 = torch.randint(0, 2 * by + 1, (batch, 2), generator=chance).tolist()
    mirrored_B = torch.rand(batch, generator=chance) < settings.flip_prob
    if by:
        wide_B3HW = torch.nn.functional.pad(pixels_B3HW, (by, by, by, by), mode="reflect")
        moved = [
            wide_3HW[:, y : y + height, x : x + width] for wide_3HW, (y, x) in zip(wide_B3HW, moves_B2, strict=True)
        ]
        pixels_B3HW = torch.stack(moved)
    pixels_B3HW = torch.where(mirrored_B[:, None, None, None], pixels_B3HW.flip(-1), pixels_B3HW)
    if settings.jitter:
        pixels_B3HW = PictureAugmentation()(pixels_B3HW, chance)
    return {
        "pixel_values": normalised(255 * pixels_B3HW, processor),
        "label": torch.tensor([one["label"] for one in examples]),
    }
