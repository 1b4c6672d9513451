"""BrewCLIP's processor: spoken sounds, their transcripts, and pictures, each optional, to one batch for the model.

Transcripts are never cut here, since how many words fit is the model's to say, and may be empty: of a sound in which
nothing is said. Sounds longer than the extractor hears become windows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .clips_unibrivl import as_clips, check_rate, clip_samples, most_samples
from .processing_unibrivl import UniBriVLProcessor


class BrewCLIPProcessor(UniBriVLProcessor):
    """
    Args:
        feature_extractor (*optional*): of the audio encoder.
        image_processor, tokenizer (*optional*): of CLIP.
        long_audio (`str`): `"window"`: a sound that is longer than the extractor hears is heard in windows, one behind
            the other; `"truncate"`: its beginning is.
    """

    def __init__(
        self,
        feature_extractor=None,
        image_processor=None,
        tokenizer=None,
        unit_tokenizer=None,
        text_padding: bool | str = True,
        text_max_length: int | None = None,
        long_audio: str = "window",
    ):
        if long_audio not in ("window", "truncate"):
            raise ValueError(f"long_audio must be 'window' or 'truncate', got {long_audio!r}")
        super().__init__(feature_extractor, image_processor, tokenizer, unit_tokenizer, text_padding, text_max_length)
        self.long_audio = long_audio

    @classmethod
    def from_pretrained_parts(
        cls,
        audio: str,
        clip: str,
        *,
        audio_kwargs: dict | None = None,
        clip_kwargs: dict | None = None,
        **fields,
    ) -> "BrewCLIPProcessor":
        """The parts that belong to the towers of `BrewCLIPModel.from_pretrained_parts`.

        Args:
            audio, clip: name or folder of each.
            audio_kwargs, clip_kwargs (*optional*): for each `from_pretrained`: revision, cache_dir, ...
            fields: of the processor, such as `long_audio="truncate"`.
        """
        both = UniBriVLProcessor.from_pretrained_towers(
            audio, clip, audio_kwargs=audio_kwargs, image_kwargs=clip_kwargs
        )
        return cls(both.feature_extractor, both.image_processor, both.tokenizer, **fields)

    def __call__(  # type: ignore[override]
        self,
        audio=None,
        images=None,
        text: str | list[str] | None = None,
        *,
        summarize: Callable[[str], str] | None = None,
        **kwargs,
    ):
        """
        Args:
            audio, images (*optional*): see `UniBriVLProcessor`.
            text (*optional*): transcripts, one or a list; `""` where nothing was said.
            summarize (*optional*): called with each transcript that the tokenizer's own limit would cut, before it
                becomes tokens.
            kwargs: for the parts; see `UniBriVLProcessor`.

        Returns:
            with `audio_rows` (N,) where a sound has several windows: the sound that each window is of.
        """
        if summarize is not None and text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            text = [summarize(one) if self._is_long(one) else one for one in texts]
        return super().__call__(audio, images, text, **kwargs)

    def _is_long(self, text: str) -> bool:
        tokenizer = self._need("text")
        return len(tokenizer(text, truncation=False, verbose=False).input_ids) > tokenizer.model_max_length

    def _process_audio(self, audio, kwargs: dict[str, Any]) -> dict[str, Any]:
        extractor = self._need("audio")
        clips = as_clips(audio)
        check_rate(clips, kwargs.pop("sampling_rate", None), extractor.sampling_rate)
        samples = [clip_samples(clip, index) for index, clip in enumerate(clips)]
        windows, rows = self._windows(samples, most_samples(extractor))
        batch = super()._process_audio(windows, {**kwargs, "sampling_rate": extractor.sampling_rate})
        if len(windows) == len(samples):
            return batch
        return {**batch, "audio_rows": np.array(rows) if kwargs.get("return_tensors") == "np" else torch.tensor(rows)}

    def _windows(self, samples: list[np.ndarray], longest: int | None) -> tuple[list[np.ndarray], list[int]]:
        """Windows of all sounds, and the number of the sound that each is of."""
        if longest is None:
            return samples, list(range(len(samples)))
        windows, rows = [], []
        for row, one in enumerate(samples):
            stops = range(0, len(one), longest) if self.long_audio == "window" else range(1)
            windows += [one[start : start + longest] for start in stops]
            rows += [row] * len(stops)
        return windows, rows

    def _process_text(self, text, kwargs: dict[str, Any]) -> dict[str, Any]:
        texts = [text] if isinstance(text, str) else list(text)
        if not texts or not all(isinstance(one, str) for one in texts):
            raise ValueError('text must be a transcript or a list of them; "" where nothing was said')
        own = {"padding": self.text_padding, "truncation": False, "verbose": False}
        tokens = self._need("text")(texts, return_attention_mask=True, **(own | kwargs))
        return {"input_ids": tokens["input_ids"], "text_attention_mask": tokens["attention_mask"]}


__all__ = ["BrewCLIPProcessor"]
