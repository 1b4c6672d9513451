"""The recipe `small_captioner`: a small language model, from nothing, says what the embedded model hears.

    unibrivl train --recipe small_captioner --set data.folder=PACKS
    unibrivl caption dog.wav --model runs/small_captioner/model

Beside the packs `sounds_and_pictures` and `spoken_digits` lies the pack `captions`: AudioCaps' sentences, without
their sounds. Two things are learned from, in one model (`UniBriVLForAudioCaptioning`) whose ears stay as they are:

    heard   a clip of the packs, and a sentence that is true of its class: see `small_captioner_words`
    read    a caption without a sound, which begins at the place of what it names: the mean of what was heard of that
            class, or of all sounds where it names nothing that was

Learning to write from texts alone, with noise around their place so that a sound beside it is understood too, is the
way of CapDec and DeCap. Theirs is the place that CLIP's text encoder gives. The embedded model's knows labels and few
other words (it takes most captions with a dog for a fire), so names are looked for instead.

Shapes: B batch, L labels, P stretches of a sound, E features, N rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from unibrivl.audio import load_audio
from unibrivl.data.tables import read_csv
from unibrivl.metrics.captions import caption_scores
from unibrivl.modeling import UniBriVLForAudioCaptioning, UniBriVLProcessor
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.momentum import bare
from unibrivl.training.objectives.captioning import CaptioningLoss
from unibrivl.training.parts import About, Parts
from unibrivl.training.recipes.captioner import Collate, captions_of, ears_of, plain, stretches_tower
from unibrivl.training.recipes.photos import drawn
from unibrivl.training.recipes.small_captioner_words import THINGS, named, sentences
from unibrivl.training.recipes.small_pictures import licences_of
from unibrivl.training.recipes.small_words import tokenizer_for
from unibrivl.training.recipes.small_world import DIGITS, Item, SmallWorld, SmallWorldData, share_of
from unibrivl.training.sampler import Draw, derive
from unibrivl.training.target_cache import Excerpt, TargetCache

CAPTIONS = Path("captions", "audiocaps_train.csv")
LONGEST = 22  # tokens of a caption with its end: what `UniBriVLForAudioCaptioning` writes at most


@dataclass(frozen=True)
class SmallCaptionerModel:
    """
    Args:
        matcher: folder of the UniBriVL that hears, or "embedded".
        prefix_length (`int`): vectors before the first word.
        vocab_size (`int`): of the tokenizer, which is learned too; at most.
        width, num_layers, num_heads (`int`): of GPT-2.
    """

    matcher: str = "embedded"
    prefix_length: int = 4
    vocab_size: int = 2048
    width: int = 192
    num_layers: int = 4
    num_heads: int = 4


@dataclass(frozen=True)
class SmallCaptionerData(SmallWorldData):
    """
    Args:
        read (`float`): share of captions without a sound; 0 needs no captions, 1 pairs no sound with a sentence.
        placed (`float`): share of these that name a class which is heard.
        longest (`int`): tokens of a caption, its end included; longer ones are left out, for they tell of many sounds.
        digits (`float`): share of spoken digits among what is heard.
        balance (`float`): a class with n rows is drawn in proportion to n to the power of 1 - balance.
        noise (`float`): around a sound or a place, in standard deviations of what is heard.
        views (`int`): a clip of a thing is heard whole, and this often less one in part.
        seconds (`float`): the most that is heard of a clip.
        most_evaluated (`int`): test clips of things, and of digits, that an evaluation writes captions of.
        cache: folder for what was heard.
    """

    read: float = 0.5
    placed: float = 0.7  # OURS: of 50,000 captions few name what these ears know
    longest: int = 14
    digits: float = 0.35  # OURS: as in small_sounds
    balance: float = 0.5
    noise: float = 0.5
    views: int = 4
    seconds: float = 5.0  # OURS: the length of ESC-50's clips
    most_evaluated: int = 80
    cache: str = "runs/targets"


def config() -> RunConfig:
    return RunConfig(
        recipe="small_captioner",
        output_dir="runs/small_captioner",
        model=SmallCaptionerModel(),
        data=SmallCaptionerData(),
        steps=700,
        batch_size=32,
        precision="bf16",
        learning_rate=1e-3,  # OURS: a transformer of two million numbers
        warmup=100,
        weight_decay=0.05,  # ConvNeXt paper: its AdamW, as in small_words
        evaluate_every=700,  # to be looked at: without a primary metric the last step counts, and nothing is chosen
        save_every=250,
        log_every=25,
    )


def build(config: RunConfig) -> Parts:
    settings = config.data
    for name in ("read", "placed", "digits"):
        if not 0 <= getattr(settings, name) <= 1:
            raise ConfigError(f"data.{name} is a share, from 0 to 1; got {getattr(settings, name)}")
    if not 2 <= settings.longest <= LONGEST:
        raise ConfigError(f"data.longest must be from 2 to {LONGEST} tokens, got {settings.longest}")
    world = SmallWorld(settings)
    read = captions_in(settings) if settings.read else []
    labels = tuple(dict.fromkeys(one.label for one in world.sounds("train")))
    spoken = [text for label in labels for text in sentences(label)]
    tokenizer = tokenizer_for([*spoken, *read], config.model.vocab_size, LONGEST)
    model, processor = model_for(config.model, tokenizer)
    heard = TargetCache(settings.cache, stretches_tower(model, processor))
    data = Told(world.sounds("train"), labels, read, heard, processor, settings)
    held = evenly(world.sounds("test", labels), settings.most_evaluated)
    tests = [whole(one, data.rate_hz, settings.seconds) for one in held]

    def prepare() -> None:
        heard.prepare(sorted({*data.excerpts, *tests}))
        data.settle()

    def evaluate(model: Any) -> dict[str, float]:
        kept = [torch.from_numpy(np.array(heard.block(one), np.float32)) for one in tests]
        said = captions_of(bare(model), processor, kept, config.batch_size)
        return scores(said, [one.label for one in held], labels)

    shipped = config.model.matcher == "embedded"
    size = sum(weight.numel() for weight in model.decoder.parameters())
    licences = licences_of(world.sounds("train"))["data"]
    counts = {"sounds of the packs, with sentences by their class": len(data.items), "captions of AudioCaps' "
              "training part, without sounds": len(data.texts)}  # fmt: skip
    about = About(
        task="audio-captioning",
        dataset=f"{len(held)} test clips of {len(labels)} classes, {world.variant}; sentences by class",
        towers={"audio": {"model": config.model.matcher},
                "language": {"model": f"new, GPT-2's kind with {size:,} parameters and its own tokenizer"}},
        data=[{"name": name, "found": count, "expected": count} for name, count in counts.items() if count],
        licences={"data": f"{licences}; AudioCaps' captions: MIT" if data.texts else licences,
                  **({"weights": "cc-by-sa-4.0"} if shipped and world.variant == "open" else {})},
    )  # fmt: skip
    return Parts(model, CaptioningLoss(model), data, Collate(), evaluate, processor, about, prepare)


def captions_in(settings: SmallCaptionerData) -> list[str]:
    """AudioCaps' training captions, each once, plain; those with letters of other alphabets are left out."""
    path = Path(settings.folder).expanduser() / CAPTIONS
    if not path.is_file():
        raise ConfigError(f"there is no {path}: put the pack captions beside the others, or set data.read=0")
    texts = dict.fromkeys(plain(row["caption"]) for row in read_csv(str(path), ("caption",)))
    return [text for text in texts if text and text.isascii()]


def model_for(settings: SmallCaptionerModel, tokenizer: Any) -> tuple[UniBriVLForAudioCaptioning, UniBriVLProcessor]:
    """New prefix and new language model behind ears that stay as they are."""
    audio, feature_extractor = ears_of(settings.matcher)
    decoder = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=settings.width,
            n_layer=settings.num_layers,
            n_head=settings.num_heads,
            n_positions=settings.prefix_length + LONGEST,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model = UniBriVLForAudioCaptioning.from_pretrained_parts(
        audio, decoder, audio_kwargs={"dtype": torch.float32}, prefix_length=settings.prefix_length,
        freeze_audio_model=True,
    )  # fmt: skip
    return model, UniBriVLProcessor(feature_extractor, tokenizer=tokenizer)


def whole(item: Item, rate_hz: int, seconds: float) -> Excerpt:
    return Excerpt(item.source, 0, round(seconds * rate_hz))


def parts_of(item: Item, rate_hz: int, settings: SmallCaptionerData) -> list[Excerpt]:
    """What is heard of a clip: all of it, and of a thing parts of a third or more, which follow from its name."""
    found = [whole(item, rate_hz, settings.seconds)]
    if settings.views < 2 or item.label in DIGITS:  # half a word is no word
        return found
    length = min(len(load_audio(item.source, rate_hz=rate_hz).samples), found[0].stop)
    for view in range(1, settings.views):
        part = max(1, round(length * (1 + 2 * share_of(f"{item.id} length {view}")) / 3))
        first = round((length - part) * share_of(f"{item.id} start {view}"))
        found.append(Excerpt(item.source, first, first + part))
    return found


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many things and so many digits, from the whole of their lists."""
    kinds = ([one for one in items if (one.label in DIGITS) is spoken] for spoken in (False, True))
    return [one for kind in kinds for one in kind[:: max(1, -(-len(kind) // most))]]


class Told:
    """Examples by `Draw`: what was heard of a clip and a sentence of its class, or the place of a caption and itself.

    Args:
        items: clips that are trained on.
        labels: of them.
        texts: captions without sounds; those of more than `settings.longest` tokens are left out.
        heard: what is kept of sounds.

    Attributes:
        excerpts: all that is heard.
        names_of: for each caption the numbers of the classes that it names.
        mean_LPE, deviation_E: of what was heard, by class and over all; there once `settle` was called.
    """

    def __init__(
        self,
        items: Sequence[Item],
        labels: Sequence[str],
        texts: Sequence[str],
        heard: TargetCache,
        processor: UniBriVLProcessor,
        settings: SmallCaptionerData,
    ):
        self.labels, self.heard, self.settings = tuple(labels), heard, settings
        self.rate_hz = processor.feature_extractor.sampling_rate
        self.items = list(items) if settings.read < 1 else []
        self.tokenizer = processor.tokenizer
        # places come of all clips, whether or not a sentence is told of them
        self.parts_N = [parts_of(one, self.rate_hz, settings) for one in items]
        self.label_N = [self.labels.index(one.label) for one in items]
        self.excerpts = [part for parts in self.parts_N for part in parts]
        self.said_L = [[self.tokens(text) for text in sentences(label)] for label in self.labels]
        kept = [(text, tokens) for text in texts if len(tokens := self.tokens(text)) <= settings.longest]
        self.texts, self.tokens_of = [text for text, _ in kept], [tokens for _, tokens in kept]
        things = [label for label in self.labels if label in THINGS]  # "one dog" is not the word one
        self.names_of = [sorted(map(self.labels.index, named(text, things))) for text in self.texts]
        self.chances_N = self.chances()

    def tokens(self, text: str) -> list[int]:
        return [*self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids, self.tokenizer.eos_token_id]

    def chances(self) -> np.ndarray:
        """(N,), of each clip and then of each caption."""
        read, placed, digits = self.settings.read, self.settings.placed, self.settings.digits
        share = {"thing": (1 - read) * (1 - digits), "digit": (1 - read) * digits, "placed": read * placed,
                 "elsewhere": read * (1 - placed)}  # fmt: skip
        kinds = [("digit" if one.label in DIGITS else "thing", one.label) for one in self.items]
        kinds += [("placed", self.labels[names[0]]) if names else ("elsewhere", "") for names in self.names_of]
        if not kinds:
            raise ConfigError("there is nothing to learn from: no clips are told of (data.read=1), nor captions read")
        counts = Counter(kinds)
        chances_N = np.array([counts[kind] ** -self.settings.balance for kind in kinds], np.float64)
        of_kind = np.array([kind for kind, _ in kinds])
        for kind in dict.fromkeys(of_kind.tolist()):
            rows = of_kind == kind
            chances_N[rows] *= share[kind] / chances_N[rows].sum()
        return chances_N / chances_N.sum()

    def settle(self) -> None:
        """Places and spreads, from what was heard."""
        means_NPE = np.stack([np.mean([self.heard.block(part) for part in parts], 0) for parts in self.parts_N])
        label_N = np.array(self.label_N)
        self.mean_LPE = np.stack([means_NPE[label_N == number].mean(0) for number in range(len(self.labels))])
        self.deviation_E = np.std(means_NPE, (0, 1))

    def place(self, names: Sequence[int]) -> np.ndarray:
        """(P, E), where a caption begins that names these classes."""
        return self.mean_LPE[list(names) or slice(None)].mean(0)

    def __len__(self) -> int:
        return len(self.items) + len(self.texts)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        row = drawn(self.chances_N, draw.seed)
        chance = np.random.default_rng(derive(draw.seed, 1))
        if row < len(self.items):
            parts, said = self.parts_N[row], self.said_L[self.label_N[row]]
            stretches_PE = np.array(self.heard.block(parts[int(chance.integers(len(parts)))]), np.float32)
            tokens = said[int(chance.integers(len(said)))]
        else:
            stretches_PE = self.place(self.names_of[row - len(self.items)])
            tokens = self.tokens_of[row - len(self.items)]
        # one number a feature for all stretches: independent ones would nearly vanish from their mean
        shape = (1, stretches_PE.shape[1])
        noise_PE = self.settings.noise * self.deviation_E * chance.standard_normal(shape)
        return {"stretches": (stretches_PE + noise_PE).astype(np.float32), "tokens": tokens}


def scores(said: Sequence[str], right: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Of captions of clips with these labels. `named` is the share that names its clip's class and no other."""
    hits = [named(text, labels) == {label} for text, label in zip(said, right, strict=True)]
    cider = caption_scores(said, [list(sentences(label)) for label in right], ("cider",)).corpus["cider"]
    found = {"cider": cider, "distinct": len(set(said)) / len(said)}
    for name, spoken in (("named_things", False), ("named_digits", True)):
        rows = [hit for hit, label in zip(hits, right, strict=True) if (label in DIGITS) is spoken]
        if rows:
            found[name] = sum(rows) / len(rows)
    return found
