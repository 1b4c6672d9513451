"""The recipe `small_brewclip`: a small BrewCLIP of the small world's towers of sounds, pictures and words.

    python benchmarks/spoken_captions.py --data PACKS --out runs/spoken
    unibrivl train --recipe small_pictures --set data.folder=PACKS
    unibrivl train --recipe small_words --set data.folder=PACKS
    unibrivl train --recipe small_sounds --set data.folder=PACKS
    unibrivl train --recipe small_brewclip --set data.folder=runs/spoken
    unibrivl train --recipe small_brewclip --set data.folder=runs/spoken --set model.channels=e2e   # one channel alone

Captions name the class of a picture, so a sound's right pictures are all of that class, and those of one class do not
repel each other. There is no pre-trained Whisper here: the audio encoder, a residual network over log-mel frames, is
that of `small_sounds` at first, which knows spoken digits at most, and trains along with the rest. From nothing its
frames are all but the same for every caption, and a channel behind them learns nothing in as many steps. What is said
comes from the transcripts beside the sounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from unibrivl import data as datasets
from unibrivl.data import Sample
from unibrivl.data.pictures import open_picture
from unibrivl.metrics import Relevance, mrr, ranks, recall_at
from unibrivl.modeling import (
    BrewCLIPConfig,
    BrewCLIPModel,
    BrewCLIPProcessor,
    MelEncoderConfig,
    MelEncoderFeatureExtractor,
    MelEncoderModel,
    UniBriVLModel,
)
from unibrivl.training.augment_sound import FeatureMasking, SoundAugmentation
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.objectives.brewclip import BrewCLIPLoss
from unibrivl.training.pairs import part_of
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.brewclip import transcripts_for
from unibrivl.training.sampler import Draw, derive
from unibrivl.training.spoken import said_in

RATE_HZ = 16_000
AT_ONCE = 40  # sounds or pictures of one forward pass of the evaluation


@dataclass(frozen=True)
class SmallBrewCLIPModel:
    """
    Args:
        sounds (*optional*): folder of the UniBriVL whose audio tower is the beginning; none begins from nothing.
        pictures, words: folders of the image tower and of the text encoder, which stay frozen.
        channels: of a sound: "text", "e2e" or both.
        num_prompts, num_attention_heads (`int`), fusion_weight: see `BrewCLIPConfig`.
    """

    sounds: str | None = "runs/small_sounds/model"
    pictures: str = "runs/small_pictures/model"
    words: str = "runs/small_words/model"
    channels: tuple[str, ...] = ("text", "e2e")
    num_prompts: int = 4
    num_attention_heads: int = 4
    fusion_weight: float = 1.0  # OURS: nothing here is trained yet, so no channel has a head start


@dataclass(frozen=True)
class SmallBrewCLIPData:
    """
    Args:
        folder: that `benchmarks/spoken_captions.py` made.
        transcripts, asr: see the recipe `brewclip`.
        seconds (`float`): the most that is heard of a caption.
        sound, masks: augmentation of waveforms, and of log-mel frames.
    """

    folder: str = "runs/spoken"
    transcripts: Literal["written", "truth"] = "written"
    asr: str | None = None
    seconds: float = 4.0  # OURS: the longest caption
    sound: SoundAugmentation = field(
        default_factory=lambda: SoundAugmentation(shift_s=0.3, noise_prob=0.3)  # OURS: noise is in them already
    )
    masks: FeatureMasking = field(
        default_factory=lambda: FeatureMasking(max_frames=20, max_share=0.1, max_features=8)  # OURS: of 250 and 64
    )


@dataclass(frozen=True)
class SmallBrewCLIPObjective:
    weights: Literal["paper", "released", "outer", "robust"] = "robust"  # OURS: each channel is looked at alone too


def config() -> RunConfig:
    return RunConfig(
        recipe="small_brewclip",
        output_dir="runs/small_brewclip",
        model=SmallBrewCLIPModel(),
        data=SmallBrewCLIPData(),
        objective=SmallBrewCLIPObjective(),
        steps=700,
        batch_size=48,
        learning_rate=5e-4,  # OURS: a residual network that has heard sounds
        weight_decay=0.05,  # ConvNeXt paper: its AdamW
        warmup=70,
        betas=(0.9, 0.999),  # torch: AdamW's default
        evaluate_every=350,  # to be looked at: without a primary metric the last step counts, and nothing is chosen
        save_every=100,
        log_every=20,
    )


def build(config: RunConfig) -> Parts:
    settings = config.data
    if not Path(settings.folder).is_dir():
        raise ConfigError(f"there is no {settings.folder}: benchmarks/spoken_captions.py makes one")
    listing = datasets.load(settings.folder)
    model, processor = model_for(config.model)
    said = transcripts_for(settings)

    def part(split: str) -> Spoken:
        chosen = listing.filter(lambda one: one.split == split)
        return Spoken(chosen, said_in(chosen, settings.folder, said), model, processor, settings)

    train, held = part("train"), part("test")

    def evaluate(model: Any) -> dict[str, float]:
        return retrieval(heard_by(model, processor, held), held)

    about = About(
        task="audio-to-image-retrieval",
        dataset=f"{len(held)} spoken captions of voices and pictures that were held out",
        towers={
            "audio": {"model": str(config.model.sounds)},
            "image": {"model": config.model.pictures},
            "text": {"model": config.model.words},
        },
        data=[{"name": "captions by eSpeak NG", "found": len(listing), "expected": len(listing)}],
    )
    objective = BrewCLIPLoss(model, config.objective.weights)
    return Parts(model, objective, train, Collated(processor, settings), evaluate, processor, about)


def model_for(
    settings: SmallBrewCLIPModel, kind: Any = BrewCLIPModel, **config_fields: Any
) -> tuple[Any, BrewCLIPProcessor]:
    """A BrewCLIP of the small world's towers whose audio encoder trains, and its processor.

    Args:
        kind: the model's class.
        config_fields: of `BrewCLIPConfig`, beyond what the settings say.
    """
    parts = ((settings.pictures, "pictures"), (settings.words, "words"), (settings.sounds, "sounds"))
    for folder, name in parts:
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(f"there is nothing in {folder}: unibrivl train --recipe small_{name} makes it")
    if settings.sounds is None:
        hears = MelEncoderModel(MelEncoderConfig())
    else:
        hears = UniBriVLModel.from_pretrained(settings.sounds).audio_model.tower
    sees = AutoModel.from_pretrained(settings.pictures)
    reads = CLIPTextModelWithProjection.from_pretrained(settings.words)
    config = BrewCLIPConfig(
        audio_config=hears.config,
        vision_config=sees.config,
        text_config=reads.config,
        channels=list(settings.channels),
        num_prompts=settings.num_prompts,
        num_attention_heads=settings.num_attention_heads,
        fusion_weight=settings.fusion_weight,
        freeze_audio_model=False,
        **config_fields,
    )
    processor = BrewCLIPProcessor(
        MelEncoderFeatureExtractor.for_config(hears.config),
        AutoImageProcessor.from_pretrained(settings.pictures),
        CLIPTokenizer.from_pretrained(settings.words),
    )
    return kind(config, hears, sees, reads), processor


class Spoken:
    """Captions in memory, each with its transcript and the embedding of its picture.

    Attributes:
        labels: class of each caption.
        pictures_PE: what the image tower makes of each picture; `picture_N` is the row of each caption's.
    """

    def __init__(self, listing: Any, texts: dict[str, str], model: Any, processor: Any, settings: SmallBrewCLIPData):
        self.samples: list[Sample] = list(listing)
        self.texts = [texts[one.id] for one in self.samples]
        self.sounds = [part_of(one, RATE_HZ, settings.seconds) for one in self.samples]
        self.labels = [str(one.label) for one in self.samples]
        numbers = {label: number for number, label in enumerate(dict.fromkeys(self.labels))}
        self.label_N = [numbers[label] for label in self.labels]
        rows = {path: row for row, path in enumerate(dict.fromkeys(str(one.image) for one in self.samples))}
        self.picture_N = [rows[str(one.image)] for one in self.samples]
        self.picture_labels = dict(zip(self.picture_N, self.labels, strict=True))
        self.pictures_PE = seen_by(model, processor, list(rows))
        self.settings = settings

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        chance = np.random.default_rng(derive(draw.seed, 1))
        return {
            "audio": self.settings.sound(self.sounds[draw.index], RATE_HZ, chance),
            "text": self.texts[draw.index],
            "image_embeds": self.pictures_PE[self.picture_N[draw.index]],
            "sample_id": self.label_N[draw.index],
            "seed": draw.seed,
        }


@dataclass
class Collated:
    processor: BrewCLIPProcessor
    settings: SmallBrewCLIPData

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        chance = np.random.default_rng(derive(examples[0]["seed"], 2))
        batch = inputs_of(self.processor, [one["audio"] for one in examples], [one["text"] for one in examples])
        batch["input_features"] = self.settings.masks(batch["input_features"], chance, batch["attention_mask"].sum(1))
        batch["image_embeds"] = torch.stack([one["image_embeds"] for one in examples])
        return {**batch, "sample_id": torch.tensor([one["sample_id"] for one in examples])}


def inputs_of(processor: BrewCLIPProcessor, sounds: list[np.ndarray], texts: list[str]) -> Batch:
    batch = dict(processor(audio=sounds, text=texts, sampling_rate=RATE_HZ, return_tensors="pt"))
    batch.pop("text_attention_mask")
    return batch


@torch.no_grad()
def seen_by(model: Any, processor: BrewCLIPProcessor, paths: Sequence[str]) -> torch.Tensor:
    """(P, E), of length one."""
    found = []
    for start in range(0, len(paths), AT_ONCE):
        pictures = [open_picture(path) for path in paths[start : start + AT_ONCE]]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"].to(model.device)
        found.append(model.eval().get_native_image_features(pixels).pooler_output.float().cpu())
    return torch.nn.functional.normalize(torch.cat(found), dim=-1)


@torch.no_grad()
def heard_by(model: Any, processor: BrewCLIPProcessor, held: Spoken, **how: Any) -> torch.Tensor:
    """(N, E), of length one; `how` is for `get_audio_features`, such as `channels=("text",)`."""
    found = []
    for start in range(0, len(held), AT_ONCE):
        stop = start + AT_ONCE
        batch = inputs_of(processor, held.sounds[start:stop], held.texts[start:stop])
        batch = {name: value.to(model.device) for name, value in batch.items()}
        found.append(model.eval().get_audio_features(**batch, **how).pooler_output.float().cpu())
    return torch.cat(found)


def ranks_of(vectors_NE: torch.Tensor, held: Spoken) -> np.ndarray:
    """(N,), at which place the first picture of a caption's class is found."""
    relevance = Relevance.from_labels(held.labels, [held.picture_labels[row] for row in range(len(held.pictures_PE))])
    return ranks((vectors_NE @ held.pictures_PE.T).numpy(), relevance)


def retrieval(vectors_NE: torch.Tensor, held: Spoken) -> dict[str, float]:
    found_N = ranks_of(vectors_NE, held)
    return {"r1": recall_at(found_N, 1), "r5": recall_at(found_N, 5), "mrr": mrr(found_N)}
