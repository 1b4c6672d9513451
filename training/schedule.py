"""The learning rate of a step, and which weights decay: pure functions of the configuration and the model."""

from __future__ import annotations

import math

from torch import nn

from unibrivl.training.config import RunConfig


def learning_rate(step: int, config: RunConfig) -> float:
    """Of step 0 up to `config.steps` - 1: a straight line to the peak, then half a cosine towards the final share.

    The share itself would be reached one step after the last: no step is made with a rate of nothing.
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    share = 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * (config.final_share + (1 - config.final_share) * share)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """What trains, in two groups: matrices and kernels decay; biases, norms and other vectors do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("nothing in this model trains: every parameter has requires_grad=False")
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
