"""A Whisper that writes down what is said, as BrewCLIP's channel of words and `unibrivl transcribe` ask it.

Greedy, in batches, without timestamps; a sound longer than its window goes through Whisper's own sequential way of
long sounds, one at a time. Where next to nothing can be heard nothing was said: Whisper makes sentences up of silence.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor, WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperEncoder

SILENCE_DBFS = -60.0  # root mean square, of full scale


class Transcriber:
    """
    Args:
        model (`WhisperForConditionalGeneration`): frozen.
        processor: of it, with `feature_extractor` and `tokenizer`.
        name, revision (*optional*): where it comes from; they are recorded with what it writes.
        language (`str`): of what is said; models for English alone know no other.
        batch_size (`int`): sounds at a time.
        silence_dbfs (`float`): what is quieter is not listened to, and `""` is written.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str | None = None,
        revision: str | None = None,
        language: str = "en",
        batch_size: int = 8,
        silence_dbfs: float = SILENCE_DBFS,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1, got {batch_size}")
        self.model, self.processor = model.eval(), processor
        self.name = name or model.name_or_path or type(model).__name__
        self.revision = revision or getattr(model.config, "_commit_hash", None)
        self.language, self.batch_size, self.silence_dbfs = language, batch_size, silence_dbfs
        self.sampling_rate = processor.feature_extractor.sampling_rate

    @classmethod
    def from_pretrained(cls, name: str, *, encoder: WhisperEncoder | None = None, **kwargs) -> "Transcriber":
        """
        Args:
            name: name or folder of a Whisper.
            encoder (*optional*): the same Whisper's, which is here already and is used instead of a second one.
            kwargs: `language`, `batch_size`, `silence_dbfs`; others for `from_pretrained`: revision, dtype, token, ...
        """
        own = {one: kwargs.pop(one) for one in ("language", "batch_size", "silence_dbfs") if one in kwargs}
        model = WhisperForConditionalGeneration.from_pretrained(name, **kwargs)
        kwargs.pop("dtype", None)
        processor = AutoProcessor.from_pretrained(name, **kwargs)
        if encoder is not None:
            model.model.encoder = encoder
            model.to(device=encoder.device, dtype=encoder.dtype)
        return cls(model, processor, name=name, revision=kwargs.get("revision"), **own)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what is written, beside the sound."""
        return {
            "asr_model": self.name,
            "asr_revision": self.revision,
            "language": self.language if self._is_multilingual else "en",
            "task": "transcribe",
            "decoding": "greedy",
            "silence_dbfs": self.silence_dbfs,
        }

    @property
    def _is_multilingual(self) -> bool:
        return bool(getattr(self.model.generation_config, "is_multilingual", False))

    def __call__(self, clips: Sequence[np.ndarray]) -> list[str]:
        """What is said in each clip, of samples at `sampling_rate`; `""` where nothing is."""
        texts = [""] * len(clips)
        heard = [place for place, clip in enumerate(clips) if loudness(clip) >= self.silence_dbfs]
        longest = self.processor.feature_extractor.n_samples
        short = [place for place in heard if len(clips[place]) <= longest]
        for start in range(0, len(short), self.batch_size):
            places = short[start : start + self.batch_size]
            for place, text in zip(places, self._write([clips[one] for one in places]), strict=True):
                texts[place] = text
        for place in set(heard) - set(short):
            [texts[place]] = self._write([clips[place]], is_long=True)
        return texts

    @torch.inference_mode()
    def _write(self, clips: list[np.ndarray], is_long: bool = False) -> list[str]:
        fields: dict[str, Any] = {"truncation": False, "padding": "longest"} if is_long else {}
        batch = self.processor.feature_extractor(
            clips, sampling_rate=self.sampling_rate, return_tensors="pt", return_attention_mask=True, **fields
        )
        inputs = batch.to(self.model.device)
        said: dict[str, Any] = {"language": self.language, "task": "transcribe"} if self._is_multilingual else {}
        ids = self.model.generate(
            inputs.input_features.to(self.model.dtype),
            attention_mask=inputs.attention_mask,
            return_timestamps=is_long,
            num_beams=1,
            do_sample=False,
            **said,
        )
        return [text.strip() for text in self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def loudness(clip: np.ndarray) -> float:
    """Root mean square in dB of full scale."""
    power = float(np.mean(np.square(np.asarray(clip, dtype=np.float64)))) if len(clip) else 0.0
    return 10 * np.log10(power) if power > 0 else float("-inf")


__all__ = ["SILENCE_DBFS", "Transcriber", "loudness"]
