"""The recipe `sounds`: the language tower of `sounds_and_pictures`, from nothing, told the ten classes of ESC-10.

    unibrivl train --recipe sounds --set data.folder=FOLDER
    unibrivl train --recipe sounds --set data.folder=FOLDER --set data.classes=all   # all that UniBriVL hears

It is what a UniBriVL is measured against: the same tower and the same head up to the features that probes see, the
same augmentation, batches and steps; only that classes teach it here and pictures there. `unibrivl.metrics` has the
probe, `benchmarks/learn_esc10.py` the comparison.

Shapes: N sounds, E features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from unibrivl.data import Sample
from unibrivl.metrics.probes import Examples, LinearProbe
from unibrivl.modeling import (
    MelEncoderConfig,
    MelEncoderFeatureExtractor,
    SpeechLMConfig,
    SpeechLMFeatureExtractor,
    UniBriVLConfig,
    UniBriVLForAudioClassification,
    UniBriVLProcessor,
)
from unibrivl.training.config import RunConfig
from unibrivl.training.objectives.supervised import SupervisedLoss
from unibrivl.training.pairs import Collate
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.sounds_and_pictures_data import (
    AUGMENTATION,
    ESC10,
    RATE_HZ,
    Clips,
    LabelledCollate,
    LabelledSounds,
    SoundsData,
    division,
    with_both,
)
from unibrivl.training.recipes.speechlm import SIZES

AT_ONCE = 40  # clips of one forward pass of an evaluation
VIEWS, VIEW_SEED = 8, 20240803  # of each clip that a probe is trained on
PENALTY = 0.1  # OURS: of the probe, scikit-learn's C; chosen on fold 3 among 0.001, 0.01, 0.1 and 1
TOWERS: dict[str, dict[str, Any]] = {
    "speechlm": {"model_type": "speechlm", **SIZES["compact"]},
    "mel_encoder": {"model_type": "mel_encoder"},
}


@dataclass(frozen=True)
class SoundsModel:
    """
    Args:
        tower: a small SpeechLM, or a ResNet over log-mel frames.
        embed_dim, num_sa_layers, sa_intermediate_size: of the head; see `UniBriVLConfig`.
    """

    tower: Literal["speechlm", "mel_encoder"] = "speechlm"
    embed_dim: int = 256
    num_sa_layers: int = 1
    sa_intermediate_size: int = 512


@dataclass(frozen=True)
class ClassesData(SoundsData):
    """
    Args:
        classes: ESC-10 alone, or every label of the pack that has sounds and pictures.
    """

    classes: Literal["esc10", "all"] = "esc10"


@dataclass(frozen=True)
class SoundsObjective:
    label_smoothing: float = 0.1  # Inception v3 paper: its value


def config() -> RunConfig:
    return RunConfig(
        recipe="sounds",
        output_dir="runs/sounds",
        model=SoundsModel(),
        data=ClassesData(),
        objective=SoundsObjective(),
        **SCHEDULE,
    )


# Both recipes train alike, and hear as many clips; docs/learning.md says what was tried
SCHEDULE: dict[str, Any] = {
    "steps": 1200,
    "batch_size": 16,  # UniBriVL paper 3.4
    "learning_rate": 5e-4,  # OURS: on fold 3 the better one of 5e-4 and 1e-3, for both
    "warmup": 60,
    "weight_decay": 0.05,  # ConvNeXt paper: its AdamW
    "betas": (0.9, 0.999),  # torch: AdamW's default
    "evaluate_every": 400,
    "save_every": 200,
    "log_every": 20,
    "threads": 1,  # a second one waits more than it works, in a step of a third of a second
}


def build(config: RunConfig) -> Parts:
    parts, clips = division(config.data), Clips(config.data.seconds)
    processor = UniBriVLProcessor(feature_extractor=extractor_for(config.model.tower))
    others = sorted(with_both(parts) - set(ESC10)) if config.data.classes == "all" else []
    labels = [*ESC10, *others]
    model = UniBriVLForAudioClassification(
        UniBriVLConfig(
            **fields_of_tower(config.model),
            vision_config={"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]},
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
    )
    data = LabelledSounds(parts.train, labels, clips, config.data)

    def evaluate(model: Any) -> dict[str, float]:
        predicted_N = predictions(model, processor, parts.esc10_held, clips)
        return {"accuracy": float((predicted_N == numbers_of(parts.esc10_held)).mean())}

    about = About(
        task="audio-classification",
        dataset=f"ESC-10, {len(parts.esc10_held)} clips of "
        + ("the test part" if config.data.validation_fold is None else f"fold {config.data.validation_fold}"),
        data=[{"name": parts.listing.name, "found": parts.listing.found, "expected": parts.listing.expected}],
    )
    objective = SupervisedLoss(model, config.objective.label_smoothing)
    return Parts(model, objective, data, LabelledCollate(Collate(processor)), evaluate, processor, about)


def fields_of_tower(size: SoundsModel) -> dict[str, Any]:
    """Of a `UniBriVLConfig`: all that lies between a sound and its features."""
    return {
        "audio_config": TOWERS[size.tower],
        "embed_dim": size.embed_dim,
        "num_sa_layers": size.num_sa_layers,
        "sa_intermediate_size": size.sa_intermediate_size,
    }


def extractor_for(tower: str) -> Any:
    if tower == "mel_encoder":
        return MelEncoderFeatureExtractor.for_config(MelEncoderConfig())
    return SpeechLMFeatureExtractor(min_samples=SpeechLMConfig(**SIZES["compact"]).frame_field)


def numbers_of(samples: Sequence[Sample]) -> np.ndarray:
    """(N,), the class of each clip among ESC-10."""
    return np.array([ESC10.index(one.label) for one in samples])


def batches(processor: UniBriVLProcessor, sounds: Sequence[np.ndarray], device: Any) -> Iterator[Batch]:
    """Some sounds after the others, in order."""
    for start in range(0, len(sounds), AT_ONCE):
        some = list(sounds[start : start + AT_ONCE])
        yield processor(audio=some, sampling_rate=RATE_HZ, return_tensors="pt").to(device)


def views_of(samples: Sequence[Sample], clips: Clips) -> tuple[list[np.ndarray], np.ndarray]:
    """What a probe is trained on: each clip as it is and as augmentation changes it; and (N,) classes."""
    sounds = [clips(one) for one in samples]
    for view in range(1, VIEWS):
        sounds += [
            AUGMENTATION(clips(one), RATE_HZ, np.random.default_rng([VIEW_SEED, view, place]))
            for place, one in enumerate(samples)
        ]
    return sounds, np.tile(numbers_of(samples), VIEWS)


def predictions(model: Any, processor: UniBriVLProcessor, samples: Sequence[Sample], clips: Clips) -> np.ndarray:
    """(N,), which class of ESC-10, its first ones, a classifier gives each clip."""
    sounds = [clips(one) for one in samples]
    with torch.no_grad():
        found = [model(**batch).logits[:, : len(ESC10)] for batch in batches(processor, sounds, model.device)]
    return torch.cat(found).argmax(1).cpu().numpy()


def probed(
    model: Any, processor: UniBriVLProcessor, train: Sequence[Sample], held: Sequence[Sample], clips: Clips
) -> np.ndarray:
    """(N,), classes of held-out clips by a logistic regression of fixed penalty on the features of a tower.

    Args:
        model: a classifier or a UniBriVL: its `audio_model` is asked, and does not change.
    """

    def features(sounds: Sequence[np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            found = [model.audio_model(**batch).features for batch in batches(processor, sounds, model.device)]
        return torch.cat(found).float().cpu().numpy()

    sounds, label_N = views_of(train, clips)
    seen = Examples(features(sounds), label_N)
    held_NE = features([clips(one) for one in held])
    return LinearProbe(penalties=(PENALTY,)).fit(seen, seen, len(ESC10)).scores(held_NE).argmax(1)
