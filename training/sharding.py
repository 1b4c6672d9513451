"""Tensors by name, whole, on the CPU: the one form in which states are saved, whether a process holds all or a shard.

One process and DDP hold every tensor whole. FSDP (version 2) holds shards, as `DTensor`: `whole` gathers them, and
`placed` cuts a whole tensor as another one is cut. Every process has to call these, in the same order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)


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


def check_sharding(accelerator: Any, model: nn.Module) -> None:
    """What FSDP was asked for and cannot do, before it is tried."""
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked and accelerator.distributed_type != "FSDP":
        logger.warning(
            "FSDP was asked for, and Accelerate shards on GPUs only: %s holds the whole model",
            "this one process" if accelerator.num_processes == 1 else "each process",
        )
    if accelerator.distributed_type != "FSDP":
        return
    if not accelerator.is_fsdp2:
        raise ValueError("this loop trains with the second version of FSDP: accelerate launch --fsdp_version 2")
    from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

    plugin = accelerator.state.fsdp_plugin
    policy = getattr(plugin.auto_wrap_policy, "func", plugin.auto_wrap_policy)
    if policy is size_based_auto_wrap_policy:
        check_lists(model, plugin.min_num_params or 0)


def check_lists(model: nn.Module, smallest: int) -> None:
    """FSDP shards what has a forward pass. A list of layers has none, and SIZE_BASED_WRAP takes it all the same."""
    sizes = {
        name: sum(weight.numel() for weight in module.parameters())
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.ModuleDict))
    }
    largest = max(sizes, key=sizes.__getitem__, default=None)
    if largest is not None and sizes[largest] > smallest:
        raise ValueError(
            f"SIZE_BASED_WRAP would shard the list {largest!r} of {sizes[largest]:,} parameters, which FSDP cannot: "
            "accelerate launch with --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP, which shards this model's layers, "
            f"or with --fsdp_min_num_params {sizes[largest]}"
        )


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
        # the count of steps is a scalar and stays whole: on the CPU, or beside the weight where one kernel does it all
        beside = weight.device if optimizer.defaults.get("fused") else torch.device("cpu")
        optimizer.state[weight] = {
            key: placed(value, weight) if value.shape == weight.shape and value.dim() else value.to(beside, copy=True)
            for key, value in moments.items()
        }
