"""The recipe `small_cavtmae`: CAVT-MAE for the small world: sounds meet words and pictures of their class.

    unibrivl train --recipe small_pictures --set data.folder=PACKS
    unibrivl train --recipe small_words --set data.folder=PACKS
    unibrivl train --recipe small_cavmae --set data.folder=PACKS
    unibrivl train --recipe small_cavtmae --set data.folder=PACKS

Both sides are those of `small_cavmae`, the text encoder is the one of `small_words` without its projection. As in AAI
pictures and words stay where they are and only sounds move. The words of a label and the embeddings of all pictures
are computed once; where a class has no picture, its words stand for one. `--set objective.momentum=none` is AAI's
ablation.

Shapes: B batch, L labels, E width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from unibrivl.modeling import CAVMAEConfig, CAVTMAEModel, UniBriVLProcessor
from unibrivl.modeling.fbank_cavmae import num_fbank_frames
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.cavtmae import CAVTMAEObjective, loss_of
from unibrivl.training.recipes.small_cavmae import (
    SmallCAVMAEData,
    SmallCAVMAEModel,
    heard_by,
    processor_for,
    retrieval,
    seen_by,
)
from unibrivl.training.recipes.small_pictures import licences_of
from unibrivl.training.recipes.small_sounds import HeardPairs, clip, evaluated, words_of
from unibrivl.training.recipes.small_world import CORE, DIGITS, Item, SmallWorld
from unibrivl.training.recipes.sounds_and_pictures_data import RATE_HZ
from unibrivl.training.sampler import derive


@dataclass(frozen=True)
class SmallCAVTMAEModel:
    """
    Args:
        cavmae, words: folders of a CAV-MAE and of the text encoder.
        text_feature, projection_dim, freeze_unified_block: see `CAVTMAEConfig`. Joint layers are never tied here: the
            pictures' embeddings are computed once.
    """

    cavmae: str = "runs/small_cavmae/model"
    words: str = "runs/small_words/model"
    text_feature: Literal["pooled", "mean_tokens", "token_table"] = "pooled"
    projection_dim: int | None = None
    freeze_unified_block: bool = False


def config() -> RunConfig:
    return RunConfig(
        recipe="small_cavtmae",
        output_dir="runs/small_cavtmae",
        model=SmallCAVTMAEModel(),
        data=SmallCAVMAEData(),
        objective=CAVTMAEObjective(),
        steps=1500,
        batch_size=48,
        precision="bf16",
        learning_rate=5e-4,  # OURS: as its CAV-MAE
        betas=(0.9, 0.999),  # torch: AdamW's default
        weight_decay=0.02,  # AAI paper
        warmup=100,
        evaluate_every=500,
        save_every=250,
        log_every=20,
    )


def build(config: RunConfig) -> Parts:
    size, data = config.model, config.data
    for folder, recipe in ((size.cavmae, "small_cavmae"), (size.words, "small_words")):
        if not Path(folder).is_dir():
            raise ConfigError(f"there is nothing in {folder}: unibrivl train --recipe {recipe} makes it")
    world = SmallWorld(data)
    model, processor = model_for(config)
    learned = HeardPairs(
        world,
        data,
        lambda labels: words_of(model, processor, labels),
        lambda pictures: seen_by(model.get_native_image_features, processor, pictures),
    )
    held = evaluated(world, data)

    def evaluate(model: Any) -> dict[str, float]:
        """The share of held-out sounds whose own label's words are nearest, and how they find photographs."""
        found = accuracies(model, processor, held, learned.labels, data.seconds)
        return {**found, **retrieval(model, processor, world, held, data.seconds)}

    about = About(
        task="audio-classification",
        dataset=f"{len(held)} sounds that were held out, {world.variant}",
        towers={"audio": {"model": size.cavmae}, "image": {"model": size.cavmae}, "text": {"model": size.words}},
        data=[{"name": "sounds", "found": len(learned), "expected": len(learned)}],
        licences=licences_of(world.learned),
    )
    objective = loss_of(model, config, len(learned))
    return Parts(
        model, objective, learned, AlignedCollate(processor, data, learned.words_LV), evaluate, processor, about
    )


def model_for(config: RunConfig) -> tuple[CAVTMAEModel, UniBriVLProcessor]:
    size = config.model
    text, _ = CLIPTextModel.from_pretrained(size.words, output_loading_info=True)  # its projection stays behind
    model = CAVTMAEModel.from_pretrained_parts(
        size.cavmae,
        text,
        text_feature=size.text_feature,
        projection_dim=size.projection_dim,
        freeze_unified_block=size.freeze_unified_block,
        temperature=config.objective.temperature,
        alpha=config.objective.alpha,
        distill_form=config.objective.distill_form,
        targets=config.objective.targets,
    )
    cavmae = CAVMAEConfig.from_pretrained(size.cavmae)
    tokenizer = CLIPTokenizer.from_pretrained(size.words)
    shape = SmallCAVMAEModel(
        num_mel_bins=cavmae.num_mel_bins, frames=cavmae.max_audio_frames, image_size=cavmae.image_size
    )
    processor = processor_for(
        shape, tokenizer=tokenizer, text_padding="max_length", text_max_length=tokenizer.model_max_length
    )
    return model, processor


@dataclass(frozen=True)
class AlignedCollate:
    """Sounds -> masked frames; beside them the pictures' and the words' embeddings.

    All rows of one label are one sample: their pictures do not repel each other.
    """

    processor: UniBriVLProcessor
    settings: SmallCAVMAEData
    words_LV: torch.Tensor

    def __call__(self, examples: list[dict]) -> Batch:
        sounds = [one["sound"] for one in examples]
        frames_BTM = self.processor(audio=sounds, sampling_rate=RATE_HZ, return_tensors="pt")["input_values"]
        real_B = torch.tensor([min(num_fbank_frames(len(one)), frames_BTM.shape[1]) for one in sounds])
        chance = np.random.default_rng(derive(examples[0]["seed"], 2))
        label_B = torch.tensor([one["label"] for one in examples])
        return {
            "input_values": self.settings.masks(frames_BTM, chance, real_B),
            "image_embeds": torch.stack([one["image_embeds"] for one in examples]),
            "text_embeds": self.words_LV[label_B],
            "label": label_B,
            "sample_id": label_B,
        }


@torch.no_grad()
def accuracies(
    model: Any, processor: UniBriVLProcessor, items: Sequence[Item], labels: Sequence[str], seconds: float
) -> dict[str, float]:
    """Label-text classification: ESC-10's sounds among ESC-10, digits among digits, things among all things."""
    heard_NE = heard_by(model, processor, [clip(one, seconds) for one in items])
    things = [label for label in labels if label not in DIGITS]
    groups = {"esc10": [label for label in CORE if label in things], "all": things, "digits": list(DIGITS)}
    if set(groups["all"]) == set(groups["esc10"]):
        del groups["all"]
    found = {}
    for name, among in groups.items():
        rows = [row for row, one in enumerate(items) if one.label in among]
        if not rows:
            continue
        words_KE = model.project_text(words_of(model, processor, among).to(model.device)).float().cpu()
        nearest = (heard_NE[rows] @ torch.nn.functional.normalize(words_KE, dim=-1).t()).argmax(1)
        found[name] = float((nearest == torch.tensor([among.index(items[row].label) for row in rows])).float().mean())
    return found
