"""What a run will hold in memory before a single example is seen: the sum behind `unibrivl train --dry-run`.

Counted are the tensors that live as long as the run: weights, gradients, AdamW's two moments, the average of the
weights, what the objective keeps. Activations depend on the length of the clips and on gradient checkpointing and are
not among them; they come on top.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Estimate:
    """Numbers of parameters, and bytes in one process that holds everything whole."""

    parameters: int
    trained: int
    weights: int
    gradients: int
    moments: int
    average: int
    objective: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.average + self.objective


def estimate(model: nn.Module, objective: Any = None, averaged: bool = False) -> Estimate:
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    bytes_of_trained = size(trained)
    return Estimate(
        parameters=sum(weight.numel() for weight in model.parameters()),
        trained=sum(weight.numel() for weight in trained),
        weights=size([*model.parameters(), *model.buffers()]),
        gradients=bytes_of_trained,
        moments=2 * bytes_of_trained,
        average=sum(4 * weight.numel() for weight in trained) if averaged else 0,
        objective=size(tensors_in(objective.state_dict())) if objective is not None else 0,
    )


def size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def tensors_in(state: Any) -> list[torch.Tensor]:
    """Every tensor of a nested state."""
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [tensor for value in values for tensor in tensors_in(value)]
