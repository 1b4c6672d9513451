"""The recipe `small_sounds`: UniBriVL for the small world: sounds meet pictures and words of their class.

    unibrivl train --recipe small_pictures --set data.folder=PACKS
    unibrivl train --recipe small_words --set data.folder=PACKS
    unibrivl train --recipe small_sounds --set data.folder=PACKS

The language tower is a residual network over log-mel frames, or a small SpeechLM over samples. Image tower and text
encoder are those of the recipes before, and stay frozen: pictures' embeddings are computed once, and the words of a
class are a fixed place. A batch has sounds of things and spoken digits. Each is moved, masked and mixed with another
of its kind; it is drawn to the pictures and to the words of both, as much as it has of each.

With `objective.name=cx` sounds and pictures meet as in the paper instead, over two queues and a momentum copy; nothing
is mixed then.

Shapes: B batch, L labels that are heard, E shared width, V image tower's width, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from unibrivl.audio import load_audio
from unibrivl.modeling import SpeechLMModel, UniBriVLConfig, UniBriVLModel, UniBriVLProcessor
from unibrivl.training.augment_sound import FeatureMasking, SoundAugmentation, mixup
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.momentum import bare
from unibrivl.training.objectives.base import Objective, embedding, run
from unibrivl.training.objectives.cx import CXLoss
from unibrivl.training.objectives.nce import scores, unit
from unibrivl.training.objectives.rows import Rows
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.recipes.photos import drawn
from unibrivl.training.recipes.small_pictures import licences_of
from unibrivl.training.recipes.small_words import embeds_of
from unibrivl.training.recipes.small_world import (
    CORE,
    DIGITS,
    Item,
    SmallWorld,
    SmallWorldData,
    chances_by,
    noun,
    pixels_of,
)
from unibrivl.training.recipes.sounds import SoundsModel, extractor_for, fields_of_tower
from unibrivl.training.recipes.sounds_and_pictures_data import RATE_HZ
from unibrivl.training.sampler import Draw, derive

FIRST = 64  # sounds that the head's first weights are fitted to
AT_ONCE = 32  # clips of one forward pass of the evaluation


@dataclass(frozen=True)
class SmallSoundsModel(SoundsModel):
    """
    Args:
        pictures, words: folders of the image tower and of the text encoder.
        start: folder of a SpeechLM of the recipe `speechlm`, size compact, for the tower to begin at; from nothing if
            empty.
    """

    tower: Literal["speechlm", "mel_encoder"] = "mel_encoder"
    pictures: str = "runs/small_pictures/model"
    words: str = "runs/small_words/model"
    start: str = ""


@dataclass(frozen=True)
class SmallSoundsData(SmallWorldData):
    """
    Args:
        validation_fold (`int`, *optional*): hold this fold of ESC-10 out and evaluate on it, to choose on; by default
            the test clips are evaluated.
        held_classes: labels that are not trained on at all, for a true zero-shot test.
        seconds (`float`): the most that is heard of a clip.
        shortened (`float`): share of the clips of things of which a random part is heard, at least a third.
        silence (`float`): seconds of silence at most on either side of a spoken digit.
        digits (`float`): share of spoken digits in a batch.
        balance (`float`): a label with n clips is drawn in proportion to n to the power of 1 - balance.
        mixup (`float`): sounds are mixed by weights from Beta(mixup, mixup); 0 mixes none.
        sound, spoken, masks: augmentation of waveforms of things and of digits, and of log-mel frames.
    """

    validation_fold: int | None = None
    held_classes: tuple[str, ...] = ()
    seconds: float = 5.0  # OURS: the length of ESC-50's clips
    shortened: float = 0.3  # OURS: not every sound of a user is five seconds long
    silence: float = 0.4  # OURS: as recordings of a word have it
    digits: float = 0.35  # OURS: they are learned sooner
    balance: float = 0.5  # OURS: 24 clips of some labels, four of others
    mixup: float = 0.2  # mixup paper Sec. 3.1: 0.1 to 0.4 served best
    sound: SoundAugmentation = field(
        default_factory=lambda: SoundAugmentation(shift_s=5.0, num_bands=0, num_spans=0, gain_db=10.0)  # OURS: strong
    )
    spoken: SoundAugmentation = field(  # a word is not turned round
        default_factory=lambda: SoundAugmentation(
            shift_s=0.0, num_bands=0, num_spans=0, gain_db=10.0
        )  # OURS: as above
    )
    masks: FeatureMasking = field(
        default_factory=lambda: FeatureMasking(
            max_frames=60, max_share=0.12, max_features=10, value=1.9
        )  # OURS: of 500 frames, 64 bins
    )


@dataclass(frozen=True)
class SmallSoundsObjective:
    """
    Args:
        name: "in_batch", soft partners within the batch, or "cx", UniBriVL's over queues.
        named_weight (`float`): of the words beside the pictures.
        queue_size (`int`): of cx.
    """

    name: Literal["in_batch", "cx"] = "in_batch"
    temperature: float = 0.07  # UniBriVL paper 3.4: BriVL's, fixed
    named_weight: float = 2.0  # OURS: four terms of pictures stand beside the two of words
    queue_size: int = 1024


def config() -> RunConfig:
    return RunConfig(
        recipe="small_sounds",
        output_dir="runs/small_sounds",
        model=SmallSoundsModel(),
        data=SmallSoundsData(),
        objective=SmallSoundsObjective(),
        steps=2000,
        batch_size=48,
        precision="bf16",
        learning_rate=1e-3,  # OURS: better than 3e-3 after 160 steps on fold 3
        betas=(0.9, 0.999),  # torch: AdamW's default
        weight_decay=0.05,  # ConvNeXt paper: its AdamW
        warmup=100,
        evaluate_every=500,
        save_every=250,
        log_every=20,
    )


def build(config: RunConfig) -> Parts:
    size, data = config.model, config.data
    for folder, recipe in ((size.pictures, "small_pictures"), (size.words, "small_words")):
        if not Path(folder).is_dir():
            raise ConfigError(f"there is nothing in {folder}: unibrivl train --recipe {recipe} makes it")
    world = SmallWorld(data)
    model, processor = model_for(config)
    learned = HeardPairs(
        world,
        data,
        lambda labels: words_of(model, processor, labels),
        lambda pictures: embeds_of(model.vision_model, pixels_of(pictures)),
    )
    labels = learned.labels
    held = evaluated(world, data)
    sounds = [clip(one, data.seconds) for one in held]

    def evaluate(model: Any) -> dict[str, float]:
        """The share of held-out sounds whose own label's words are nearest, among those of their pack."""
        return accuracies(model, processor, held, sounds, labels)

    about = About(
        task="audio-classification",
        dataset=f"{len(held)} sounds that were held out, {world.variant}",
        towers={"audio": {"model": f"new, {size.tower}"}, "image": {"model": size.pictures},
                "text": {"model": size.words}},
        data=[{"name": "sounds", "found": len(learned), "expected": len(learned)}],
        licences=licences_of(world.learned),
    )  # fmt: skip
    collate = SoundCollate(processor, data, mixes=config.objective.name != "cx")
    calibrate(model, collate([learned[Draw(0, 0, seed)] for seed in range(FIRST)]))
    hearing = None  # made after the first weights: its momentum copy begins with them
    if config.objective.name == "cx":
        hearing = CXLoss(model, config.objective.queue_size, temperature=config.objective.temperature)
    objective = HeardAndNamed(model, learned.words_LV, config.objective, hearing)
    return Parts(model, objective, learned, collate, evaluate, processor, about)


def model_for(config: RunConfig) -> tuple[UniBriVLModel, UniBriVLProcessor]:
    size = config.model
    image = AutoModel.from_pretrained(size.pictures)
    text = CLIPTextModelWithProjection.from_pretrained(size.words)
    model = UniBriVLModel(
        UniBriVLConfig(
            **fields_of_tower(size),
            vision_config=image.config,
            text_config=text.config,
            text_route="native",
            temperature=config.objective.temperature,
        ),
        vision_tower=image,
        text_tower=text,
    )
    if size.start:
        begin_at(model.audio_model.tower, size)
    model.audio_model.tower.to(memory_format=torch.channels_last)  # convolutions in bfloat16 are faster so
    tokenizer = CLIPTokenizer.from_pretrained(size.words)
    return model, UniBriVLProcessor(
        feature_extractor=extractor_for(size.tower),
        image_processor=AutoImageProcessor.from_pretrained(size.pictures),
        tokenizer=tokenizer,
        text_padding="max_length",
        text_max_length=tokenizer.model_max_length,
    )


def begin_at(tower: nn.Module, size: SmallSoundsModel) -> None:
    """What a SpeechLM has learned from sounds without labels, in the place of random weights."""
    if size.tower != "speechlm":
        raise ConfigError(f"model.start is a SpeechLM, and model.tower is {size.tower}: --set model.tower=speechlm")
    learned = SpeechLMModel.from_pretrained(size.start).state_dict()
    # units are its own clusters' names, and nothing is read here
    own = {name: weight for name, weight in tower.state_dict().items() if name != "unit_embeddings.weight"}
    if unlike := sorted(name for name in own if name not in learned or learned[name].shape != own[name].shape):
        raise ConfigError(
            f"the SpeechLM in {size.start} is of another shape ({unlike[0]}, ...): unibrivl train --recipe speechlm "
            "--set model.size=compact makes one of this tower's"
        )
    tower.load_state_dict({name: learned[name] for name in own}, strict=False)


@torch.no_grad()
def calibrate(model: UniBriVLModel, batch: Batch) -> None:
    """First weights of the head and the projections under which sounds differ.

    A tower's frames are rectified, so all sounds begin in nearly one direction, and normalising hides what is left of
    their differences: that costs hundreds of steps. Each layer's input is brought to mean zero and deviation one over
    some sounds, its output centred.
    """
    hears = model.audio_model.train()
    sounds = {
        name: value for name, value in batch.items() if name in ("input_features", "input_values", "attention_mask")
    }
    frames: list[torch.Tensor] = []
    hook = hears.frame_projection.register_forward_pre_hook(lambda module, inputs: frames.append(inputs[0]))
    try:
        mask_BT = hears(**sounds).frame_mask
        frames_MD = frames[-1].flatten(0, 1) if mask_BT is None else frames[-1][mask_BT.bool()]
        fit(hears.frame_projection, frames_MD.float())
        features_BE = hears(**sounds).features.float()
    finally:
        hook.remove()
    a_BE = unit(fit_projection(hears.projection, features_BE))
    v_BV = unit(batch["image_embeds"].float())
    fit_projection(model.image_to_shared, v_BV)
    native_BV = fit_projection(model.audio_to_native, a_BE)
    # sounds begin where pictures are, and as far from one another
    fc2, ratio = model.audio_to_native.fc2, v_BV.std(0).mean() / native_BV.std(0).mean()
    fc2.weight.mul_(ratio)
    fc2.bias.mul_(ratio).add_(v_BV.mean(0))


def fit(layer: nn.Linear, inputs_MD: torch.Tensor) -> None:
    """New weights: of inputs like these the layer gives numbers of mean zero and deviation one."""
    deviation_D, mean_D = torch.std_mean(inputs_MD, 0)
    weight = torch.randn_like(layer.weight) / layer.in_features**0.5
    layer.weight.copy_(weight / deviation_D.clamp(min=1e-3 * float(deviation_D.mean())))  # OURS: dead channels stay so
    layer.bias.copy_(-(layer.weight @ mean_D))


def fit_projection(projection: Any, inputs_BE: torch.Tensor) -> torch.Tensor:
    """The same for both layers of a projection; what it gives then."""
    fit(projection.fc1, inputs_BE)
    fit(projection.fc2, nn.functional.relu(projection.fc1(inputs_BE)))
    return projection(inputs_BE)


def evaluated(world: SmallWorld, settings: SmallSoundsData) -> list[Item]:
    if settings.validation_fold is None:
        return world.sounds("test")
    in_fold = [one for one in world.sounds("train") if one.fold == settings.validation_fold and one.label in CORE]
    # of the digits every tenth recording of those that are trained on otherwise
    return in_fold + [one for one in world.sounds("train") if one.label in DIGITS and one.source.endswith("5.flac")]


def clip(item: Item, seconds: float) -> np.ndarray:
    """(S,) float32, from the start."""
    return load_audio(item.source, rate_hz=RATE_HZ).samples[: int(seconds * RATE_HZ)]


class HeardPairs:
    """Sounds in memory, each with a picture of its label and the place of its words; drawn by pack and label.

    Args:
        words: labels -> (L, V), what the text encoder makes of their nouns.
        seen: pictures -> (M, V), what the image tower makes of them.

    Attributes:
        labels: that are heard, in the order of their numbers.
        words_LV: unit vectors, what the text encoder makes of their nouns.
    """

    def __init__(
        self,
        world: SmallWorld,
        settings: SmallSoundsData,
        words: Callable[[Sequence[str]], torch.Tensor],
        seen: Callable[[Sequence[Item]], torch.Tensor],
    ):
        heard = {one.label for one in world.sounds("train")}
        if strange := sorted(set(settings.held_classes) - heard):
            raise ConfigError(
                f"data.held_classes names {strange[0]!r}, and no such class is heard: {', '.join(sorted(heard))}"
            )
        held = {one.id for one in evaluated(world, settings)} if settings.validation_fold is not None else set()
        self.items = [
            one for one in world.sounds("train") if one.id not in held and one.label not in settings.held_classes
        ]
        self.labels = tuple(dict.fromkeys(one.label for one in self.items))
        numbers = {label: number for number, label in enumerate(self.labels)}
        self.sounds = [clip(one, settings.seconds) for one in self.items]
        self.label_N = [numbers[one.label] for one in self.items]
        weights = {"digits": settings.digits, "things": 1 - settings.digits}
        self.chances_N = chances_by(
            self.items, lambda one: "digits" if one.label in DIGITS else "things", lambda one: one.label, weights,
            settings.balance,
        )  # fmt: skip
        self.words_LV = words(self.labels)
        pictures = world.pictures("world")
        embeds_MV = seen(pictures)
        self.pictures_of = {
            label: embeds_MV[[row for row, one in enumerate(pictures) if one.label == label]] for label in self.labels
        }
        self.settings = settings

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        place = drawn(self.chances_N, draw.seed)
        chance = np.random.default_rng(derive(draw.seed, 1))
        label, sound_S = self.label_N[place], self.sounds[place]
        if self.labels[label] in DIGITS:
            before, after = (int(self.settings.silence * RATE_HZ * chance.random()) for _ in range(2))
            sound_S = np.pad(sound_S, (before, after))[: int(self.settings.seconds * RATE_HZ)]
            changed_S = self.settings.spoken(sound_S, RATE_HZ, chance)
        else:
            changed_S = self.settings.sound(sound_S, RATE_HZ, chance)
            if chance.random() < self.settings.shortened:
                changed_S = changed_S[: int(len(changed_S) * chance.uniform(1 / 3, 1))]
        pictures_MV = self.pictures_of[self.labels[label]]
        # where there is no picture, the words' place stands for one
        picture_V = pictures_MV[int(chance.integers(len(pictures_MV)))] if len(pictures_MV) else self.words_LV[label]
        return {
            "sound": changed_S,
            "image_embeds": picture_V,
            "label": label,
            "spoken": self.labels[label] in DIGITS,
            "seed": draw.seed,
        }


@torch.no_grad()
def words_of(model: Any, processor: UniBriVLProcessor, labels: Sequence[str]) -> torch.Tensor:
    """(L, V), the nouns of labels as the frozen text encoder reads them."""
    read = processor(text=[noun(label) for label in labels], return_tensors="pt").to(model.device)
    found = model.get_native_text_features(read["input_ids"], read["text_attention_mask"])
    return found.pooler_output.float()


@dataclass
class SoundCollate:
    """Sounds mixed by pairs -> frames that are masked: `label` and `other`, `share` of the first."""

    processor: UniBriVLProcessor
    settings: SmallSoundsData
    mixes: bool

    def __call__(self, examples: list[dict]) -> Batch:
        chance = np.random.default_rng(derive(examples[0]["seed"], 2))
        label_B = torch.tensor([one["label"] for one in examples])
        sounds: list[np.ndarray] = [one["sound"] for one in examples]
        partner_B, share_B = torch.arange(len(examples)), torch.ones(len(examples))
        if self.mixes:  # a word vanishes in five seconds of rain: digits are mixed with digits
            spoken_B = torch.tensor([one["spoken"] for one in examples])
            for rows in (torch.where(spoken_B)[0], torch.where(~spoken_B)[0]):
                if len(rows):
                    mixed, partner, share = self.mixed([sounds[row] for row in rows], chance)
                    for row, sound_S in zip(rows.tolist(), mixed, strict=True):
                        sounds[row] = sound_S
                    partner_B[rows], share_B[rows] = rows[partner], share
        batch = dict(self.processor(audio=sounds, sampling_rate=RATE_HZ, return_tensors="pt"))
        if "input_features" in batch:
            frames_B = batch["attention_mask"].sum(1)
            batch["input_features"] = self.settings.masks(batch["input_features"], chance, frames_B)
        return {
            **batch,
            "image_embeds": torch.stack([one["image_embeds"] for one in examples]),
            "label": label_B,
            "sample_id": label_B,
            "other": label_B[partner_B],
            "share": share_B,
        }

    def mixed(
        self, sounds: list[np.ndarray], chance: np.random.Generator
    ) -> tuple[list[np.ndarray], torch.Tensor, torch.Tensor]:
        """Each with another of them, as long as the longer of both; which other, and the share of its own."""
        lengths_M = torch.tensor([len(sound_S) for sound_S in sounds])
        longest = int(lengths_M.max())
        padded_MS = torch.from_numpy(np.stack([np.pad(one, (0, longest - len(one))) for one in sounds]))
        mixed = mixup(padded_MS, chance, self.settings.mixup)
        lengths = torch.maximum(lengths_M, lengths_M[mixed.partner_B]).tolist()
        changed = [sound_S[:length].numpy() for sound_S, length in zip(mixed.sounds, lengths, strict=True)]
        return changed, mixed.partner_B, mixed.weight_B


class HeardAndNamed(Objective):
    """Sounds against pictures of the batch and against the words of all labels, in both spaces, with soft partners.

    Args:
        words_LV: the places of the words.
        hearing (*optional*): the paper's objective for sounds and pictures, in place of partners in the batch.

    Inputs: sounds; `image_embeds` (B, V); `label`, `other` (B,) and `share` (B,), how much of a sound has the first.
    Terms: `heard_shared`, `heard_native`, `seen_shared`, `seen_native`, or those of `hearing`; `named_shared`,
        `named_native`.
    """

    def __init__(
        self,
        model: nn.Module,
        words_LV: torch.Tensor,
        settings: SmallSoundsObjective,
        hearing: CXLoss | None = None,
    ):
        super().__init__(model)
        self.words_LV, self.settings, self.hearing = words_LV, settings, hearing

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        own = {name: value for name, value in batch.items() if name not in ("other", "share")}
        label_B, other_B, share_B = batch["label"], batch["other"], batch["share"]
        output = run(model, own)
        a_BE, g_BV = embedding(output, "audio_embeds"), embedding(output, "native_audio_embeds")
        words_LV = self.words_LV.to(a_BE.device)
        labels = len(words_LV)
        target_BL = share_B[:, None] * nn.functional.one_hot(label_B, labels)
        target_BL = target_BL + (1 - share_B)[:, None] * nn.functional.one_hot(other_B, labels)
        owner = bare(model)
        temperature, weight = self.settings.temperature, self.settings.named_weight
        rows = Rows(a_BE)
        named = {
            "named_shared": weight
            * rows.shares.mean(soft(scores(a_BE, unit(owner.project_image(words_LV)), temperature), target_BL)),
            "named_native": weight * rows.shares.mean(soft(scores(g_BV, words_LV, temperature), target_BL)),
        }
        if self.hearing is not None:
            return {**self.hearing.terms(model, own, output), **named}
        f_BE, v_BV = embedding(output, "image_embeds"), embedding(output, "native_image_embeds")
        label_G = rows.shares.gather(label_B)
        heard = target_BL[:, label_G]  # how much of each picture's label a sound has
        seen = rows.shares.gather(target_BL)[:, label_B].t()
        terms = {}
        for space, (sound, picture) in {"shared": (a_BE, f_BE), "native": (g_BV, v_BV)}.items():
            pictures_G, sounds_G = rows.shares.gather(picture), rows.shares.gather(sound)
            terms[f"heard_{space}"] = rows.shares.mean(soft(scores(sound, pictures_G, temperature), even(heard)))
            terms[f"seen_{space}"] = rows.shares.mean(soft(scores(picture, sounds_G, temperature), even(seen)))
        return {**terms, **named}

    def before_step(self, model: nn.Module, step: int) -> None:
        if self.hearing is not None:
            self.hearing.before_step(model, step)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {} if self.hearing is None else self.hearing.state_dict()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        if self.hearing is not None:
            self.hearing.load_state_dict(state)


def soft(scores_BK: torch.Tensor, target_BK: torch.Tensor) -> torch.Tensor:
    """(B,), cross-entropy against shares that add up to one."""
    return -(target_BK * scores_BK.log_softmax(1)).sum(1)


def even(weights_BK: torch.Tensor) -> torch.Tensor:
    """Rows that add up to one; a row of nothing, if a weight is rounded to that, stays one."""
    return weights_BK / weights_BK.sum(1, keepdim=True).clamp(min=torch.finfo(weights_BK.dtype).tiny)


@torch.no_grad()
def heard_by(
    model: Any, processor: UniBriVLProcessor, sounds: Sequence[np.ndarray]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, E) and (N, V): sounds in both spaces."""
    shared = []
    for start in range(0, len(sounds), AT_ONCE):
        batch = processor(audio=list(sounds[start : start + AT_ONCE]), sampling_rate=RATE_HZ, return_tensors="pt")
        shared.append(model.get_audio_features(**batch.to(model.device)).pooler_output.float())
    shared_NE = torch.cat(shared)
    return shared_NE, model.project_audio(shared_NE).float()


def accuracies(
    model: Any,
    processor: UniBriVLProcessor,
    items: Sequence[Item],
    sounds: Sequence[np.ndarray],
    labels: Sequence[str],
) -> dict[str, float]:
    """Label-text classification by the matching score, the mean of the cosines in both spaces.

    ESC-10's sounds among ESC-10, digits among digits, and all sounds of things among all things.
    """
    shared_NE, native_NV = heard_by(model, processor, sounds)
    found = {}
    things = [label for label in labels if label not in DIGITS]
    groups = {"esc10": [label for label in CORE if label in things], "all": things, "digits": list(DIGITS)}
    if set(groups["all"]) == set(groups["esc10"]):
        del groups["all"]
    for name, among in groups.items():
        words_KV = words_of(model, processor, among)
        f_KE = model.project_image(words_KV).float()
        rows = [row for row, one in enumerate(items) if one.label in among]
        if not rows:
            continue
        match_MK = shared_NE[rows] @ f_KE.t() + native_NV[rows] @ words_KV.t()
        right = torch.tensor([among.index(items[row].label) for row in rows])
        found[name] = float((match_MK.argmax(1).cpu() == right).float().mean())
    return found
