"""An average of the weights that is evaluated and exported in their place: `average += (1 - momentum) * difference`.

It runs over what trains, in float32, and starts as the weights themselves. Buffers (the statistics of batch norms) are
taken as they are. The momentum copies that an objective compares with are another thing, and are the objective's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from unibrivl.training.sharding import named_trained, placed, whole


class AverageWeights:
    """
    Args:
        model: its trained parameters are averaged.
        momentum (`float`): the part of the average that stays at each step.
    """

    def __init__(self, model: nn.Module, momentum: float):
        self.momentum = momentum
        self.weights = named_trained(model)
        self.averages = {name: weight.detach().float().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Once after each optimiser step."""
        averages = list(self.averages.values())
        weights = [weight.detach().float() for weight in self.weights.values()]
        torch._foreach_lerp_(averages, weights, 1 - self.momentum)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While this lasts the model computes with the averages."""
        kept = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.write()
        try:
            yield
        finally:
            self.write(kept)

    @torch.no_grad()
    def write(self, values: Mapping[str, torch.Tensor] | None = None) -> None:
        """Into the model, for good: these values, by default the averages."""
        values = self.averages if values is None else values
        for name, weight in self.weights.items():
            weight.copy_(values[name])

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: whole(average) for name, average in self.averages.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        if state.keys() != self.averages.keys():
            raise ValueError(
                "the checkpoint averages other weights than train now: resume with the same configuration"
            )
        self.averages = {name: placed(state[name], weight) for name, weight in self.weights.items()}
