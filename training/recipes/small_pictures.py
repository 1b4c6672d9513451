"""The recipe `small_pictures`: the image tower of the embedded model, or the judge of its pictures.

    unibrivl train --recipe small_pictures --set data.folder=PACKS
    unibrivl train --recipe small_pictures --set data.folder=PACKS --set data.part=judge --set model.name=judge

A residual network over pictures of 64 x 64 learns what each is of, and whether it is a photograph, a drawing or a
handwritten digit. The tower is frozen afterwards: sounds and words are brought to its embeddings. The judge sees other
pictures, has other widths and another seed, and never meets the rest.

Shapes: B batch, N pictures, H and W sides, C labels, K kinds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from unibrivl.training.augment import PictureAugmentation
from unibrivl.training.config import RunConfig
from unibrivl.training.gather import Shares
from unibrivl.training.objectives.base import Objective
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.photos import drawn, normalised, processor_for
from unibrivl.training.recipes.small_world import (
    CORE,
    KINDS,
    SIDE,
    Item,
    SmallWorld,
    SmallWorldData,
    balanced,
    pixels_of,
)
from unibrivl.training.sampler import Draw

AT_ONCE = 256  # pictures of one forward pass of the evaluation
SIZES = {
    "tower": {"embedding_size": 48, "hidden_sizes": [64, 128, 256], "depths": [1, 2, 2]},
    "judge": {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 320], "depths": [2, 1, 2, 1]},
}


@dataclass(frozen=True)
class SmallPicturesModel:
    """
    Args:
        name: "tower" or "judge": two networks of different widths and depths.
    """

    name: Literal["tower", "judge"] = "tower"


@dataclass(frozen=True)
class SmallPicturesData(SmallWorldData):
    """
    Args:
        part: of the pictures that are learned from: "world", or "judge".
        photos, drawings, digits (`float`): how often a picture of each kind is drawn, relative to one another.
        balance (`float`): within a kind a label with n pictures is drawn in proportion to n to the power of
            1 - balance.
        zoom, turn, shift (`float`): pictures are scaled by up to 1 - zoom and 1 + zoom, turned by so many degrees
            and moved by so many pixels at most.
        hue (`float`): the colour circle is turned by so much of itself at most, half of it at 0.5.
        erase (`float`): chance of a grey box over a part of the picture.
    """

    part: Literal["world", "judge"] = "world"
    photos: float = 0.6  # OURS: they are the most varied
    drawings: float = 0.25  # OURS: one or two pictures a class
    digits: float = 0.15  # OURS: the easiest
    balance: float = 0.6  # OURS: 24 roosters beside 160 airplanes
    zoom: float = 0.25  # OURS: drawings fill their frame more or less
    turn: float = 15.0  # OURS: as a hand holds a camera
    shift: float = 8.0  # OURS: an eighth of the picture
    hue: float = 0.1  # BriVL code: training transform
    erase: float = 0.25  # random erasing paper: half of the pictures; ours are small


@dataclass(frozen=True)
class SmallPicturesObjective:
    """
    Args:
        kind_weight (`float`): of telling photographs, drawings and digits apart, beside the label.
    """

    label_smoothing: float = 0.1  # Inception v3 paper: its value
    kind_weight: float = 0.2  # OURS: three kinds are told apart almost at once


def config() -> RunConfig:
    return RunConfig(
        recipe="small_pictures",
        output_dir="runs/small_pictures",
        model=SmallPicturesModel(),
        data=SmallPicturesData(),
        objective=SmallPicturesObjective(),
        steps=1500,
        batch_size=128,
        precision="bf16",
        learning_rate=2e-3,  # OURS: the usual one of small residual networks under AdamW
        weight_decay=0.05,  # ConvNeXt paper: its AdamW
        betas=(0.9, 0.999),  # torch: AdamW's default
        warmup=100,
        evaluate_every=500,
        save_every=500,
        log_every=20,
    )


def build(config: RunConfig) -> Parts:
    world, data = SmallWorld(config.data), config.data
    labels = world.labels
    learned = Pictures(world.pictures(data.part), labels, data)
    # Noto's drawings are new to a judge; a tower has no drawings that are held out
    held = world.pictures("test")
    if data.part == "judge":
        held = held + world.pictures("world", ("drawing",))
    gallery = Pictures(held, labels, data)
    processor = processor_for(SIDE)
    model = ResNetForImageClassification(
        ResNetConfig(
            **SIZES[config.model.name],
            layer_type="basic",
            id2label=dict(enumerate([*labels, *KINDS])),
            label2id={label: number for number, label in enumerate([*labels, *KINDS])},
        )
    ).to(memory_format=torch.channels_last)

    def collate(examples: list[dict]) -> Batch:
        return augmented(examples, processor, data)

    def evaluate(model: Any) -> dict[str, float]:
        return accuracies(logits_of(model, gallery.pixels_N3HW, processor), gallery, labels)

    about = About(
        task="image-classification",
        dataset=f"{len(gallery)} pictures that were held out, {world.variant}",
        data=[{"name": f"{kind}s", "found": count, "expected": count} for kind, count in counted(learned.items)],
        licences=licences_of(learned.items),
    )
    objective = LabelsAndKinds(model, len(labels), config.objective)
    return Parts(model, objective, learned, collate, evaluate, processor, about)


def counted(items: list[Item]) -> list[tuple[str, int]]:
    return [(kind, sum(one.kind == kind for one in items)) for kind in KINDS]


def licences_of(items: Sequence[Item]) -> dict[str, str]:
    """Of the data, for a card: each licence with the number of items under it."""
    counts = Counter(one.licence for one in items)
    return {"data": "; ".join(f"{licence}: {counts[licence]}" for licence in sorted(counts))}


class LabelsAndKinds(Objective):
    """Cross-entropy of the labels, and of the kinds that stand behind them among a model's logits.

    Inputs: the model's own; `label` and `kind`, (B,) numbers.
    Terms: `labels`, `kinds`.
    """

    def __init__(self, model: nn.Module, num_labels: int, settings: SmallPicturesObjective):
        super().__init__(model)
        self.num_labels, self.settings = num_labels, settings

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        logits = model(pixel_values=batch["pixel_values"]).logits.float()
        label_BC, kind_BK = logits[:, : self.num_labels], logits[:, self.num_labels :]
        smoothing, shares = self.settings.label_smoothing, Shares.of(logits)
        labels_B = nn.functional.cross_entropy(label_BC, batch["label"], reduction="none", label_smoothing=smoothing)
        kinds_B = nn.functional.cross_entropy(kind_BK, batch["kind"], reduction="none", label_smoothing=smoothing)
        return {"labels": shares.mean(labels_B), "kinds": self.settings.kind_weight * shares.mean(kinds_B)}


@dataclass
class Pictures:
    """Pictures in memory, as bytes: (N, 3, H, W). Which one an example is follows from its draw, by kind and label."""

    items: list[Item]
    labels: tuple[str, ...]
    settings: SmallPicturesData
    pixels_N3HW: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights = {"photo": self.settings.photos, "drawing": self.settings.drawings, "digit": self.settings.digits}
        numbers = {label: number for number, label in enumerate(self.labels)}
        self.pixels_N3HW = pixels_of(self.items)
        self.label_N = np.array([numbers[one.label] for one in self.items])
        self.kind_N = np.array([KINDS.index(one.kind) for one in self.items])
        self.chances_N = balanced(self.items, weights, self.settings.balance)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        place = drawn(self.chances_N, draw.seed)
        return {
            "pixels": self.pixels_N3HW[place],
            "label": int(self.label_N[place]),
            "kind": int(self.kind_N[place]),
            "seed": draw.seed,
        }


def augmented(examples: list[dict], processor: Any, settings: SmallPicturesData) -> Batch:
    """Scaled, turned, moved, recoloured, partly hidden; mirrored, but for digits. One generator serves a batch."""
    pixels_B3HW = torch.from_numpy(np.stack([one["pixels"] for one in examples])).float() / 255
    kind_B = torch.tensor([one["kind"] for one in examples])
    chance = torch.Generator().manual_seed(examples[0]["seed"])
    pixels_B3HW = moved(pixels_B3HW, kind_B != KINDS.index("digit"), chance, settings)
    pixels_B3HW = PictureAugmentation(hue=settings.hue)(pixels_B3HW, chance)
    pixels_B3HW = erased(pixels_B3HW, chance, settings.erase)
    return {
        "pixel_values": normalised(255 * pixels_B3HW, processor).contiguous(memory_format=torch.channels_last),
        "label": torch.tensor([one["label"] for one in examples]),
        "kind": kind_B,
    }


def moved(
    pixels_B3HW: torch.Tensor, may_mirror_B: torch.Tensor, chance: torch.Generator, settings: Any
) -> torch.Tensor:
    """Scaled, turned, moved and mirrored at random; what is uncovered is filled with mirrored picture."""
    batch, side = len(pixels_B3HW), pixels_B3HW.shape[-1]
    draws_B5 = torch.rand(batch, 5, generator=chance)
    scale_B = 1 + settings.zoom * (2 * draws_B5[:, 0] - 1)
    angle_B = torch.deg2rad(settings.turn * (2 * draws_B5[:, 1] - 1))
    shift_B2 = 2 * settings.shift / side * (2 * draws_B5[:, 2:4] - 1)
    mirror_B = torch.where((draws_B5[:, 4] < 0.5) & may_mirror_B, -1.0, 1.0)
    cos_B, sin_B = angle_B.cos() / scale_B, angle_B.sin() / scale_B
    rows = [
        torch.stack([mirror_B * cos_B, -sin_B, shift_B2[:, 0]], 1),
        torch.stack([mirror_B * sin_B, cos_B, shift_B2[:, 1]], 1),
    ]
    grid_BHW2 = nn.functional.affine_grid(torch.stack(rows, 1), list(pixels_B3HW.shape), align_corners=False)
    found = nn.functional.grid_sample(pixels_B3HW, grid_BHW2, padding_mode="reflection", align_corners=False)
    return found.clamp(0, 1)


def erased(pixels_B3HW: torch.Tensor, chance: torch.Generator, prob: float) -> torch.Tensor:
    """A grey box of a fifth to two fifths of the side over some of the pictures."""
    batch, side = len(pixels_B3HW), pixels_B3HW.shape[-1]
    draws_B5 = torch.rand(batch, 5, generator=chance)
    for row, (hit, *where) in enumerate(draws_B5.tolist()):
        if hit < prob:
            height, width = (int(side * (1 + one) / 5) for one in where[:2])
            top, left = int(where[2] * (side - height)), int(where[3] * (side - width))
            pixels_B3HW[row, :, top : top + height, left : left + width] = 0.5
    return pixels_B3HW


def logits_of(model: Any, pixels_N3HW: np.ndarray, processor: Any) -> torch.Tensor:
    """(N, C + K) of pictures as bytes."""
    with torch.no_grad():
        return torch.cat(
            [
                model(pixel_values=normalised(some.float(), processor).to(model.device)).logits.float().cpu()
                for some in torch.from_numpy(pixels_N3HW).split(AT_ONCE)
            ]
        )


def accuracies(logits_NC: torch.Tensor, gallery: Pictures, labels: tuple[str, ...]) -> dict[str, float]:
    """The share of pictures of each kind that get their label among all labels, and core ones among core labels."""
    found = {}
    core = [labels.index(label) for label in CORE if label in labels]
    for number, kind in enumerate(KINDS):
        rows = torch.from_numpy(gallery.kind_N == number)
        label_M = torch.from_numpy(gallery.label_N)[rows]
        if not len(label_M):
            continue
        logits_MC = logits_NC[rows, : len(labels)]
        found[kind] = float((logits_MC.argmax(1) == label_M).float().mean())
        is_core_M = torch.isin(label_M, torch.tensor(core))
        present = sorted(set(label_M[is_core_M].tolist()))
        if present:
            among = logits_MC[is_core_M][:, present].argmax(1)
            found[f"{kind}_core"] = float((torch.tensor(present)[among] == label_M[is_core_M]).float().mean())
    return found
