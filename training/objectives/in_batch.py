"""Contrast within the batch: every embedding picks its partner among those of the batch, in both directions.

Shapes: B rows of this process, G rows of all processes, E width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.objectives.base import Objective, embedding, run
from unibrivl.training.objectives.nce import TEMPERATURE, info_nce
from unibrivl.training.objectives.rows import Rows

# both spaces of UniBriVL; of BriVL (("image_embeds", "text_embeds"),)
PAIRS = (("image_embeds", "audio_embeds"), ("native_image_embeds", "native_audio_embeds"))


class InBatchLoss(Objective):
    """The sum, over pairs and directions, of InfoNCE among the whole batch; keys have a gradient, on all processes.

    Args:
        pairs: fields of the model's output that belong together.
        temperature (`float`, *optional*): the model's own by default, or 0.07.
        use_labels (`bool`): rows that share a `label` are positives of each other, to equal parts. Batches without
            labels have one positive a row.

    Inputs: what the model needs for the pairs, `sample_id` (rows of one sample do not repel each other) and `label`.
    Terms: `image_to_audio`, `audio_to_image`, `native_image_to_native_audio`, `native_audio_to_native_image`.
    Recommendations: needs a large batch; `CXLoss` remembers earlier ones instead.
    """

    def __init__(
        self,
        model: nn.Module,
        pairs: tuple[tuple[str, str], ...] = PAIRS,
        temperature: float | None = None,
        use_labels: bool = True,
    ):
        super().__init__(model)
        if temperature is None:
            temperature = getattr(self.config, "temperature", TEMPERATURE)
        self.pairs, self.temperature, self.use_labels = pairs, temperature, use_labels

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        output = run(model, batch)
        pairs = [(embedding(output, left), embedding(output, right)) for left, right in self.pairs]
        rows = Rows(pairs[0][0], batch.get("sample_id"), batch.get("label") if self.use_labels else None)
        found = {}
        for (left, right), (left_BE, right_BE) in zip(self.pairs, pairs, strict=True):
            left_GE, right_GE = rows.shares.gather(left_BE), rows.shares.gather(right_BE)
            first, second = left.removesuffix("_embeds"), right.removesuffix("_embeds")
            for name, queries_BE, keys_GE in (
                (f"{first}_to_{second}", left_BE, right_GE),
                (f"{second}_to_{first}", right_BE, left_GE),
            ):
                losses_B = info_nce(queries_BE, keys_GE, rows.positives_BG, self.temperature, rows.hidden_BG)
                found[name] = rows.shares.mean(losses_B)
        return found
