"""CAVT-MAE as a matcher: raw sounds, pictures and texts into its one space.

Shapes: B batch, E embedding.
"""

from typing import Any

import torch

from .matcher_unibrivl import OneSpaceMatcher, as_texts, normalize


class CAVTMAEMatcher(OneSpaceMatcher):
    """
    Args:
        model (`CAVTMAEModel`): all three towers.
        processor (`UniBriVLProcessor`): with the parts for what is to be encoded.
    """

    name = "CAVT-MAE"
    min_samples = 400  # one frame of the filterbank, 25 ms

    def __init__(self, model, processor):
        super().__init__(model, processor)
        if processor.feature_extractor is not None:
            # every clip is filled up to the same length, with neighbours or alone
            self.batch_by = (
                "padding" if getattr(processor.feature_extractor, "default_padding", "") == "max_length" else "length"
            )

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "text_feature": self.model.config.text_feature,
            "text_padding": self.processor.text_padding,
            "text_max_length": self.processor.text_max_length,
        }

    def encode_audio(self, clips, *, gradients: bool = False) -> torch.Tensor:
        if "audio" not in self.kinds:
            raise self._cannot("audio")
        batch = self._to_device(self.processor(audio=self._clips(clips), sampling_rate=self.sampling_rate))
        with torch.set_grad_enabled(gradients):
            return normalize(self.model.get_audio_features(**batch).pooler_output)

    def encode_text(self, texts, *, against: str = "audio", gradients: bool = False) -> torch.Tensor:
        if "text" not in self.kinds:
            raise self._cannot("text")
        batch = self._to_device(self.processor(text=as_texts(texts)))
        with torch.set_grad_enabled(gradients):
            found = self.model.get_text_features(batch["input_ids"], batch["text_attention_mask"])
            return normalize(found.pooler_output)


__all__ = ["CAVTMAEMatcher"]
