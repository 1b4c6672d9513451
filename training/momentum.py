"""A slow copy of a model: each weight that trains is followed by its moving average, all else is the model's own.

The copy is a second set of modules around the same frozen weights and buffers, in eval mode for good: no dropout, no
LayerDrop, no masking. What a LoRA adds to memory is thus two small adapters and not two models.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def inside_wrappers(model: nn.Module) -> nn.Module:
    """The model that DDP and torch.compile stand around; PEFT's own model stays."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):  # torch.compile
            model = model._orig_mod
        else:
            return model


def bare(model: nn.Module) -> nn.Module:
    """The model itself: inside DDP, torch.compile and PEFT."""
    model = inside_wrappers(model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class MomentumCopy:
    """
    Args:
        model: the model to follow, before DDP or FSDP wraps it. What of it trains must be settled: weights that are
            thawed later are shared and not averaged.
        momentum (`float`): share of the average that each update keeps.
        parts: names of the submodules to average where they train; the rest is shared. All of them by default.
    """

    def __init__(self, model: nn.Module, momentum: float, parts: tuple[str, ...] | None = None):
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum is a share, from 0 to 1; got {momentum}")
        live = bare(model)
        self.momentum = momentum
        averaged = {
            name: weight
            for name, weight in live.named_parameters()
            if weight.requires_grad and (parts is None or name.startswith(tuple(f"{part}." for part in parts)))
        }
        narrow = sorted({str(weight.dtype) for weight in averaged.values() if weight.dtype.itemsize < 4})
        if narrow:
            raise ValueError(
                f"weights that train are {', '.join(narrow)}, too coarse for a moving average: keep them in float32 "
                "(model.float()) and train under autocast"
            )
        own = {id(weight) for weight in averaged.values()}
        shared = {id(tensor): tensor for tensor in (*live.parameters(), *live.buffers()) if id(tensor) not in own}
        self.model = copy.deepcopy(live, shared).eval()
        weights = dict(self.model.named_parameters())
        self.averages = {name: weights[name].requires_grad_(False) for name in averaged}
        self.device = next(live.parameters()).device

    def on(self, device: torch.device) -> nn.Module:
        """The copy, on the device that the model has been moved to meanwhile."""
        if self.device != device:  # quantised models refuse to be moved, even to where they are
            self.model.to(device)
            self.device = device
        return self.model

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """One step of each average towards its weight."""
        live = bare(model)
        self.on(next(live.parameters()).device)
        weights = dict(live.named_parameters())
        missing = sorted(set(self.averages) - set(weights))
        if missing:
            raise ValueError(
                f"{len(missing)} averaged weights are not in the model, {missing[0]} first: build the objective from "
                "the model that trains, with its adapters, before it is wrapped"
            )
        for name, average in self.averages.items():
            weight = weights[name].detach()
            if hasattr(weight, "full_tensor"):  # FSDP: each process holds a part of it
                weight = weight.full_tensor()
            average.lerp_(weight.to(average.dtype), 1 - self.momentum)
        mine = dict(self.model.named_modules())
        for path, module in live.named_modules():
            if path in mine:  # moving a model to a device gives it other buffers
                mine[path]._buffers.update(module._buffers)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: average.detach().clone() for name, average in self.averages.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        unlike = sorted(set(state) ^ set(self.averages))
        unlike += [name for name in set(state) & set(self.averages) if state[name].shape != self.averages[name].shape]
        if unlike:
            raise ValueError(
                f"{len(unlike)} averaged weights differ from the saved ones, {unlike[0]} first: resume with the "
                "model, the frozen parts and the adapters that the state was saved with"
            )
        for name, average in self.averages.items():
            average.copy_(state[name])
