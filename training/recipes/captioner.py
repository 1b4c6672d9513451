"""The recipe `captioner`: a language model learns to say what a frozen UniBriVL hears.

    unibrivl train --recipe captioner --set data.folder=CLOTHO --set model.matcher=EARS --set model.language=gpt2

EARS is a folder or name of a UniBriVL, or of a plain audio encoder; "embedded" is the small model of this package. The
language tower stays as it is, so each sound is heard once and what it becomes, ten vectors, is kept on the disk
(`data.cache`); the prefix and, unless `model.freeze_language` is set, the language model train. Clotho's evaluation
split is neither trained on nor looked at. Any data whose sounds have texts will do: `--set data.loader=folder`.

Shapes: B batch, P stretches of a sound, E features, N tokens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unibrivl import data as datasets
from unibrivl.audio import load_part
from unibrivl.data import Listing, Sample
from unibrivl.hub.fingerprint import fingerprint
from unibrivl.metrics.captions import caption_scores
from unibrivl.modeling import UniBriVLForAudioCaptioning, UniBriVLProcessor
from unibrivl.modeling.clips_unibrivl import most_samples
from unibrivl.training.adapters import adapt
from unibrivl.training.config import ConfigError, RunConfig
from unibrivl.training.momentum import bare
from unibrivl.training.objectives.captioning import CaptioningLoss
from unibrivl.training.pairs import divided, without
from unibrivl.training.parts import About, Batch, Parts
from unibrivl.training.sampler import Draw
from unibrivl.training.target_cache import FORMAT, Excerpt, TargetCache, Tower, usual_device
from unibrivl.training.target_sounds import beginning

IGNORED = -100  # what the loss skips
NEVER_SEEN = ("evaluation", "test")  # splits that nothing here looks at
DEVELOPMENT = "development"  # what Clotho calls the split that is trained on
SCORES = ("bleu1", "bleu4", "rouge_l", "cider", "meteor_exact_stem")


@dataclass(frozen=True)
class CaptionerModel:
    """
    Args:
        base (*optional*): folder of a captioner to go on with; what follows then counts for nothing.
        matcher: folder or name of a UniBriVL or of an audio encoder, or "embedded".
        language: folder or name of a causal language model with its tokenizer.
        prefix_length (`int`): vectors before the first word.
        freeze_language (`bool`): the prefix alone trains.
    """

    base: str | None = None
    matcher: str = "embedded"
    language: str = "gpt2"
    prefix_length: int = 10  # ClipCap paper, as the next
    freeze_language: bool = False


@dataclass(frozen=True)
class CaptionerData:
    """
    Args:
        folder: of the data; see `unibrivl.data.load`.
        loader: which of `unibrivl.data.LOADERS` reads it.
        leave_out: ids of samples that are not wanted.
        train, valid (*optional*): names of splits; by default by their usual names.
        validation (`float`): share that is held out where the data have no split for it.
        most_validation (`int`): sounds of an evaluation, for which captions are searched.
        seconds (`float`): the most that is heard of a sound, from its beginning.
        max_tokens (`int`): at which captions are cut.
        cache: folder for what was heard.
    """

    folder: str = ""
    loader: str = "clotho"
    leave_out: tuple[str, ...] = ()
    train: str | None = None
    valid: str | None = None
    validation: float = 0.1  # OURS: the usual tenth
    most_validation: int = 200
    seconds: float = 30.0  # OURS: Clotho's longest sounds
    max_tokens: int = 40
    cache: str = "runs/targets"


def config() -> RunConfig:
    return RunConfig(
        recipe="captioner",
        output_dir="runs/captioner",
        model=CaptionerModel(),
        data=CaptionerData(),
        steps=4800,  # ten epochs, as ClipCap, of Clotho's 3,839 times five captions
        batch_size=40,
        learning_rate=2e-5,  # ClipCap paper: its AdamW
        warmup=480,  # one epoch: ClipCap's 5,000 steps are more than there are here
        betas=(0.9, 0.999),  # torch: AdamW's default
        evaluate_every=480,
        save_every=480,
        log_every=20,
        primary="cider",
    )


def build(config: RunConfig) -> Parts:
    settings = config.data
    listing, train, valid = listings(settings, config.seed)
    model, processor = model_for(config.model)
    model = adapt(model, config.adapter)
    own: Any = bare(model)
    if any(weight.requires_grad for weight in own.audio_model.parameters()):
        raise ConfigError(
            "each sound is heard once, so nothing of the language tower can train: an adapter is for the language "
            "model here, adapter.towers=decoder"
        )
    heard = TargetCache(settings.cache, stretches_tower(own, processor))
    rate_hz, most = processor.feature_extractor.sampling_rate, most_samples(processor.feature_extractor)
    seconds = settings.seconds if most is None else min(settings.seconds, most / rate_hz)
    data = Captions(list(train), heard, processor.tokenizer, rate_hz, seconds, settings.max_tokens)
    if len(data) < config.batch_size:
        raise ConfigError(f"{len(data)} captions to train on, and batch_size is {config.batch_size}: set less")
    held = list(valid)[: settings.most_validation]

    def prepare() -> None:
        heard.prepare(sorted({beginning(one, rate_hz, seconds) for one in (*train, *held)}))

    def evaluate(model: Any) -> dict[str, float]:
        kept = [torch.from_numpy(np.array(heard.block(beginning(one, rate_hz, seconds)), np.float32)) for one in held]
        said = captions_of(bare(model), processor, kept, config.batch_size)
        return caption_scores(said, [[plain(text) for text in one.texts] for one in held], SCORES).corpus

    about = About(
        task="audio-captioning",
        dataset=f"{valid.name}: {len(held)} sounds, chosen on what was held out, not on the test part",
        towers={"audio": {"model": config.model.base or config.model.matcher},
                "language": {"model": config.model.base or config.model.language}},
        data=[{"name": listing.name, "found": listing.found, "expected": listing.expected}],
    )  # fmt: skip
    return Parts(model, CaptioningLoss(model), data, Collate(), evaluate, processor, about, prepare)


def listings(settings: CaptionerData, seed: int) -> tuple[Listing, Listing, Listing]:
    """All that may be looked at, what is trained on, what is held out: sounds with texts."""
    if not settings.folder:
        raise ConfigError("where are the sounds and their captions? --set data.folder=CLOTHO")
    hidden = {name for name in NEVER_SEEN if name not in (settings.train, settings.valid)}
    listing = without(datasets.load(settings.folder, settings.loader), settings.leave_out)
    listing = listing.filter(lambda one: bool(one.texts) and one.split not in hidden)
    if not any(one.audio for one in listing):
        raise ConfigError(f"{listing.summary()}, and none of them is a sound with a text to train on")
    train = settings.train or (DEVELOPMENT if DEVELOPMENT in listing.splits else None)
    return (listing, *divided(listing, settings.validation, seed, train, settings.valid))


def model_for(settings: CaptionerModel) -> tuple[UniBriVLForAudioCaptioning, UniBriVLProcessor]:
    """The model that will train, and its processor."""
    from transformers import AutoTokenizer

    if settings.base is not None:
        model = UniBriVLForAudioCaptioning.from_pretrained(settings.base, dtype=torch.float32)
        model.config.freeze_audio_model, model.config.freeze_decoder = True, settings.freeze_language
        model.decoder.requires_grad_(not settings.freeze_language)
        model.apply_freezing()
        return model, UniBriVLProcessor.from_pretrained(settings.base)
    audio, feature_extractor = ears_of(settings.matcher)
    in_full = {"dtype": torch.float32}
    model = UniBriVLForAudioCaptioning.from_pretrained_parts(
        audio, settings.language, audio_kwargs=in_full, decoder_kwargs=in_full, prefix_length=settings.prefix_length,
        freeze_audio_model=True, freeze_decoder=settings.freeze_language,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(settings.language)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"model.language={settings.language} has no end token, so no caption could end")
    return model, UniBriVLProcessor(feature_extractor, tokenizer=tokenizer)


def ears_of(matcher: str) -> tuple[str, Any]:
    """Where the audio encoder is, and what prepares its input."""
    from transformers import AutoConfig, AutoFeatureExtractor

    from unibrivl.embedded import embedded

    audio = beside = str(embedded()) if matcher == "embedded" else matcher
    if os.path.isfile(os.path.join(audio, "model_index.json")):  # a pipeline
        audio, beside = os.path.join(audio, "matcher"), os.path.join(audio, "matcher_processor")
    if AutoConfig.from_pretrained(audio).model_type == "unibrivl":
        return audio, UniBriVLProcessor.from_pretrained(beside).feature_extractor
    return audio, AutoFeatureExtractor.from_pretrained(beside)


def stretches_tower(model: UniBriVLForAudioCaptioning, processor: UniBriVLProcessor) -> Tower:
    """The frozen language tower as it is now: Excerpt -> (P, E). Each sound passes through it alone, unpadded."""
    rate_hz, steps = processor.feature_extractor.sampling_rate, model.prefix.length
    settings = {"kind": "stretches", "format": FORMAT, "steps": steps, "rate_hz": rate_hz}

    def read(excerpt: Excerpt) -> np.ndarray:
        return load_part(excerpt.path, excerpt.first / rate_hz, excerpt.stop / rate_hz, rate_hz=rate_hz).samples

    @torch.no_grad()
    def embed(sounds: list[np.ndarray], seeds: list[int] | None) -> list[np.ndarray]:
        place = usual_device()
        model.audio_model.eval().to(place)
        batches = (processor(audio=[one], sampling_rate=rate_hz, return_tensors="pt") for one in sounds)
        return [
            model.hear(**{name: value.to(place) for name, value in batch.items()})[0].float().cpu().numpy()
            for batch in batches
        ]

    parts = {"feature_extractor": processor.feature_extractor}
    return Tower(fingerprint(model.audio_model, parts, settings), model.config.embed_dim, read, embed)


def plain(text: str) -> str:
    """A caption in lower case without punctuation; apostrophes stay."""
    return " ".join(re.sub(r"[^\w\s']|_", " ", text.lower()).split())


class Captions:
    """Examples by `Draw`: one caption, and what was heard of its sound; nothing is left to chance."""

    def __init__(
        self, samples: Sequence[Sample], heard: TargetCache, tokenizer: Any, rate_hz: int, seconds: float, most: int
    ):
        self.heard = heard
        self.rows: list[tuple[Excerpt, list[int]]] = []
        for one in samples:
            excerpt = beginning(one, rate_hz, seconds)
            for text in filter(None, map(plain, one.texts)):
                tokens = tokenizer(text, add_special_tokens=False).input_ids[: most - 1]
                self.rows.append((excerpt, [*tokens, tokenizer.eos_token_id]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        excerpt, tokens = self.rows[draw.index]
        return {"stretches": np.array(self.heard.block(excerpt), np.float32), "tokens": tokens}


class Collate:
    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        stretches_BPE = torch.from_numpy(np.stack([one["stretches"] for one in examples]))
        labels_BN = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(one["tokens"]) for one in examples], batch_first=True, padding_value=IGNORED
        )
        return {"stretches": stretches_BPE, "labels": labels_BN}


@torch.no_grad()
def captions_of(
    model: UniBriVLForAudioCaptioning, processor: UniBriVLProcessor, kept: Sequence[torch.Tensor], size: int
) -> list[str]:
    """What the model says of sounds that were heard, `size` at a time."""
    place, texts = next(model.parameters()).device, list[str]()
    for start in range(0, len(kept), size):
        tokens = model.generate(stretches=torch.stack(list(kept[start : start + size])).to(place))
        texts += [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    return texts
