"""Supervised learning as an objective: the classes of a batch, told by a model's logits.

It trains what UniBriVL is compared with, and the small image tower that stays frozen beside it.

Shapes: B rows of this process, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.gather import Shares
from unibrivl.training.objectives.base import Objective


class SupervisedLoss(Objective):
    """Cross-entropy over the logits of any model that gives some: transformers' classifiers, our own head.

    Args:
        model: a classifier.
        label_smoothing (`float`): share of the target that is spread over all classes.

    Inputs: the model's own, and `label`, (B,) numbers of classes, or (B, C) shares of them, where examples are mixed.
    Terms: `classes`.
    """

    def __init__(self, model: nn.Module, label_smoothing: float = 0.0):  # OURS: none unless a recipe asks for it
        super().__init__(model)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is a share, from 0 to below 1; got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        label_B = batch.get("label")
        if label_B is None:
            raise ValueError("the batch has no label: supervised learning needs the number of a class for each row")
        # a head's own loss would be the mean of this process's rows, and is not asked for
        inputs = {name: value for name, value in batch.items() if name not in ("label", "sample_id")}
        logits_BC = model(**inputs).logits.float()
        losses_B = nn.functional.cross_entropy(
            logits_BC, label_B.to(logits_BC.device), reduction="none", label_smoothing=self.label_smoothing
        )
        return {"classes": Shares.of(logits_BC).mean(losses_B)}
