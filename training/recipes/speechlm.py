"""The recipe `speechlm`: SpeechLM is pre-trained on any folder of sounds, to name the units of frames it cannot hear.

    unibrivl train --recipe speechlm --set data.sounds=my/sounds

Nobody has to label anything: units are found by k-means over MFCC, as HuBERT begins (`data.units=kmeans`); a second
round takes them from a layer of the first round's model (`data.features=hidden`). Units of a phone recogniser or of
fairseq come as a file. With texts and a lexicon the text path trains too: masked phones are spelled.

The finished model is a `SpeechLMForPreTraining`; its tower is what `SpeechLMModel.from_pretrained` takes out of the
folder, and `UniBriVLModel.from_pretrained_towers(FOLDER, pictures)` sets it beside a picture tower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unibrivl.modeling import SPEECHLM_PRESETS, SpeechLMConfig, SpeechLMFeatureExtractor, SpeechLMPhoneTokenizer
from unibrivl.modeling.modeling_speechlm_pretraining import SpeechLMForPreTraining
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.objectives.speechlm import SpeechLMLoss
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes import speechlm_units
from unibrivl.training.recipes.speechlm_data import (
    NUM_SPECIAL,
    Grid,
    SavedTogether,
    SoundsAndUnits,
    Texts,
    chosen,
    collated,
    divided,
    masked_batches,
    masked_scores,
    read,
)
from unibrivl.training.recipes.speechlm_units import (
    RATE_HZ,
    Units,
    cluster,
    hidden_states,
    kept_units,
    units_from,
)
from unibrivl.training.target_cache import digest

HELD_OUT_SEED = 20240802  # OURS: of what is held out and where it is masked, whatever the run's seed

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        **{"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4},
        **{"num_speech_layers": 1, "num_shared_layers": 1, "conv_dim": [32] * 7, "unit_proj_size": 32},
        **{"num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 4},
    },
    # for a few cores: frames of 80 ms in place of 20, narrow, one Speech and two Shared layers before which norms
    # stand; attention over 63 frames of a clip costs little then, and the front end half of a step
    "compact": {
        **{"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4},
        **{"num_speech_layers": 1, "num_shared_layers": 2, "do_stable_layer_norm": True, "unit_proj_size": 64},
        "conv_dim": [32, 32, 64, 64, 128, 128],
        "conv_stride": [10, 4, 2, 2, 4, 2],
        "conv_kernel": [20, 8, 4, 4, 8, 4],
        **{"num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 16},
        # OURS: a tower of two million numbers needs less of these than one of a hundred
        **{"layerdrop": 0.0, "hidden_dropout": 0.05, "attention_dropout": 0.0, "feat_proj_dropout": 0.0},
        "feature_grad_mult": 1.0,  # OURS: the front end starts from nothing too
    },
    "small": {
        **{"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4},
        **{"num_speech_layers": 3, "num_shared_layers": 3, "conv_dim": [128] * 7, "unit_proj_size": 128},
        **{"num_conv_pos_embeddings": 64, "num_conv_pos_embedding_groups": 8},
    },
    "base": {},
    "large": SPEECHLM_PRESETS["large-p"],
}  # OURS: tiny, compact and small, for CPUs; the others are the published ones


@dataclass(frozen=True)
class SpeechLMSize:
    """
    Args:
        size (`str`): "tiny" 0.2, "compact" 1.1, "small" 5.6, "base" 98, "large" 320 million parameters; "compact" is
            the tower of the recipes for real sounds on a CPU, with four units a frame.
        dropout, layerdrop (`float`, *optional*): of all places; the size's own by default.
    """

    size: Literal["tiny", "compact", "small", "base", "large"] = "small"
    dropout: float | None = None
    layerdrop: float | None = None


@dataclass(frozen=True)
class SpeechLMData:
    """
    Args:
        sounds: folders, tables or packs.
        without: splits that are not heard, neither in training nor in evaluation.
        held_out (`float`): share of the clips that are only evaluated on; `max_held_out` at most are.
        max_s (`float`): length of a crop. Shorter clips stay whole; a batch holds clips of like length.
        units (`str`): "kmeans", or a file of units (see `speechlm_units.units_from`) with its `unit_rate_hz`.
        num_units (`int`): clusters.
        features (`str`): what is clustered. "hidden" takes the states of `layer` of the model in `teacher`.
        texts, lexicon (`str`, *optional*): a file with a text a line, and the folder of a `SpeechLMPhoneTokenizer`.
        cache (`str`, *optional*): where units that were found are kept; beside the run by default.
    """

    sounds: tuple[str, ...] = ()
    without: tuple[str, ...] = ("test",)
    held_out: float = 0.05  # OURS: a twentieth
    max_held_out: int = 200
    max_s: float = 15.6  # fairseq HuBERT: max_sample_size
    units: str = "kmeans"
    unit_rate_hz: int = 50
    num_units: int = 100  # HuBERT paper: clusters of its first round
    features: Literal["mfcc", "log_mel", "hidden"] = "mfcc"
    teacher: str | None = None
    layer: int = 6  # HuBERT paper: of 12, for its second round
    texts: str | None = None
    lexicon: str | None = None
    cache: str | None = None


@dataclass(frozen=True)
class SpeechLMObjective:
    """Spans to mask and to swap. `mask_prob * frames / mask_length` spans begin in a clip, two at least: of clips
    under a second take shorter spans."""

    mask_prob: float = 0.8  # SpeechLM base config
    mask_length: int = 10  # fairseq HuBERT
    swap_prob: float = 0.4  # SpeechLM code: half of mask_prob
    swap_length: int = 5  # SpeechLM code: half of mask_length


def config() -> RunConfig:
    return RunConfig(
        recipe="speechlm",
        output_dir="runs/speechlm",
        model=SpeechLMSize(),
        data=SpeechLMData(),
        objective=SpeechLMObjective(),
        steps=5000,
        batch_size=16,
        learning_rate=5e-4,  # SpeechLM base config: its peak
        warmup=400,  # SpeechLM base config: 8 % of the steps
        betas=(0.9, 0.98),  # SpeechLM base config: adam_betas
        clip=10.0,  # fairseq HuBERT: clip_norm
        evaluate_every=500,
        save_every=500,
        log_every=20,
        primary="masked_accuracy",
        workers=1,
    )


def build(config: RunConfig) -> Parts:
    settings, size = config.data, config.model
    samples = chosen(settings.sounds, settings.without)
    units, samples = units_for(samples, settings, Path(config.output_dir).expanduser())
    tokenizer = tokenizer_for(settings)
    texts = None if tokenizer is None else Texts(settings.texts or "", tokenizer)
    # phones keep their own ids: units of another kind come behind them
    num_phones = 0 if tokenizer is None else tokenizer.vocab_size
    first_id = max(NUM_SPECIAL, num_phones) if settings.units == "kmeans" else NUM_SPECIAL
    vocabulary = max(first_id + units.number + 1, num_phones)  # and <mask>
    towers = model_config(size, config.objective, units.rate_hz, vocabulary)
    model = SpeechLMForPreTraining(towers)
    extractor = SpeechLMFeatureExtractor(
        do_normalize=towers.feat_extract_norm == "layer", min_samples=towers.frame_field
    )

    grid = Grid(towers.frame_hop, towers.frame_field)
    max_frames = max(1, round(settings.max_s * RATE_HZ / grid.hop))
    learned, held_out = divided(samples, settings.held_out, HELD_OUT_SEED)
    held_out = np.random.default_rng(HELD_OUT_SEED).permutation(held_out)[: settings.max_held_out].tolist()
    data = SoundsAndUnits(samples, units, learned, grid, max_frames, texts)
    unheard = SoundsAndUnits(samples, units, held_out, grid, max_frames)
    batches = masked_batches(unheard, extractor, first_id, towers, max(1, config.batch_size), HELD_OUT_SEED)

    def collate(examples: list[dict[str, Any]]) -> Batch:
        return collated(examples, extractor, first_id)

    def evaluate(model: SpeechLMForPreTraining) -> dict[str, float]:
        return masked_scores(model, batches)

    about = About(
        task="masked-unit-prediction",
        dataset=f"{len(unheard)} held-out clips of the same sounds",
        data=[{"name": Path(path).name} for path in settings.sounds],
    )
    processor = extractor if tokenizer is None else SavedTogether(extractor, tokenizer)
    return Parts(model, SpeechLMLoss(model), data, collate, evaluate, processor, about)


def units_for(samples: list, settings: SpeechLMData, run: Path) -> tuple[Units, list]:
    """Units and the samples that have them."""
    if settings.units != "kmeans":
        units, have = units_from(settings.units, samples, settings.unit_rate_hz)
        return units, [samples[clip] for clip in have]
    keyed: dict[str, Any] = {"features": settings.features, "num_units": settings.num_units}
    features = {"mfcc": speechlm_units.mfcc, "log_mel": speechlm_units.log_mel}.get(settings.features)
    if features is None:
        if settings.teacher is None:
            raise ConfigError("data.features=hidden needs data.teacher, the folder of a model that was trained before")
        keyed |= {"teacher": digest_of(Path(settings.teacher).expanduser()), "layer": settings.layer}

    def make() -> tuple[Units, np.ndarray]:
        heard = features or hidden_states(settings.teacher or "", settings.layer)
        return cluster(samples, read, heard, settings.num_units, HELD_OUT_SEED)

    folder = Path(settings.cache).expanduser() if settings.cache else run / "units"
    return kept_units(folder, keyed, samples, make), samples


def digest_of(teacher: Path) -> str:
    """Of a model's weights."""
    try:
        return digest(str(teacher / "model.safetensors")).hex()
    except OSError as error:
        raise ConfigError(
            f"data.teacher={teacher} has no model.safetensors: name the folder `model` of a run of this recipe"
        ) from error


def tokenizer_for(settings: SpeechLMData) -> SpeechLMPhoneTokenizer | None:
    if settings.texts is None:
        return None
    if settings.lexicon is None:
        raise ConfigError("data.texts needs data.lexicon, the folder that `unibrivl lexicon FOLDER` makes")
    return SpeechLMPhoneTokenizer.from_pretrained(settings.lexicon)


def model_config(size: SpeechLMSize, objective: SpeechLMObjective, label_rate: int, vocabulary: int) -> SpeechLMConfig:
    fields = {
        **SIZES[size.size],
        "label_rate": label_rate,
        "unit_vocab_size": vocabulary,
        "mask_time_prob": objective.mask_prob,
        "mask_time_length": objective.mask_length,
        "swap_prob": objective.swap_prob,
        "swap_length": objective.swap_length,
    }
    if size.dropout is not None:
        fields |= dict.fromkeys(
            ("hidden_dropout", "attention_dropout", "feat_proj_dropout", "ctc_dropout"), size.dropout
        )
    if size.layerdrop is not None:
        fields["layerdrop"] = size.layerdrop
    made = SpeechLMConfig(**fields)
    if label_rate * made.frame_hop % RATE_HZ:
        raise ConfigError(
            f"data.unit_rate_hz must be a multiple of {math.ceil(RATE_HZ / made.frame_hop)}, got {label_rate}"
        )
    return made
