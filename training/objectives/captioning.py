"""Captioning as an objective: how likely a language model finds each word of a caption, after what was heard.

Shapes: B rows of this process, N tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.gather import num_processes, sum_over_processes
from unibrivl.training.objectives.base import Objective, run


class CaptioningLoss(Objective):
    """Cross-entropy of the captions' tokens, each of which counts the same over all processes.

    Inputs: the sounds of a `UniBriVLForAudioCaptioning`, or its `stretches`, and `labels`, (B, N), padded with -100.
    Terms: `words`. On one process it is the model's own loss.
    """

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        labels_BN = batch.get("labels")
        if labels_BN is None:
            raise ValueError("the batch has no labels: captioning needs the tokens of a caption for each sound")
        logits_BNV = run(model, batch).logits
        total = nn.functional.cross_entropy(logits_BNV.flatten(0, 1).float(), labels_BN.flatten(), reduction="sum")
        return {"words": total * num_processes() / sum_over_processes((labels_BN >= 0).sum())}
