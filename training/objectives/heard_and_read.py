"""Sounds against pictures, and words against the same pictures: the language tower hears and reads.

Shapes: B rows of this process, R texts of it, T units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.objectives.base import Objective
from unibrivl.training.objectives.in_batch import InBatchLoss

TEXTS = (("image_embeds", "text_embeds"),)
READ = ("unit_ids", "unit_attention_mask", "text_rows")
OF_ROWS = ("image_embeds", "sample_id", "label")  # what a text takes over from its row


class HeardAndRead(Objective):
    """The terms of an objective for the sounds of a batch, and contrast in the shared space of its texts with the
    pictures of their rows.

    Args:
        hearing: an objective for sounds and pictures, of the same model.
        temperature (`float`, *optional*): for the texts; the model's own by default.

    Inputs: those of `hearing`, with cached `image_embeds`; `unit_ids`, `unit_attention_mask` (R, T), and `text_rows`
        (R,), the row of the batch that each text belongs to.
    Terms: those of `hearing`, `image_to_text`, `text_to_image`.
    """

    def __init__(self, model: nn.Module, hearing: Objective, temperature: float | None = None):
        super().__init__(model)
        self.hearing, self.reading = hearing, InBatchLoss(model, TEXTS, temperature)

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        if batch.get("text_rows") is None or batch.get("image_embeds") is None:
            raise ValueError("texts need cached image_embeds, unit_ids, and text_rows, the row that each belongs to")
        heard = self.hearing(model, {name: value for name, value in batch.items() if name not in READ})
        texts = {name: batch[name][batch["text_rows"]] for name in OF_ROWS if name in batch}
        texts |= {name: batch[name] for name in READ[:2]}
        return {**heard, **self.reading(model, texts)}

    def before_step(self, model: nn.Module, step: int) -> None:
        self.hearing.before_step(model, step)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.hearing.state_dict()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        self.hearing.load_state_dict(state)
