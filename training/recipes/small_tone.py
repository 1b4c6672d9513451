"""The recipe `small_tone`: a small BrewCLIP tells how something was said, where what is said is always the same.

    unibrivl train --recipe small_pictures --set data.folder=PACKS
    unibrivl train --recipe small_words --set data.folder=PACKS
    unibrivl train --recipe small_tone --set data.folder=PACKS
    unibrivl train --recipe small_tone --set data.folder=PACKS --set model.channels=text       # reads, hears nothing

The pack is RAVDESS's speech: actors say two sentences with acted emotions, and two of them are held out. What is said
is given and tells nothing of the emotion, so the channel of words alone cannot beat the commonest class. There is no
pre-trained Whisper here: the audio encoder, a residual network over log-mel frames, is trained along with the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from unibrivl import data as datasets
from unibrivl.data import Listing, Sample
from unibrivl.metrics.classification import accuracy, unweighted_average_recall
from unibrivl.modeling import BrewCLIPForSpeechClassification, BrewCLIPProcessor
from unibrivl.training.augment_sound import FeatureMasking, SoundAugmentation
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.objectives.supervised import SupervisedLoss
from unibrivl.training.pairs import part_of
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes import small_brewclip
from unibrivl.training.recipes.photos import drawn
from unibrivl.training.recipes.small_brewclip import SmallBrewCLIPModel, inputs_of
from unibrivl.training.sampler import Draw, derive

RATE_HZ = 16_000
FOLDER = "speech_emotion"  # of the pack among the others
# BrewCLIP's protocol of four classes, and all eight
CLASSES: dict[str, dict[str, str]] = {
    "four": {"neutral": "neutral", "calm": "neutral", "happy": "happy", "sad": "sad", "angry": "angry"},
    "eight": {
        one: one for one in ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    },  # fmt: skip
}
AT_ONCE = 40  # clips of one forward pass of the evaluation


@dataclass(frozen=True)
class SmallToneModel(SmallBrewCLIPModel):
    """As of `small_brewclip`; ears begin from nothing."""

    sounds: str | None = None


@dataclass(frozen=True)
class SmallToneData:
    """
    Args:
        folder: of the packs.
        classes: "four", with calm as neutral and the last three left out (BrewCLIP), or "eight".
        seconds (`float`): the most that is heard of a clip.
        sound, masks: augmentation of waveforms, and of log-mel frames.
    """

    folder: str = "../shared/data"
    classes: Literal["four", "eight"] = "four"
    seconds: float = 4.0  # OURS: RAVDESS has clips of 3 to 5
    sound: SoundAugmentation = field(
        default_factory=lambda: SoundAugmentation(shift_s=0.5, gain_db=10.0)  # OURS: silence is on both sides
    )
    masks: FeatureMasking = field(
        default_factory=lambda: FeatureMasking(max_frames=40, max_share=0.12, max_features=8)  # OURS: of 400 and 64
    )


@dataclass(frozen=True)
class SmallToneObjective:
    label_smoothing: float = 0.1  # Inception v3 paper: its value


def config() -> RunConfig:
    return RunConfig(
        recipe="small_tone",
        output_dir="runs/small_tone",
        model=SmallToneModel(),
        data=SmallToneData(),
        objective=SmallToneObjective(),
        steps=400,
        batch_size=32,
        learning_rate=1e-3,  # OURS: a residual network from nothing
        weight_decay=0.05,  # ConvNeXt paper: its AdamW
        warmup=40,
        betas=(0.9, 0.999),  # torch: AdamW's default
        evaluate_every=200,  # to be looked at: without a primary metric the last step counts, and nothing is chosen
        save_every=100,
        log_every=20,
    )


def build(config: RunConfig) -> Parts:
    settings = config.data
    train, held, labels = clips_of(settings)
    model, processor = model_for(config.model, labels)
    data = ToneClips(train, labels, settings)

    def evaluate(model: Any) -> dict[str, float]:
        return told_apart(model, processor, held, labels, settings)

    about = About(
        task="audio-classification",
        dataset=f"RAVDESS, speech, {len(labels)} classes: {len(held)} clips of actors that were not heard",
        towers={"image": {"model": config.model.pictures}, "text": {"model": config.model.words}},
        data=[{"name": "RAVDESS, ten actors", "found": len(train), "expected": len(train)}],
        licences={"data": "cc-by-nc-sa-4.0", "weights": "cc-by-nc-sa-4.0"},
    )
    objective = SupervisedLoss(model, config.objective.label_smoothing)
    return Parts(model, objective, data, ToneCollate(processor, settings), evaluate, processor, about)


def clips_of(settings: SmallToneData) -> tuple[list[Sample], list[Sample], tuple[str, ...]]:
    """What is trained on, what is held out, and the classes."""
    folder = Path(settings.folder) / FOLDER / "audio"
    if not folder.is_dir():
        raise ConfigError(f"there is no {folder}: data.folder names the folder in which the pack {FOLDER} lies")
    listing: Listing = datasets.load(folder)
    classes = CLASSES[settings.classes]
    chosen = [one for one in listing if one.label in classes]
    parts = ([one for one in chosen if one.split == split] for split in ("train", "test"))
    train, held = parts
    return train, held, tuple(dict.fromkeys(classes.values()))


def class_of(one: Sample, settings: SmallToneData) -> str:
    assert one.label is not None
    return CLASSES[settings.classes][one.label]


def model_for(settings: SmallToneModel, labels: Sequence[str]) -> tuple[Any, BrewCLIPProcessor]:
    """A classifier of these labels, and its processor."""
    numbers = {label: number for number, label in enumerate(labels)}
    return small_brewclip.model_for(
        settings, BrewCLIPForSpeechClassification, id2label=dict(enumerate(labels)), label2id=numbers
    )


class ToneClips:
    """Clips in memory with what is said; each class is drawn as often."""

    def __init__(self, samples: Sequence[Sample], labels: Sequence[str], settings: SmallToneData):
        self.samples, self.settings = samples, settings
        self.label_N = [labels.index(class_of(one, settings)) for one in samples]
        self.sounds = [part_of(one, RATE_HZ, settings.seconds) for one in samples]
        counts = Counter(self.label_N)
        self.chances_N = np.array([1 / counts[label] for label in self.label_N]) / len(counts)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        place = drawn(self.chances_N, draw.seed)
        chance = np.random.default_rng(derive(draw.seed, 1))
        return {
            "audio": self.settings.sound(self.sounds[place], RATE_HZ, chance),
            "text": self.samples[place].texts[0],
            "label": self.label_N[place],
            "seed": draw.seed,
        }


@dataclass
class ToneCollate:
    processor: BrewCLIPProcessor
    settings: SmallToneData

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        chance = np.random.default_rng(derive(examples[0]["seed"], 2))
        batch = inputs_of(self.processor, [one["audio"] for one in examples], [one["text"] for one in examples])
        batch["input_features"] = self.settings.masks(batch["input_features"], chance, batch["attention_mask"].sum(1))
        return {**batch, "label": torch.tensor([one["label"] for one in examples])}


@torch.no_grad()
def named(model: Any, processor: BrewCLIPProcessor, samples: Sequence[Sample], settings: SmallToneData) -> np.ndarray:
    """(N,), the number of the class that each clip is given."""
    found = []
    for start in range(0, len(samples), AT_ONCE):
        some = samples[start : start + AT_ONCE]
        sounds = [part_of(one, RATE_HZ, settings.seconds) for one in some]
        batch = inputs_of(processor, sounds, [one.texts[0] for one in some])
        found.append(model(**{name: value.to(model.device) for name, value in batch.items()}).logits.argmax(1).cpu())
    return torch.cat(found).numpy()


def told_apart(
    model: Any, processor: BrewCLIPProcessor, held: Sequence[Sample], labels: Sequence[str], settings: SmallToneData
) -> dict[str, float]:
    """Accuracy, the mean recall of the classes, and what naming the commonest class alone would reach."""
    right_N = np.array([labels.index(class_of(one, settings)) for one in held])
    found_N = named(model, processor, held, settings)
    return {
        "accuracy": accuracy(found_N, right_N),
        "mean_recall": unweighted_average_recall(found_N, right_N),
        "commonest": float(np.bincount(right_N).max() / len(right_N)),
    }
