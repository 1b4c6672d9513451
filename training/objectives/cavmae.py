"""CAV-MAE's pre-training as an objective: hidden patches are rebuilt, and sounds and pictures look for each other.

Shapes: B rows of this process, E width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.objectives.base import Objective, embedding
from unibrivl.training.objectives.distillation import contrast
from unibrivl.training.objectives.rows import Rows


class CAVMAELoss(Objective):
    """The model's own reconstruction, and contrast over all processes in both directions, which knows labels.

    The model's own contrast takes every other sound of the batch for a wrong one. Where pairs are made by label, or
    several of a batch are of one label, those are right too.

    Args:
        model: a `CAVMAEForPreTraining`.
        contrast_weight (`float`, *optional*): the model's own by default.
        temperature (`float`, *optional*): the model's own by default.

    Inputs: `input_values`, `pixel_values`; `label` and `sample_id`, if there are some.
    Terms: `rebuilt`, `audio_image`.
    """

    def __init__(self, model: nn.Module, contrast_weight: float | None = None, temperature: float | None = None):
        super().__init__(model)
        own: Any = self.config
        self.contrast_weight = own.contrastive_loss_weight if contrast_weight is None else contrast_weight
        self.temperature = own.contrastive_temperature if temperature is None else temperature

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        output = model(input_values=batch["input_values"], pixel_values=batch["pixel_values"], return_dict=True)
        sounds_BE, pictures_BE = embedding(output, "audio_embeds"), embedding(output, "image_embeds")
        rows = Rows(sounds_BE, batch.get("sample_id"), batch.get("label"))
        return {
            "rebuilt": output.reconstruction_loss,
            "audio_image": self.contrast_weight * contrast(sounds_BE, pictures_BE, rows, self.temperature),
        }
