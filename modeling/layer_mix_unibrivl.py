"""The learned average over a tower's layers, summed up while the layers run: they are never stacked.

Hooks on the layers hand their outputs to the mix of the thread's current forward pass. Without gradients one running
sum is all that is kept. Outputs that gradients go through are held by reference, which costs nothing: autograd keeps
them for the backward pass anyway. Whoever wants the outputs themselves, to mix them later, lets `KeptLayers` take
them.

Shapes: B batch, T frames, D hidden, L layers.
"""

import threading
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

_current = threading.local()  # one mix per thread; torch.compile traces this and not ContextVar


def _offer(index: int, module, inputs, output) -> None:
    mix = getattr(_current, "mix", None)
    if mix is None:
        return
    if mix.gradients and not torch.is_grad_enabled() and getattr(module, "gradient_checkpointing", False):
        raise ValueError(
            "re-entrant checkpointing hides from the layer mix what the layers do. Use transformers' default, "
            "gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})"
        )
    mix.take(index, inputs[0], output[0] if isinstance(output, tuple) else output)


def watch(layers: list[nn.Module]) -> None:
    """Let the layers offer their outputs to the current mix. Layers of a tower that is used again already do."""
    for index, layer in enumerate(layers):
        if not any(getattr(hook, "func", None) is _offer for hook in layer._forward_hooks.values()):
            layer.register_forward_hook(partial(_offer, index))


@contextmanager
def mixing(mix):
    """Make `mix` the one that layers offer to."""
    outer = getattr(_current, "mix", None)
    _current.mix = mix
    try:
        yield
    finally:
        _current.mix = outer


class UniBriVLLayerMix(nn.Module):
    """One scalar per layer; softmax gives the weights. At the start all layers count the same."""

    def __init__(self, num_layers: int, normalize: bool):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_layers))
        self.normalize = normalize

    def begin(self, first_layer: int = 0) -> "RunningMix":
        """The mix of one pass through the layers from `first_layer` on: text runs through the last ones only."""
        dtype = torch.promote_types(self.logits.dtype, torch.float32)
        return RunningMix(self.logits[first_layer:].softmax(0, dtype=dtype), first_layer, self.normalize)

    def of(self, states_BTW: torch.Tensor) -> torch.Tensor:
        """The average (B, T, D) of all layers' states, W = L D numbers a frame, in float32 or wider."""
        mix = self.begin()
        for states_BTD in states_BTW.unflatten(2, (len(self.logits), -1)).unbind(2):
            mix.add(states_BTD)
        return mix.sum()


class KeptLayers:
    """The layers' outputs of one forward pass, each (B, T, D), instead of their average. For towers in eval mode:
    LayerDrop would leave gaps."""

    gradients = False

    def __init__(self) -> None:
        self.states: list[torch.Tensor] = []

    def take(self, index: int, states_in_BTD: torch.Tensor, states_out_BTD: torch.Tensor) -> None:
        self.states.append(states_out_BTD)


class RunningMix:
    """The weighted sum of one forward pass, layer by layer, in float32 or wider."""

    def __init__(self, weights_L: torch.Tensor, first_layer: int, normalize: bool):
        self.weights_L = weights_L
        self.first_layer = first_layer
        self.normalize = normalize
        self.gradients = torch.is_grad_enabled()
        self.taken = 0
        self.last: torch.Tensor | None = None
        self.total: torch.Tensor | None = None
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []  # weight and states that gradients go through

    def take(self, index: int, states_in_BTD: torch.Tensor, states_out_BTD: torch.Tensor) -> None:
        """The output of layer `index`. Layers that LayerDrop left out passed on what they were given."""
        before = states_in_BTD if self.last is None else self.last
        while self.taken < index - self.first_layer:
            self.add(before)
        self.add(states_out_BTD)
        self.last = states_out_BTD

    def result(self, last_hidden_BTD: torch.Tensor) -> torch.Tensor:
        """The average, in the layers' dtype; the tower's own result if LayerDrop left out every layer."""
        if self.last is None:
            return last_hidden_BTD
        while self.taken < len(self.weights_L):
            self.add(self.last)
        return self.sum().to(self.last.dtype)

    def sum(self) -> torch.Tensor:
        """Of all layers that were added."""
        for weight, states_BTD in self.kept:
            self.total = self._plus(weight, states_BTD)
        assert self.total is not None, "a tower has layers"
        return self.total

    def add(self, states_BTD: torch.Tensor) -> None:
        weight = self.weights_L[self.taken]
        if self.gradients and (weight.requires_grad or states_BTD.requires_grad):
            self.kept.append((weight, states_BTD))
        else:
            self.total = self._plus(weight, states_BTD)
        self.taken += 1

    def _plus(self, weight: torch.Tensor, states_BTD: torch.Tensor) -> torch.Tensor:
        """The sum with one more layer. addcmul widens bfloat16 by itself, and autograd then keeps it narrow."""
        if self.normalize:
            wide = torch.promote_types(states_BTD.dtype, weight.dtype)
            states_BTD = nn.functional.layer_norm(states_BTD.to(wide), states_BTD.shape[-1:])
        if self.total is None:
            nothing = states_BTD.new_zeros((1,) * states_BTD.dim(), dtype=weight.dtype)
            return torch.addcmul(nothing, states_BTD, weight.to(states_BTD.device))
        states_BTD, weight = states_BTD.to(self.total.device), weight.to(self.total.device)
        if self.gradients:
            return torch.addcmul(self.total, states_BTD, weight)
        return self.total.addcmul_(states_BTD, weight)


__all__ = ["KeptLayers", "RunningMix", "UniBriVLLayerMix", "mixing", "watch"]
