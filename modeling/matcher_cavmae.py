"""CAV-MAE as a matcher: the means of its audio and of its image tokens, as its own retrieval compares them.

Shapes: B batch, E embedding.
"""

import torch

from .matcher_unibrivl import MatcherBase, normalize
from .pictures_unibrivl import as_pixel_values


class CAVMAEMatcher(MatcherBase):
    """
    Args:
        model (`CAVMAEModel`): after pre-training with the contrastive loss.
        processor (`UniBriVLProcessor`): with its feature extractor and its image processor.
    """

    name = "CAV-MAE"
    kinds = ("audio", "image")
    batch_by = "padding"  # every clip is filled up to the same length
    min_samples = 400  # one frame of the filterbank, 25 ms

    def __init__(self, model, processor):
        super().__init__(model)
        self.processor = processor
        self.logit_scale = 1 / model.config.contrastive_temperature
        self.sampling_rate = processor.feature_extractor.sampling_rate
        if getattr(processor.feature_extractor, "default_padding", "") != "max_length":
            self.batch_by = "length"

    def encode_audio(self, clips, *, gradients: bool = False) -> torch.Tensor:
        batch = self._to_device(self.processor(audio=self._clips(clips), sampling_rate=self.sampling_rate))
        with torch.set_grad_enabled(gradients):
            return normalize(self.model.get_audio_features(batch["input_values"]).pooler_output)

    def encode_image(self, pictures, *, gradients: bool = False) -> torch.Tensor:
        pixels = as_pixel_values(pictures, self.processor.image_processor).to(self.device)
        with torch.set_grad_enabled(gradients):
            return normalize(self.model.get_image_features(pixels).pooler_output)


__all__ = ["CAVMAEMatcher"]
