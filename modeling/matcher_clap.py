"""CLAP as a matcher: sounds and texts in one space, no pictures.

Shapes: B batch, E embedding.
"""

import torch

from .clips_unibrivl import most_samples
from .matcher_unibrivl import MatcherBase, as_texts, normalize
from .processing_unibrivl import UniBriVLProcessor


class CLAPMatcher(MatcherBase):
    """
    Args:
        model (`ClapModel`): of transformers.
        processor: with CLAP's feature extractor and its tokenizer. Clips that are longer than the extractor hears are
            refused, for it would draw a part of them by chance.
    """

    name = "CLAP"
    kinds = ("audio", "text")
    batch_by = "padding"  # the extractor brings every clip to one length

    def __init__(self, model, processor):
        super().__init__(model)
        self.processor = UniBriVLProcessor(
            feature_extractor=processor.feature_extractor, tokenizer=processor.tokenizer
        )
        extractor = processor.feature_extractor
        self.sampling_rate = extractor.sampling_rate
        longest = most_samples(extractor)
        self.longest_s = None if longest is None else longest / extractor.sampling_rate
        self.logit_scale = float(model.logit_scale_a.detach().float().exp())

    def encode_audio(self, clips, *, gradients: bool = False) -> torch.Tensor:
        batch = self.processor(audio=self._clips(clips), sampling_rate=self.sampling_rate, return_tensors="pt")
        with torch.set_grad_enabled(gradients):
            return normalize(self.model.get_audio_features(**self._to_device(batch)).pooler_output)

    def encode_text(self, texts, *, against: str = "audio", gradients: bool = False) -> torch.Tensor:
        batch = self._to_device(self.processor.tokenizer(as_texts(texts), padding=True, truncation=True,
                                                         return_tensors="pt"))  # fmt: skip
        with torch.set_grad_enabled(gradients):
            return normalize(self.model.get_text_features(**batch).pooler_output)


__all__ = ["CLAPMatcher"]
