"""The recipe `audio_token`: one adapter learns, for all sounds, which words of a frozen Stable Diffusion they are.

    unibrivl train --recipe audio_token --set data.folder=FOLDER --set model.base=BASE --set model.audio=EARS
    unibrivl train --recipe audio_token --set data.source=small_world --set data.folder=PACKS --set model.base=embedded

BASE is a folder or name of Stable Diffusion 1, 2 or XL, EARS one of an audio encoder; a base that holds a matcher, as
the embedded model does, brings its ears along. Only the adapter trains and, on request, a LoRA of the UNet.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import torch

from unibrivl.modeling import AudioTokenAdapter
from unibrivl.modeling.features_audio_token import sound_features
from unibrivl.training.audio_token_lora import AdapterWithLoRA
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.diffusion_base import DiffusionBase
from unibrivl.training.objectives.latent_diffusion import LatentDiffusionLoss
from unibrivl.training.parts import About, Parts
from unibrivl.training.recipes.audio_token_data import Collate, Prepared, of_pairs, of_small_world
from unibrivl.training.recipes.pairs import listings
from unibrivl.training.recipes.small_world import SmallWorld, SmallWorldData, Variant
from unibrivl.training.sampler import Draw, derive

HELD_OUT = 64  # examples of an evaluation


@dataclass(frozen=True)
class AudioTokenModel:
    """
    Args:
        base: folder or name of Stable Diffusion, or "embedded".
        base_dtype: of the frozen base.
        audio (*optional*): folder or name of an audio encoder; by default the matcher of the base.
        space: of a UniBriVL: "native", its vector in the image tower's space; "features", its frames.
        mode, num_words, hidden_size: of the adapter; see `AudioTokenAdapterConfig`.
        start (*optional*): folder of an adapter to go on with; mode, num_words and hidden_size are then its own.
        lora_rank (`int`): of a LoRA on the UNet; 0 trains none.
        checkpoint_base (`bool`): gradients through the UNet take less memory and more time.
    """

    base: str = "embedded"
    base_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    audio: str | None = None
    space: Literal["native", "features"] = "native"
    mode: Literal["residual", "attentive", "resampler"] = "residual"
    num_words: int = 1
    hidden_size: int = 1024
    start: str | None = None
    lora_rank: int = 0
    checkpoint_base: bool = False


@dataclass(frozen=True)
class AudioTokenData:
    """
    Args:
        source: "pairs", a folder or table of sounds and pictures; "small_world", the packs of the embedded model.
        folder, loader, how, leave_out, train, valid, validation: of "pairs"; see the recipe `pairs`.
        variant, most_pictures: of "small_world"; of each label and kind at most so many pictures.
        seconds (`float`): the most that is heard of a sound, from its beginning.
        cache: folder for what is heard and for latents, each computed once.
        texts: what a picture of "pairs" is told by.
    """

    source: Literal["pairs", "small_world"] = "pairs"
    folder: str = ""
    loader: str = "folder"
    how: Literal["rows", "stems", "labels"] | None = None
    leave_out: tuple[str, ...] = ()
    train: str | None = None
    valid: str | None = None
    validation: float = 0.1  # OURS: the usual tenth
    variant: Variant = "open"
    most_pictures: int = 500
    seconds: float = 10.0  # AudioToken code: what is heard in inference
    cache: str = "runs/targets"
    texts: tuple[str, ...] = ("a photo of <audio>",)


@dataclass(frozen=True)
class AudioTokenObjective:
    """
    Args:
        snr_gamma (*optional*): of min-SNR weights.
        l1, l2, label: AudioToken's regularisers; `label` needs data with labels.
    """

    snr_gamma: float | None = None
    l1: float = 0.01  # AudioToken code: lambda_a
    l2: float = 0.0  # AudioToken code: lambda_b
    label: float = 0.0  # AudioToken code: off unless asked for, and then 0.01


def config() -> RunConfig:
    return RunConfig(
        recipe="audio_token",
        output_dir="runs/audio_token",
        model=AudioTokenModel(),
        data=AudioTokenData(),
        objective=AudioTokenObjective(),
        steps=30_000,
        batch_size=16,  # AudioToken's 4 times 4 steps
        learning_rate=1.6e-4,  # AudioToken code: 1e-5 times 16
        final_share=1.0,
        warmup=0,
        betas=(0.9, 0.999),  # AudioToken code: its AdamW
        evaluate_every=1000,
        save_every=1000,
        log_every=50,
        primary="held_out_loss",
        direction="min",
    )


def build(config: RunConfig) -> Parts:
    settings = config.model
    base = DiffusionBase.from_pretrained(settings.base, getattr(torch, settings.base_dtype))
    if settings.checkpoint_base:
        base.unet.enable_gradient_checkpointing()
    ears = ears_of(settings)
    adapter = adapter_for(settings, base, ears)
    pooled = not adapter.config.takes_tokens
    data = data_for(config, ears, base, pooled)
    if len(data.train) < config.batch_size:
        raise ConfigError(
            f"{len(data.train)} sounds to train on, and batch_size is {config.batch_size}: set {len(data.train)} or "
            "less"
        )
    model: Any = AdapterWithLoRA(adapter, base.unet, settings.lora_rank) if settings.lora_rank else adapter
    wanted = config.objective
    objective = LatentDiffusionLoss(model, base, wanted.snr_gamma, wanted.l1, wanted.l2, wanted.label)
    collate = Collate(len(objective.noising), pooled)

    def evaluate(model: Any) -> dict[str, float]:
        return {"held_out_loss": held_out_loss(model, objective, data.valid, collate, config.batch_size)}

    about = About(
        task="audio-to-image",
        dataset=data.name,
        towers={"audio": {"model": settings.audio or settings.base}, "backbone": {"model": settings.base}},
        data=data.data,
        licences=data.licences,
    )
    return Parts(
        model, objective, data.train, collate, evaluate if config.evaluate_every else None, None, about, data.prepare
    )


def ears_of(settings: AudioTokenModel) -> Any:
    """The audio encoder, named or the base's own."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

    from unibrivl.embedded import embedded
    from unibrivl.modeling import UniBriVLProcessor
    from unibrivl.modeling.matching_models_unibrivl import load_model_and_processor
    from unibrivl.modeling.towers_unibrivl import load_audio_tower

    place = settings.audio
    if place is None:
        folder = str(embedded()) if settings.base == "embedded" else settings.base
        place = os.path.join(folder, "matcher")
        processor = os.path.join(folder, "matcher_processor")
        if not os.path.isdir(place):
            raise ConfigError(
                f"{settings.base} brings no ears: name an audio encoder, --set model.audio=FOLDER (a UniBriVL, CLAP, "
                "HuBERT, ...)"
            )
        found = UniBriVLProcessor.from_pretrained(processor)
        return sound_features(AutoModel.from_pretrained(place), found, space=settings.space)
    name = os.path.basename(os.path.normpath(place)) if os.path.isdir(place) else place
    if AutoConfig.from_pretrained(place).model_type == "unibrivl":
        model, found = load_model_and_processor(place)
        return sound_features(model, found, space=settings.space, name=name)
    return sound_features(load_audio_tower(place), AutoFeatureExtractor.from_pretrained(place), name=name)


def adapter_for(settings: AudioTokenModel, base: DiffusionBase, ears: Any) -> AudioTokenAdapter:
    """A new one for the base, or one that learns on and is the base's."""
    if settings.start is not None:
        adapter = AudioTokenAdapter.from_pretrained(
            settings.start, text_encoders=base.text_encoders, base_name=base.name, dtype=torch.float32
        )
        if adapter.config.audio_width != ears.width:
            raise ConfigError(
                f"model.start hears features of {adapter.config.audio_width} numbers and {ears.name} gives "
                f"{ears.width}: name the audio encoder it was trained with"
            )
        return adapter
    return AudioTokenAdapter.for_base(
        base.text_encoders,
        base.name or None,
        mode=settings.mode,
        num_words=settings.num_words,
        hidden_size=settings.hidden_size,
        audio_width=ears.width,
        features_name=ears.name,
        features_space=settings.space,
    )


def data_for(config: RunConfig, ears: Any, base: DiffusionBase, pooled: bool) -> Prepared:
    settings = config.data
    if not all("<audio>" in text for text in settings.texts):
        raise ConfigError(f"data.texts are what a sound is put into: each holds <audio>; got {list(settings.texts)}")
    if settings.source == "small_world":
        world = SmallWorld(SmallWorldData(settings.folder, settings.variant))
        return of_small_world(world, ears, base, pooled, settings)
    return of_pairs(listings(settings, config.seed), ears, base, pooled, settings)


def held_out_loss(model: Any, objective: LatentDiffusionLoss, data: Any, collate: Collate, size: int) -> float:
    """The error of prediction on held-out sounds, each with noise of its own that is always the same."""
    device, total = next(model.parameters()).device, 0.0
    rows = list(range(min(HELD_OUT, len(data))))
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        batch = collate([data[Draw(row, 0, derive(0, row))] for row in some])
        batch = {name: one.to(device) if isinstance(one, torch.Tensor) else one for name, one in batch.items()}
        total += len(some) * float(objective(model, batch)["noise"])
    return total / len(rows)
