"""The recipe `brewclip`: spoken captions find their pictures, by what was said and by how it sounded.

    unibrivl transcribe FLICKR8K --model openai/whisper-base.en
    unibrivl train --recipe brewclip --set data.folder=FLICKR8K --set data.loader=flickr8k_audio

Any data with a sound and a picture in each sample will do. Whisper and CLIP are frozen: pictures' embeddings are
computed once, and on request what the audio encoder says of each sound (`data.cache_states`). `--set
data.transcripts=truth` takes the captions as they were written, the upper bound of every transcript.
`--set model.preset=speechclip-parallel --set model.audio=facebook/hubert-base-ls960` trains SpeechCLIP.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unibrivl.data.transcripts import files_in, read_transcripts, the_transcripts
from unibrivl.modeling import BREWCLIP_PRESETS, BrewCLIPModel, BrewCLIPProcessor
from unibrivl.modeling.clips_unibrivl import most_samples
from unibrivl.training.adapters import adapt
from unibrivl.training.augment_sound import SoundAugmentation
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.momentum import bare
from unibrivl.training.objectives.brewclip import BrewCLIPLoss
from unibrivl.training.pairs import check_files
from unibrivl.training.parts import About, Parts
from unibrivl.training.recipes.pairs import listings
from unibrivl.training.retrieval import Retrieval
from unibrivl.training.spoken import SpokenCollate, SpokenPairs, said_in, states_tower
from unibrivl.training.target_cache import TargetCache, picture_tower


@dataclass(frozen=True)
class BrewCLIPRecipeModel:
    """
    Args:
        base (*optional*): a whole BrewCLIP to go on with; what follows then counts for nothing.
        preset: "brewclip", "released", "speechclip-parallel" or "speechclip-cascaded".
        audio, clip: names or folders of what hears and of what reads and sees.
        text (*optional*): of the text tower, where it is not that of `clip`.
        frame_pool, num_prompts, fusion, num_attention_heads, intermediate_size (*optional*): see `BrewCLIPConfig`.
    """

    base: str | None = None
    preset: Literal["brewclip", "released", "speechclip-parallel", "speechclip-cascaded"] = "brewclip"
    audio: str = "openai/whisper-base.en"
    clip: str = "openai/clip-vit-large-patch14"
    text: str | None = None
    frame_pool: int | None = None
    num_prompts: int | None = None
    fusion: Literal["weighted", "sum", "gate", "mlp"] | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None


@dataclass(frozen=True)
class BrewCLIPData:
    """
    Args:
        folder: of the data; see `unibrivl.data.load`.
        loader: which of `unibrivl.data.LOADERS` reads it.
        how (*optional*): rows, stems or labels, for your own folder.
        leave_out: ids of samples that are not wanted.
        train, valid (*optional*): names of splits; by default by their usual names.
        validation (`float`): share that is held out where the data have no splits.
        most_validation (`int`): sounds, and pictures, of an evaluation.
        seconds (`float`): the most that is heard of a sound.
        transcripts: "written", by `unibrivl transcribe`; "truth", the texts of the samples.
        asr (*optional*): which file of transcripts, or which model's, where there are several.
        cache: folder for pictures' embeddings, and for states.
        cache_states (`bool`): keep what the audio encoder says of each sound.
        augment_sounds (`bool`), sound: sounds that are not kept.
    """

    folder: str = ""
    loader: str = "folder"
    how: Literal["rows", "stems", "labels"] | None = None
    leave_out: tuple[str, ...] = ()
    train: str | None = None
    valid: str | None = None
    validation: float = 0.1  # OURS: the usual tenth
    most_validation: int = 1000
    seconds: float = 30.0  # Whisper: what it hears at once
    transcripts: Literal["written", "truth"] = "written"
    asr: str | None = None
    cache: str = "runs/targets"
    cache_states: bool = False
    augment_sounds: bool = False
    sound: SoundAugmentation = field(default_factory=SoundAugmentation)


@dataclass(frozen=True)
class BrewCLIPObjective:
    """
    Args:
        weights (*optional*): see `BrewCLIPLoss`; those of the preset by default.
    """

    weights: Literal["paper", "released", "outer", "robust"] | None = None


def config() -> RunConfig:
    return RunConfig(
        recipe="brewclip",
        output_dir="runs/brewclip",
        model=BrewCLIPRecipeModel(),
        data=BrewCLIPData(),
        objective=BrewCLIPObjective(),
        steps=2400,  # OURS: 20 epochs of the 30,000 captions of Flickr8k
        batch_size=256,  # OURS: pictures are cached, and negatives matter
        learning_rate=1e-4,  # BrewCLIP code
        weight_decay=1e-6,  # BrewCLIP code
        warmup=120,
        evaluate_every=240,
        save_every=240,
        log_every=20,
        primary="recall",
        seed=7122,  # SpeechCLIP code
    )


def build(config: RunConfig) -> Parts:
    listing, train, valid = listings(config.data, config.seed)
    model, processor = model_for(config.model)
    model = adapt(model, config.adapter)
    settings, own = config.data, bare(model)
    said = transcripts_for(settings)
    pictures = pictures_of(own, processor, settings)
    states = None
    if settings.cache_states:
        check_kept(own, settings)
        states = TargetCache(settings.cache, states_tower(own, processor))
    rate_hz = processor.feature_extractor.sampling_rate
    limit = most_samples(processor.feature_extractor)
    seconds = settings.seconds if limit is None else min(settings.seconds, limit / rate_hz)
    changes = settings.sound if settings.augment_sounds else None
    given = {"targets": pictures, "frames": states}
    pairs = SpokenPairs(
        train, said_in(train, settings.folder, said), rate_hz, seconds, states is None, changes, **given
    )
    if len(pairs) < config.batch_size:
        raise ConfigError(f"{pairs.summary()} to train on, and batch_size is {config.batch_size}: set less")
    collate = SpokenCollate(processor)
    held = SpokenPairs(valid, said_in(valid, settings.folder, said), rate_hz, seconds, False, None, **given)
    evaluate = Retrieval(held, collate, config.batch_size, settings.most_validation, ("shared",))

    def prepare() -> None:
        check_files(pairs, held)
        if states is not None:
            heard = [(part, one) for part in (pairs, held) for one in part.sounds]
            states.prepare(sorted({part.excerpt(one) for part, one in heard}))
        if pictures is not None:
            pictures.prepare([*pairs.picture_paths(), *evaluate.picture_paths()])

    about = About(
        task="audio-to-image-retrieval",
        dataset=f"{valid.name}: {evaluate.summary()}, chosen on what was held out, not on the test part",
        towers=origins(config.model),
        data=[{"name": listing.name, "found": listing.found, "expected": listing.expected}],
    )
    objective = BrewCLIPLoss(model, config.objective.weights)
    return Parts(model, objective, pairs, collate, evaluate, processor, about, prepare)


def model_for(settings: BrewCLIPRecipeModel) -> tuple[BrewCLIPModel, BrewCLIPProcessor]:
    """The model that will train, and its processor."""
    if settings.base is not None:
        return BrewCLIPModel.from_pretrained(settings.base), BrewCLIPProcessor.from_pretrained(settings.base)
    names = ("frame_pool", "num_prompts", "fusion", "num_attention_heads", "intermediate_size")
    chosen = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    fields = {**BREWCLIP_PRESETS[settings.preset], **chosen}
    model = BrewCLIPModel.from_pretrained_parts(settings.audio, settings.clip, settings.text, **fields)
    long_audio = model.config.long_audio
    return model, BrewCLIPProcessor.from_pretrained_parts(settings.audio, settings.clip, long_audio=long_audio)


def transcripts_for(settings: BrewCLIPData) -> Any:
    """By the sound's name in the folder; None where the samples' own texts are meant."""
    if settings.transcripts == "truth":
        return None
    if settings.asr is not None and Path(settings.asr).is_file():
        return read_transcripts(settings.asr)[1]
    if not Path(settings.folder).is_dir() or not files_in(settings.folder):
        raise ConfigError(
            f"there are no transcripts in {settings.folder}: write them once with `unibrivl transcribe "
            f"{settings.folder} --model openai/whisper-base.en`, or take the captions, --set data.transcripts=truth"
        )
    return the_transcripts(settings.folder, settings.asr)[1]


def pictures_of(model: BrewCLIPModel, processor: BrewCLIPProcessor, settings: BrewCLIPData) -> TargetCache | None:
    """Embeddings of pictures, once and for all; None where prompts change them in training."""
    if model.vision_prompts is not None or not model.config.freeze_vision_model:
        return None
    return TargetCache(settings.cache, picture_tower(model, processor.image_processor))


def check_kept(model: BrewCLIPModel, settings: BrewCLIPData) -> None:
    if settings.augment_sounds:
        raise ConfigError(
            "data.cache_states keeps each sound as it is, and data.augment_sounds would change it in every epoch: set "
            "one of them to false"
        )
    if not model.config.mask_padding:
        raise ConfigError(
            "data.cache_states keeps the frames that are real, and this model looks at padding too "
            "(mask_padding=False): set data.cache_states=false"
        )
    if any(weight.requires_grad for weight in model.audio_model.parameters()):
        raise ConfigError("the audio encoder trains, so what it says changes: set data.cache_states=false")


def origins(settings: BrewCLIPRecipeModel) -> dict[str, dict[str, str]]:
    """What each tower is, for the card."""
    if settings.base is not None:
        return {kind: {"model": settings.base} for kind in ("audio", "image", "text")}
    return {
        "audio": {"model": settings.audio},
        "image": {"model": settings.clip},
        "text": {"model": settings.text or settings.clip},
    }
