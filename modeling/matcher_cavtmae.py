"""CAVT-MAE as a matcher: raw sounds, pictures and texts into its one space.

Shapes: B batch, E embedding.
"""

from typing import Any

import torch

from .clips_unibrivl import most_samples
from .matcher_unibrivl import MatcherBase, as_texts, normalize
from .pictures_unibrivl import as_pixel_values


class CAVTMAEMatcher(MatcherBase):
    """
    Args:
        model (`CAVTMAEModel`): all three towers.
        processor (`UniBriVLProcessor`): with the parts for what is to be encoded.
    """

    name = "CAVT-MAE"
    min_samples = 400  # one frame of the filterbank, 25 ms

    def __init__(self, model, processor):
        super().__init__(model)
        self.processor = processor
        extractor = processor.feature_extractor
        held = {"audio": extractor, "image": processor.image_processor, "text": processor.tokenizer}
        self.kinds = tuple(kind for kind, part in held.items() if part is not None)
        self.logit_scale = 1 / float(model.clamped_temperature().detach().float())
        if extractor is not None:
            self.sampling_rate = extractor.sampling_rate
            longest = most_samples(extractor)
            self.longest_s = None if longest is None else longest / extractor.sampling_rate
            # every clip is filled up to the same length, with neighbours or alone
            self.batch_by = "padding" if getattr(extractor, "default_padding", "") == "max_length" else "length"

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

    def encode_image(self, pictures, *, gradients: bool = False) -> torch.Tensor:
        if "image" not in self.kinds:
            raise self._cannot("image")
        pixels = as_pixel_values(pictures, self.processor.image_processor).to(self.device)
        with torch.set_grad_enabled(gradients):
            return normalize(self.model.get_image_features(pixels).pooler_output)

    def encode_text(self, texts, *, against: str = "audio", gradients: bool = False) -> torch.Tensor:
        if "text" not in self.kinds:
            raise self._cannot("text")
        batch = self._to_device(self.processor(text=as_texts(texts)))
        with torch.set_grad_enabled(gradients):
            found = self.model.get_text_features(batch["input_ids"], batch["text_attention_mask"])
            return normalize(found.pooler_output)


__all__ = ["CAVTMAEMatcher"]
