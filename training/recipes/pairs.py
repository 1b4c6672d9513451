"""The recipe `pairs`: a folder of sounds and pictures teaches a UniBriVL which belong together.

    unibrivl train --recipe pairs --set data.folder=FOLDER                        # from nothing, small
    unibrivl train --recipe pairs --set data.folder=FOLDER --set model.audio=NAME --set model.image=NAME
    unibrivl train --recipe pairs --set data.folder=FOLDER --set model.base=NAME  # go on with a UniBriVL

NAME is a model on the Hub or a folder, or a size: tiny, small, base and, for sounds, large. A tower of a size starts
from nothing and trains. An image tower that was loaded stays as it is, and its embeddings are computed once
(`data.cache`); so is, on request, what a sound tower says that stays as it is (`data.cache_sounds`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from unibrivl import data as datasets
from unibrivl.modeling import (
    SPEECHLM_PRESETS,
    SpeechLMConfig,
    SpeechLMFeatureExtractor,
    SpeechLMModel,
    UniBriVLModel,
    UniBriVLProcessor,
)
from unibrivl.modeling.clips_unibrivl import most_samples
from unibrivl.training.adapters import adapt
from unibrivl.training.augment import PictureAugmentation
from unibrivl.training.augment_sound import SoundAugmentation
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.momentum import bare
from unibrivl.training.objectives.base import Objective
from unibrivl.training.objectives.cx import CXLoss
from unibrivl.training.objectives.distillation import DistillationLoss
from unibrivl.training.objectives.in_batch import InBatchLoss
from unibrivl.training.objectives.moco import MoCoLoss
from unibrivl.training.pairs import Collate, Pairs, check_files, divided, without
from unibrivl.training.parts import About, Parts
from unibrivl.training.retrieval import Retrieval
from unibrivl.training.target_cache import Excerpt, TargetCache, picture_tower
from unibrivl.training.target_sounds import (
    Need,
    check_frozen,
    check_padding,
    check_room,
    need,
    seconds_of,
    sound_tower,
)

logger = logging.getLogger(__name__)

MOST_QUEUED = 9600  # columns of UniBriVL's queues
WAVES = {"num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 4}
# towers from nothing: SpeechLM for sounds, CLIP's vision transformer for pictures; and the parts that join them
AUDIO_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        **{"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "conv_dim": [32] * 7},
        **{"num_speech_layers": 1, "num_shared_layers": 1, **WAVES},
    },
    "small": {
        **{"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "conv_dim": [256] * 7},
        **{"num_speech_layers": 3, "num_shared_layers": 3, **WAVES},
    },
    "base": SPEECHLM_PRESETS["base-p"],
    "large": SPEECHLM_PRESETS["large-p"],
}
IMAGE_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        **{"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2},
        **{"image_size": 64, "patch_size": 8, "projection_dim": 64},
    },
    "small": {
        **{"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_hidden_layers": 6},
        **{"image_size": 128, "patch_size": 16, "projection_dim": 256},
    },
    "base": {"image_size": 224, "patch_size": 32, "projection_dim": 512},
}
HEADS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 64, "num_sa_layers": 1, "sa_intermediate_size": 128},
    "small": {"embed_dim": 256, "num_sa_layers": 1, "sa_intermediate_size": 512},
}


@dataclass(frozen=True)
class PairsModel:
    """
    Args:
        base (*optional*): a whole UniBriVL to go on with; `audio` and `image` then count for nothing.
        audio, image: a size, or the name or folder of a model.
        text (`bool`): keep the text tower of an image model that has one, such as CLIP.
        freeze_image (`bool`, *optional*): whether the image tower stays as it is: by default if it was loaded.
    """

    base: str | None = None
    audio: str = "small"
    image: str = "small"
    text: bool = True
    freeze_image: bool | None = None


@dataclass(frozen=True)
class PairsData:
    """
    Args:
        folder: of sounds and pictures, or a table of them: whatever `unibrivl.data.load` takes.
        loader: which of `unibrivl.data.LOADERS` reads it.
        how (*optional*): rows, stems or labels, for your own folder; by default the folder shows it.
        leave_out: ids of samples that are not wanted.
        train, valid (*optional*): names of splits; by default by their usual names.
        validation (`float`): share that is held out where the data have no splits.
        most_validation (`int`): sounds, and pictures, of an evaluation.
        seconds (`float`): the most that is heard of a sound, a random part of a longer one; the beginning of one that
            is cached.
        cache (*optional*): folder for the embeddings of a frozen image tower; none computes them at every step.
        cache_sounds (`bool`): keep there, too, what a frozen sound tower makes of each sound, frame by frame. That is
            large: 1.84 MB a second for SpeechLM Base.
        cached_sounds_in: numbers of 4 bytes, or of 2, which are not exact.
        views (`int`): augmented views of a picture in the cache; 0 takes the pictures as they are.
        augment_pictures (`bool`): pictures that are not cached; see `views` for those that are.
        augment_sounds (`bool`), sound: whether, and how.
    """

    folder: str = ""
    loader: str = "folder"
    how: Literal["rows", "stems", "labels"] | None = None
    leave_out: tuple[str, ...] = ()
    train: str | None = None
    valid: str | None = None
    validation: float = 0.1  # OURS: the usual tenth
    most_validation: int = 1000
    seconds: float = 10.0  # UniBriVL paper: clips of AudioSet
    cache: str | None = "runs/targets"
    cache_sounds: bool = False
    cached_sounds_in: Literal["float32", "float16"] = "float32"
    views: int = 0
    augment_pictures: bool = True
    augment_sounds: bool = True
    sound: SoundAugmentation = field(default_factory=SoundAugmentation)


@dataclass(frozen=True)
class PairsObjective:
    """
    Args:
        name: see `unibrivl.training.objectives`.
        temperature (*optional*): the model's own by default.
        queue_size (*optional*): of cx, moco and distillation; by default as many as there are pairs, at most 9,600,
            and none for distillation.
        momentum (*optional*): of the same three; by default each one's own.
        in_batch_negatives (`bool`): of cx and moco: the rest of the batch counts too.
    """

    name: Literal["cx", "in_batch", "moco", "distillation"] = "cx"
    temperature: float | None = None
    queue_size: int | None = None
    momentum: float | None = None
    in_batch_negatives: bool = False


def config() -> RunConfig:
    return RunConfig(
        recipe="pairs",
        output_dir="runs/pairs",
        model=PairsModel(),
        data=PairsData(),
        objective=PairsObjective(),
        steps=2000,
        batch_size=16,  # what a laptop holds; the queues make up for it
        evaluate_every=200,
        save_every=200,
        log_every=20,
        primary="recall",
    )


def build(config: RunConfig) -> Parts:
    listing, train, valid = listings(config.data, config.seed)
    model, processor = model_for(config.model)
    model = adapt(model, config.adapter)
    check_image_tower(config, bare(model).config.freeze_vision_model)
    caches = caches_for(bare(model), processor, config.data)
    extractor = processor.feature_extractor
    rate_hz, limit = extractor.sampling_rate, most_samples(extractor)
    seconds = config.data.seconds if limit is None else min(config.data.seconds, limit / rate_hz)
    frames = cache_of_sounds(bare(model), processor, config.data)
    changes = config.data.sound if config.data.augment_sounds else None
    pairs = Pairs(train, rate_hz, seconds, frames is None, changes, caches.get("train"), frames)
    if len(pairs) < config.batch_size:
        raise ConfigError(
            f"{pairs.summary()} to train on, and batch_size is {config.batch_size}: set {len(pairs)} or less"
        )
    collate = Collate(processor, PictureAugmentation() if config.data.augment_pictures else None)
    evaluate = None
    if config.evaluate_every:
        held_out = Pairs(valid, rate_hz, seconds, False, None, caches.get("valid"), frames)
        evaluate = Retrieval(held_out, collate, config.batch_size, config.data.most_validation)

    def excerpts() -> list[Excerpt]:
        heard = [pairs.excerpt(one) for one in pairs.sounds]
        return sorted({*heard, *(evaluate.excerpts() if evaluate is not None else ())})

    def foresee() -> Need:
        lengths = seconds_of(excerpts(), rate_hz)
        check_padding(bare(model), processor, excerpts(), lengths)
        return need(bare(model), processor, excerpts(), lengths, config.data.cached_sounds_in)

    def prepare() -> None:
        check_files(pairs, *([evaluate.pairs] if evaluate is not None else []))
        if frames is not None:
            needed = foresee()
            logger.info("%s", needed)
            check_room(needed, frames)
            frames.prepare(excerpts())
        if caches:
            caches["train"].prepare(pairs.picture_paths())
        if caches and evaluate is not None:
            caches["valid"].prepare(evaluate.picture_paths())

    about = About(
        task="audio-to-image-retrieval",
        dataset=f"{valid.name}: {evaluate.summary() if evaluate else 'nothing'}",
        towers=origins(config.model),
        data=[{"name": listing.name, "found": listing.found, "expected": listing.expected}],
    )
    objective = objective_for(model, config.objective, len(pairs))
    told = foresee if frames is not None else None
    return Parts(model, objective, pairs, collate, evaluate, processor, about, prepare, told)


def check_image_tower(config: RunConfig, frozen: bool) -> None:
    """What is asked of the image tower, once it is settled whether it trains."""
    if frozen and config.model.base is None and config.model.image in IMAGE_SIZES:
        raise ConfigError(
            f"model.image={config.model.image} begins from nothing, and frozen it would stay noise: name an image "
            "model, or let it train (model.freeze_image=false; with an adapter, adapter.towers=audio,vision)"
        )
    if config.data.views and not (frozen and config.data.cache):
        why = "data.cache is none" if frozen else "the image tower trains"
        raise ConfigError(f"data.views={config.data.views} are views in the cache, and {why}: set data.views=0")


def caches_for(model: UniBriVLModel, processor: UniBriVLProcessor, settings: PairsData) -> dict[str, TargetCache]:
    """Of the pictures that are trained on and of those that are held out; none where the image tower trains."""
    if settings.cache is None or not model.config.freeze_vision_model:
        return {}
    plain = TargetCache(settings.cache, picture_tower(model, processor.image_processor))
    if not settings.views:
        return {"train": plain, "valid": plain}
    tower = picture_tower(model, processor.image_processor, PictureAugmentation(), settings.views)
    return {"train": TargetCache(settings.cache, tower), "valid": plain}


def cache_of_sounds(model: UniBriVLModel, processor: UniBriVLProcessor, settings: PairsData) -> TargetCache | None:
    """Of what the frozen sound tower says; None where none is asked for."""
    if not settings.cache_sounds:
        return None
    if settings.cache is None:
        raise ConfigError("data.cache_sounds needs a folder to keep them in: set data.cache=FOLDER")
    check_frozen(model)
    if settings.augment_sounds:
        raise ConfigError(
            "data.cache_sounds keeps each sound as it is, and data.augment_sounds would change it in every epoch: set "
            "one of them to false"
        )
    return TargetCache(settings.cache, sound_tower(model, processor, settings.cached_sounds_in))


def listings(settings: Any, seed: int) -> tuple[datasets.Listing, datasets.Listing, datasets.Listing]:
    """All there is, what is trained on, what is held out, by `PairsData` or what has its fields for it."""
    if not settings.folder:
        raise ConfigError("where are the sounds and pictures? --set data.folder=FOLDER (or a table of them)")
    if settings.how is not None and settings.loader != "folder":
        raise ConfigError(f"data.how is for your own folders, and data.loader={settings.loader} needs none: drop it")
    options = {} if settings.how is None else {"how": settings.how}
    listing = without(datasets.load(settings.folder, settings.loader, **options), settings.leave_out)
    Pairs(listing, 16_000)  # says what is missing of the whole folder rather than of a part of it
    return (listing, *divided(listing, settings.validation, seed, settings.train, settings.valid))


def model_for(settings: PairsModel) -> tuple[UniBriVLModel, UniBriVLProcessor]:
    """The model that will train, and its processor."""
    if settings.base is not None:
        # what trains needs 32 bits; whoever saved it in 16 wanted it small
        model = fetched(UniBriVLModel.from_pretrained, settings, ("base",), settings.base, dtype=torch.float32)
        if settings.freeze_image is not None and settings.freeze_image != model.config.freeze_vision_model:
            model.config.freeze_vision_model = settings.freeze_image
            model.vision_model.requires_grad_(not settings.freeze_image)
            model.apply_freezing()
        return model, UniBriVLProcessor.from_pretrained(settings.base)
    frozen = settings.image not in IMAGE_SIZES if settings.freeze_image is None else settings.freeze_image
    fields = {**HEADS.get(settings.audio, {}), "freeze_vision_model": frozen}
    audio, image = tower_for(settings.audio, AUDIO_SIZES), tower_for(settings.image, IMAGE_SIZES)
    whole = isinstance(audio, str) and isinstance(image, str)
    loaded = [name for name, tower in (("audio", audio), ("image", image)) if isinstance(tower, str)]
    in_full = {f"{name}_kwargs": {"dtype": torch.float32} for name in loaded}
    model = fetched(
        UniBriVLModel.from_pretrained_towers,
        *(settings, loaded, audio, image),
        **{"text": settings.text and whole, **in_full, **fields},
    )
    if whole:
        return model, UniBriVLProcessor.from_pretrained_towers(audio, image, text=settings.text)
    return model, UniBriVLProcessor(extractor_for(settings.audio), image_processor_for(settings.image))


def fetched(
    load: Callable[..., UniBriVLModel], settings: PairsModel, keys: Sequence[str], *names: Any, **options: Any
):
    """What `load` gives; where a model is not to be had, the error says which setting asked for it."""
    try:
        return load(*names, **options)
    except OSError as error:
        asked = " or ".join(f"model.{key}={getattr(settings, key)}" for key in keys)
        sizes = "" if "base" in keys else ", no size (tiny, small, base; for sounds large)"
        raise ConfigError(f"{asked} is no folder of a model{sizes}, and was not found on the Hub: {error}") from error


def tower_for(name: str, sizes: dict[str, dict[str, Any]]) -> Any:
    """A new tower for a size, and the name itself for a model that is there."""
    if name not in sizes:
        return name
    if sizes is AUDIO_SIZES:
        return SpeechLMModel(SpeechLMConfig(**sizes[name]))
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes[name]))


def extractor_for(name: str) -> Any:
    from transformers import AutoFeatureExtractor

    if name not in AUDIO_SIZES:
        return AutoFeatureExtractor.from_pretrained(name)
    return SpeechLMFeatureExtractor()


def image_processor_for(name: str) -> Any:
    if name not in IMAGE_SIZES:
        return AutoImageProcessor.from_pretrained(name)
    side = IMAGE_SIZES[name]["image_size"]
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def objective_for(model: Any, settings: PairsObjective, num_pairs: int) -> Objective:
    given: dict[str, Any] = {}
    if settings.temperature is not None:
        given["temperature"] = settings.temperature
    if settings.name == "in_batch":
        return InBatchLoss(model, **given)
    if settings.momentum is not None:
        given["momentum"] = settings.momentum
    # a queue larger than the data would hold each sample several times, the older ones stale
    size = min(MOST_QUEUED, num_pairs) if settings.queue_size is None else settings.queue_size
    given["dataset_size"] = num_pairs
    width = bare(model).config.embed_dim
    if settings.name == "distillation":
        return DistillationLoss(model, queue_size=settings.queue_size or 0, width=width, **given)
    given |= {"queue_size": size, "in_batch_negatives": settings.in_batch_negatives}
    if settings.name == "moco":
        return MoCoLoss(model, width, "image_embeds", "audio_embeds", **given)
    return CXLoss(model, **given)


def origins(settings: PairsModel) -> dict[str, dict[str, str]]:
    """What each tower started from, for the card."""
    if settings.base is not None:
        return {"audio": {"model": settings.base}, "image": {"model": settings.base}}
    found = {}
    for tower, name, sizes in (("audio", settings.audio, AUDIO_SIZES), ("image", settings.image, IMAGE_SIZES)):
        found[tower] = {"model": f"new, of the size {name!r}" if name in sizes else name}
    return found
