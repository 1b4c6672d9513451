"""Tensors by name, whole, on the CPU: the one form in which states are saved, whether a process holds all or a shard.

One process and DDP hold every tensor whole. FSDP (version 2) holds shards, as `DTensor`: `whole` gathers them, and
`placed` cuts a whole tensor as another one is cut. Every process has to call these, in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of all of it on the CPU."""
    full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.detach().to("cpu", copy=True)


def placed(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor on the device of `like`, and cut as `like` is cut; its own dtype."""
    if not hasattr(like, "device_mesh"):
        return tensor.to(like.device, copy=True)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def named_trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def model_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: whole(tensor) for name, tensor in model.state_dict().items()}


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    """Parameter's name -> its moments and its count of steps. What never had a gradient has none."""
    return {
        name: {key: whole(value) for key, value in optimizer.state[weight].items()}
        for name, weight in named_trained(model).items()
        if weight in optimizer.state
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, state: Mapping[str, Mapping[str, torch.Tensor]]
) -> None:
    trained = named_trained(model)
    strangers = sorted(state.keys() - trained.keys())
    if strangers:
        raise ValueError(
            f"the checkpoint's optimiser knows {strangers[0]!r} and {len(strangers) - 1} more that do not train in "
            "this model: resume with the configuration the run began with"
        )
    for name, moments in state.items():
        weight = trained[name]
        # the count of steps is a scalar and stays whole, and where torch keeps it: on the CPU
        optimizer.state[weight] = {
            key: placed(value, weight) if value.shape == weight.shape and value.dim() else value.clone()
            for key, value in moments.items()
        }
