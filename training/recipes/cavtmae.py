"""The recipe `cavtmae`: AAI's alignment of sounds with words and pictures, on VGGSound.

    unibrivl convert cavmae audio_model.21.pth cavmae
    unibrivl train --recipe cavtmae --set data.folder=VGGSOUND --set model.cavmae=cavmae \\
        --set model.text=openai/clip-vit-large-patch14

The folder is VGGSound's as `unibrivl.data` lays it out, or any other whose sounds have one label and a picture each.
`model.cavmae` and `model.text` may be sizes, tiny or small, that begin from nothing: for trials, since a text encoder
that nobody has trained tells labels apart and no more. A label is read once; so is every picture, if the image side is
frozen.

Shapes: B batch, L labels, D width of a tower, E width of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

from unibrivl.modeling import (
    CAVMAEConfig,
    CAVMAEFeatureExtractor,
    CAVMAEForPreTraining,
    CAVMAEImageProcessor,
    CAVTMAEModel,
    UniBriVLProcessor,
)
from unibrivl.modeling.clips_unibrivl import most_samples
from unibrivl.modeling.modeling_cavtmae import text_tower_of
from unibrivl.training.augment_sound import SoundAugmentation
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.momentum import bare
from unibrivl.training.objectives.cavtmae import CAVTMAELoss
from unibrivl.training.pairs import Collate, Pairs, check_files
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.pairs import PairsData, listings
from unibrivl.training.recipes.small_words import tokenizer_for
from unibrivl.training.retrieval import Retrieval, on
from unibrivl.training.sampler import Draw
from unibrivl.training.target_cache import TargetCache, picture_tower

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "small": {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 768},
}
SHAPES: dict[str, dict[str, int]] = {  # of sounds and pictures of a size
    "tiny": {"num_mel_bins": 32, "max_audio_frames": 64, "image_size": 32},
    "small": {"num_mel_bins": 128, "max_audio_frames": 1024, "image_size": 128},
}
MOST_WORDS, LONGEST = 2048, 32  # of a tokenizer that is made from the labels: its tokens, and those of a text


@dataclass(frozen=True)
class CAVTMAERecipeModel:
    """
    Args:
        cavmae: folder of a converted CAV-MAE, or a size.
        text, text_folder: name or folder of a text encoder and the part of it that holds it (Stable Diffusion's:
            text_encoder; its tokenizer is then in tokenizer), or a size.
        text_feature, projection_dim, tie_unified_block, freeze_unified_block: see `CAVTMAEConfig`.
        freeze_image (`bool`, *optional*): whether the image side stays as it is: by default if it was loaded.
    """

    cavmae: str = "small"
    text: str = "small"
    text_folder: str = ""
    text_feature: Literal["pooled", "mean_tokens", "token_table"] = "pooled"
    projection_dim: int | None = None
    tie_unified_block: bool = False
    freeze_unified_block: bool = False
    freeze_image: bool | None = None


@dataclass(frozen=True)
class CAVTMAEData(PairsData):
    """
    Args:
        template (`str`): what is read of a label; `{}` is the label itself.
    """

    loader: str = "vggsound"
    template: str = "{}"  # AAI paper: the class label
    augment_sounds: bool = False
    sound: SoundAugmentation = field(default_factory=SoundAugmentation)


@dataclass(frozen=True)
class CAVTMAEObjective:
    """
    Args:
        momentum (`float`, *optional*): of the copy; none is AAI's ablation "without m".
        alpha (`float`), ramp_epochs (`int`): share of the copy's targets, and the epochs in which it grows to that.
        temperature (`float`): where it begins; it is learned.
        distill_form, targets: see `CAVTMAELoss`.
        queue_size (`int`): 0 for the batch alone, over all processes.
    """

    momentum: float | None = 0.995  # AAI paper
    alpha: float = 0.4  # ALBEF: default; AAI gives none
    ramp_epochs: int = 1
    temperature: float = 0.07  # ALBEF: where it begins
    distill_form: Literal["kl", "ce"] = "kl"
    targets: Literal["multi_positive", "one_hot"] = "multi_positive"
    queue_size: int = 0


def config() -> RunConfig:
    return RunConfig(
        recipe="cavtmae",
        output_dir="runs/cavtmae",
        model=CAVTMAERecipeModel(),
        data=CAVTMAEData(),
        objective=CAVTMAEObjective(),
        steps=26000,
        batch_size=64,  # with 26000 steps ten epochs of VGGSound's training part
        learning_rate=1e-4,  # ALBEF: its AdamW
        final_share=0.1,  # ALBEF: down to 1e-5
        weight_decay=0.02,  # AAI paper; ALBEF: default
        betas=(0.9, 0.999),  # torch: AdamW's default
        warmup=1000,
        evaluate_every=2600,
        save_every=1300,
        log_every=50,
        primary="recall",
    )


def build(config: RunConfig) -> Parts:
    size, data = config.model, config.data
    listing, train, valid = listings(data, config.seed)
    labels = tuple(listing.labels)
    model, processor = model_for(config, [data.template.format(label) for label in labels])
    frozen = model.config.freeze_vision_model and not model.config.tie_unified_block
    targets = None
    if frozen and data.cache is not None:
        targets = TargetCache(data.cache, picture_tower(model, processor.image_processor))
    extractor = processor.feature_extractor
    seconds = min(data.seconds, (most_samples(extractor) or np.inf) / extractor.sampling_rate)
    changes = data.sound if data.augment_sounds else None
    pairs = Pairs(train, extractor.sampling_rate, seconds, True, changes, targets)
    if not pairs.labelled:
        raise ConfigError(f"{listing.name} has sounds without a label, or with several: each needs one, to be read")
    if len(pairs) < config.batch_size:
        raise ConfigError(f"{pairs.summary()} to train on: set batch_size={len(pairs)} or less")
    words_LD = words_of(model, processor, [data.template.format(label) for label in labels])
    collate = NamedCollate(Collate(processor), words_LD)
    evaluate = None
    if config.evaluate_every:
        held = Pairs(valid, extractor.sampling_rate, seconds, False, None, targets)
        evaluate = NamedRetrieval(held, collate.collate, config.batch_size, data.most_validation, words_LD)

    def prepare() -> None:
        check_files(pairs, *([evaluate.pairs] if evaluate is not None else []))
        if targets is not None:
            targets.prepare([*pairs.picture_paths(), *(evaluate.picture_paths() if evaluate is not None else [])])

    objective = loss_of(model, config, len(pairs))
    about = About(
        task="audio-to-image-retrieval",
        dataset=f"{valid.name}: {evaluate.summary() if evaluate else 'nothing'}",
        towers={"audio": {"model": told(size.cavmae)}, "image": {"model": told(size.cavmae)},
                "text": {"model": told(size.text)}},
        data=[{"name": listing.name, "found": listing.found, "expected": listing.expected}],
    )  # fmt: skip
    return Parts(model, objective, pairs, collate, evaluate, processor, about, prepare)


def loss_of(model: CAVTMAEModel, config: RunConfig, examples: int) -> CAVTMAELoss:
    """The objective that a recipe's `CAVTMAEObjective` describes, over so many examples."""
    wanted = config.objective
    return CAVTMAELoss(
        model,
        momentum=wanted.momentum,
        alpha=wanted.alpha,
        ramp_steps=wanted.ramp_epochs * max(1, examples // (config.batch_size * config.accumulation)),
        distill_form=wanted.distill_form,
        targets=wanted.targets,
        queue_size=wanted.queue_size,
        width=model.config.embed_dim,
        dataset_size=examples,
    )


def told(name: str) -> str:
    return f"new, of the size {name!r}" if name in SIZES else name


def model_for(config: RunConfig, texts: Sequence[str]) -> tuple[CAVTMAEModel, UniBriVLProcessor]:
    """The model that will train, and its processor; where the text encoder is a size, its tokenizer from `texts`."""
    size = config.model
    frozen = size.cavmae not in SIZES if size.freeze_image is None else size.freeze_image
    if frozen and size.cavmae in SIZES:
        raise ConfigError(
            f"model.cavmae={size.cavmae} begins from nothing, and a frozen image side would stay noise: name a "
            "folder, or set model.freeze_image=false"
        )
    text, tokenizer = text_encoder(size, texts)
    whole: Any = size.cavmae
    if size.cavmae in SIZES:
        whole = CAVMAEForPreTraining(CAVMAEConfig(**SIZES[size.cavmae], **SHAPES[size.cavmae]))
    model = CAVTMAEModel.from_pretrained_parts(
        whole,
        text,
        cavmae_kwargs={} if size.cavmae in SIZES else {"dtype": torch.float32},
        text_feature=size.text_feature,
        projection_dim=size.projection_dim,
        tie_unified_block=size.tie_unified_block,
        freeze_unified_block=size.freeze_unified_block,
        freeze_vision_model=frozen,
        temperature=config.objective.temperature,
        alpha=config.objective.alpha,
        distill_form=config.objective.distill_form,
        targets=config.objective.targets,
    )
    hears: Any = model.config.audio_config
    sees: Any = model.config.vision_config
    longest = min(tokenizer.model_max_length, getattr(text.config, "max_position_embeddings", LONGEST))
    processor = UniBriVLProcessor(
        CAVMAEFeatureExtractor(num_mel_bins=hears.num_mel_bins, max_length=hears.max_audio_frames),
        CAVMAEImageProcessor(size=sees.image_size, crop_size=sees.image_size),
        tokenizer,
        text_padding="max_length",
        text_max_length=longest,
    )
    return model, processor


def text_encoder(size: CAVTMAERecipeModel, texts: Sequence[str]) -> tuple[Any, Any]:
    """A text encoder and its tokenizer."""
    if size.text not in SIZES:
        part = {"subfolder": size.text_folder} if size.text_folder else {}
        beside = {"subfolder": size.text_folder.replace("text_encoder", "tokenizer")} if size.text_folder else {}
        return text_tower_of(size.text, dtype=torch.float32, **part), AutoTokenizer.from_pretrained(
            size.text, **beside
        )
    tokenizer = tokenizer_for(list(texts), MOST_WORDS, LONGEST)
    config = CLIPTextConfig(
        **SIZES[size.text],
        vocab_size=len(tokenizer),
        max_position_embeddings=LONGEST,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config), tokenizer


@torch.no_grad()
def words_of(model: CAVTMAEModel, processor: UniBriVLProcessor, texts: Sequence[str]) -> torch.Tensor:
    """(L, D), labels as the frozen text encoder reads them."""
    read = processor(text=list(texts), return_tensors="pt")
    found = model.get_native_text_features(read["input_ids"], read["text_attention_mask"])
    return found.pooler_output.float()


@dataclass(frozen=True)
class NamedCollate:
    """A batch of `Collate`, and what is read of each row's label."""

    collate: Collate
    words_LD: torch.Tensor

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        batch = self.collate(examples)
        return {**batch, "text_embeds": self.words_LD[batch["label"]]}


class NamedRetrieval(Retrieval):
    """`Retrieval` in CAVT-MAE's one space, and `text_accuracy`: sounds whose own label's words are nearest."""

    def __init__(self, pairs: Pairs, collate: Collate, batch_size: int, most: int, words_LD: torch.Tensor):
        super().__init__(pairs, collate, batch_size, most)
        self.words_LD = words_LD
        self.heard: np.ndarray | None = None

    def __call__(self, model: Any) -> dict[str, float]:
        found = super().__call__(model)
        owner = bare(model)
        words_LE = torch.nn.functional.normalize(owner.project_text(self.words_LD.to(owner.device)).float(), dim=-1)
        assert self.heard is not None
        nearest = (self.heard @ words_LE.cpu().numpy().T).argmax(1)
        right = np.array([self.pairs.labels[self.pairs.sounds[place].labels[0]] for place in self.sounds])
        return {**found, "text_accuracy": float((nearest == right).mean())}

    def _sounds(self, model: Any) -> np.ndarray:
        def embed(places: list[int]):
            heard = [self.pairs.heard(self.pairs.sounds[place], Draw(place, 0, 0)) for place in places]
            return (model(**on(self.collate(heard), model), return_dict=True).audio_embeds,)

        self.heard = self._embedded(self.sounds, embed, "sounds")
        return self.heard

    def _pictures(self, model: Any) -> np.ndarray:
        owner = bare(model)

        def embed(places: list[int]):
            seen = [self.pairs.seen(place, Draw(place, 0, 0)) for place in places]
            if "image_embeds" in seen[0]:
                native_BD = torch.from_numpy(np.stack([one["image_embeds"] for one in seen])).to(owner.device)
                return (owner.project_image(native_BD),)
            pixels = self.collate.processor.image_processor([one["image"] for one in seen], return_tensors="pt")
            return (model(pixel_values=pixels["pixel_values"].to(owner.device), return_dict=True).image_embeds,)

        return self._embedded(self.pictures, embed, "pictures")
