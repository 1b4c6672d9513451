"""SpeechLM's pre-training as an objective: the terms of the model's own loss, for each masked frame.

The model adds up over masked frames; here the sum is divided by how many there are on all processes, as the original's
optimizer does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.gather import num_processes, sum_over_processes
from unibrivl.training.momentum import bare
from unibrivl.training.objectives.base import Objective, run


class SpeechLMLoss(Objective):
    """The terms of `SpeechLMForPreTraining`, each divided by the number of masked frames (text alone: of units).

    Inputs: `input_values` with `unit_labels`, `input_ids` with `letter_labels`, or both kinds.
    Terms: `units` (both heads), `feature_penalty`, `letters`: those of the inputs that are there. They add up to the
        model's own loss over the number of masked frames. In evaluation nothing is masked, and `units` is 0, unless
        the batch has `mask_time_indices`.
    """

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        output = run(model, batch)
        if output.loss is None:
            raise ValueError("nothing to learn from: input_values needs unit_labels, input_ids needs letter_labels")
        config = bare(model).config
        sums = {}
        heard = output.num_masked is not None
        if heard:
            count = output.num_masked
            sums["units"] = output.unit_loss
            sums["feature_penalty"] = config.feature_penalty_weight * output.feature_penalty * count
        if output.ctc_loss is not None:
            num_units = (batch["input_ids"] != config.pad_token_id).sum()
            letters = config.text_ctc_weight * output.ctc_loss
            sums["letters"] = letters * count / num_units if heard else letters
        if not heard:
            count = num_units
        scale = num_processes() / sum_over_processes(count).clamp(min=1)
        return {name: value * scale for name, value in sums.items()}
