"""Models that write: captions of what is heard, and what is said in speech. What benchmarks ask them is here.

`load_captioner` reads a folder of `UniBriVLForAudioCaptioning`; `load_recogniser` a Whisper, a BrewCLIP, whose Whisper
is taken, or a model with a CTC head, such as a fine-tuned SpeechLM, wav2vec 2.0 or HuBERT.

Shapes: B batch, T frames, V letters.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from unibrivl.audio import load_audio
from unibrivl.audio.part import load_part
from unibrivl.hub.fingerprint import fingerprint

CAPTIONED_S = 30.0  # of a sound, from its beginning: the longest of Clotho
CAPTIONER, RECOGNISERS = "UniBriVLForAudioCaptioning", "a Whisper, a BrewCLIP, or a model with a CTC head"


class Captioner:
    """
    Args:
        model: a `UniBriVLForAudioCaptioning`.
        processor: with its `feature_extractor` and the language model's `tokenizer`.
        name (`str`): for tables.
        seconds (`float`): the most that is heard of a sound; less where the feature extractor hears less.
    """

    def __init__(self, model: Any, processor: Any, name: str = "captioner", seconds: float = CAPTIONED_S):
        from unibrivl.modeling.clips_unibrivl import most_samples

        if processor.tokenizer is None:
            raise ValueError(f"{name} has no tokenizer beside it: save its processor with the language model's")
        self.model, self.processor, self.name = model.eval(), processor, name
        self.rate_hz = processor.feature_extractor.sampling_rate
        most = most_samples(processor.feature_extractor)
        self.seconds = seconds if most is None else min(seconds, most / self.rate_hz)

    @property
    def fingerprint(self) -> str:
        parts = {"feature_extractor": self.processor.feature_extractor, "tokenizer": self.processor.tokenizer}
        told = {"kind": "captions", "seconds": self.seconds, "search": self.model.generation_config.to_diff_dict()}
        return fingerprint(self.model, parts, told)

    def caption(self, paths: Sequence[str | os.PathLike]) -> list[str]:
        """Of each sound; one at a time, so that none depends on what it is padded to."""
        return [self._write(path) for path in paths]

    @torch.inference_mode()
    def _write(self, path: str | os.PathLike) -> str:
        sound = load_part(path, 0.0, self.seconds, rate_hz=self.rate_hz)
        batch = self.processor(audio=[sound.samples], sampling_rate=self.rate_hz, return_tensors="pt")
        place = next(self.model.parameters()).device
        tokens = self.model.generate(**{name: value.to(place) for name, value in batch.items()})
        return self.processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()


class Recogniser:
    """
    Args:
        writer: clips of samples -> texts, with `settings`, `sampling_rate` and `batch_size`; see `transcribe`.
        name (`str`): for tables.
    """

    def __init__(self, writer: Any, name: str = "recogniser"):
        self.writer, self.name = writer, name

    @property
    def fingerprint(self) -> str:
        beside = getattr(self.writer, "processor", self.writer)
        parts = {name: getattr(beside, name, None) for name in ("feature_extractor", "tokenizer")}
        settings = {key: one for key, one in self.writer.settings.items() if key not in ("asr_model", "asr_revision")}
        return fingerprint(self.writer.model, parts, {"kind": "transcripts", **settings})

    def transcribe(self, paths: Sequence[str | os.PathLike]) -> list[str]:
        """What is said in each sound."""
        texts, size = list[str](), self.writer.batch_size
        for start in range(0, len(paths), size):
            some = paths[start : start + size]
            texts += self.writer([load_audio(path, rate_hz=self.writer.sampling_rate).samples for path in some])
        return texts


class Letters:
    """A CTC head read greedily: of neighbouring frames with one letter one counts, and blanks are none.

    Args:
        model: gives `logits`, (B, T, V).
        feature_extractor: of it.
        tokenizer (*optional*): of the letters; SpeechLM's are known without one.
    """

    batch_size = 1

    def __init__(self, model: Any, feature_extractor: Any, tokenizer: Any = None, name: str = "letters"):
        self.model, self.feature_extractor, self.tokenizer = model.eval(), feature_extractor, tokenizer
        self.sampling_rate = feature_extractor.sampling_rate
        self.settings = {"asr_model": name, "decoding": "greedy letters"}
        self.blank = getattr(model.config, "ctc_blank_token_id", model.config.pad_token_id)

    def __call__(self, clips: Sequence[np.ndarray]) -> list[str]:
        return [self._write(clip) for clip in clips]

    @torch.inference_mode()
    def _write(self, clip: np.ndarray) -> str:
        inputs = self.feature_extractor([clip], sampling_rate=self.sampling_rate, return_tensors="pt")
        place = next(self.model.parameters()).device
        logits_BTV = self.model(**{name: value.to(place) for name, value in inputs.items()}).logits
        ids = torch.unique_consecutive(logits_BTV[0].argmax(-1))
        return self.spelled(ids[ids != self.blank].tolist())

    def spelled(self, ids: Sequence[int]) -> str:
        if self.tokenizer is not None:
            return self.tokenizer.decode(ids, skip_special_tokens=True, group_tokens=False).strip()
        from unibrivl.training.recipes.speechlm_data import LETTERS, NUM_SPECIAL

        kept = [one - NUM_SPECIAL for one in ids if 0 <= one - NUM_SPECIAL < len(LETTERS)]
        return " ".join("".join(LETTERS[one] for one in kept).replace("|", " ").split())


def load_captioner(name: str | os.PathLike, device: str | torch.device | None = None) -> Captioner:
    """The captioner in a folder or on the Hub."""
    from unibrivl.modeling import UniBriVLForAudioCaptioning, UniBriVLProcessor

    name = os.fspath(name)
    config = config_of(name)
    if CAPTIONER not in (config.architectures or ()):
        raise ValueError(f"{name} is {told(config)} and writes no captions: `unibrivl train --recipe captioner` does")
    model = UniBriVLForAudioCaptioning.from_pretrained(name)
    return Captioner(model.to(device), UniBriVLProcessor.from_pretrained(name), name)


def load_recogniser(name: str | os.PathLike, device: str | torch.device | None = None) -> Recogniser:
    """What transcribes, in a folder or on the Hub."""
    from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

    from unibrivl.embedder.loading import load
    from unibrivl.modeling import Transcriber

    name = os.fspath(name)
    config = config_of(name)
    if config.model_type == "brewclip":
        embedder = load(name)
        embedder.matcher.model.to(device)
        return Recogniser(embedder.matcher.transcriber, name)
    if config.model_type == "whisper":
        writer: Any = Transcriber.from_pretrained(name)
    elif any(one.endswith("ForCTC") for one in config.architectures or ()):
        tokenizer = None if config.model_type == "speechlm" else AutoTokenizer.from_pretrained(name)
        model = AutoModelForCTC.from_pretrained(name)
        writer = Letters(model, AutoFeatureExtractor.from_pretrained(name), tokenizer, name)
    else:
        raise ValueError(f"{name} is {told(config)} and transcribes nothing: name {RECOGNISERS}")
    writer.model.to(device)
    return Recogniser(writer, name)


def config_of(name: str) -> Any:
    from transformers import AutoConfig

    import unibrivl.modeling  # noqa: F401  (teaches the Auto classes ours)

    if name == "embedded":
        raise ValueError(
            "the embedded model hears and draws, and writes nothing: name a model that does, such as what `unibrivl "
            "train --recipe small_captioner` leaves"
        )
    return AutoConfig.from_pretrained(name)


def told(config: Any) -> str:
    return f"a {(config.architectures or [config.model_type])[0]}"
