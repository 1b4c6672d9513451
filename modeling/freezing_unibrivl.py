"""Models of several towers, of which some do not train: what is frozen stays so, and in eval mode."""

from functools import reduce

import torch
from torch import nn
from transformers import PreTrainedModel

from .loading_unibrivl import CheckedLoading


class FreezesParts(CheckedLoading, PreTrainedModel):
    """What the base class of such a family inherits from; `_freezable` says what its configuration can freeze."""

    # part of a model -> the config's field that says that it does not train
    _freezable: dict[str, str] = {}

    def _frozen_parts(self) -> list[nn.Module]:
        parts = [getattr(self, name, None) for name, field in self._freezable.items() if getattr(self.config, field)]
        return [part for part in parts if part is not None]

    def apply_freezing(self) -> None:
        """Stop the parts from training that the config's `freeze_...` fields name.

        Nothing is made trainable: what a tower or its user has frozen stays frozen. The way back is to set the field
        to False and to call `requires_grad_()` on the part.
        """
        for model in self.modules():
            if isinstance(model, FreezesParts):
                for part in model._frozen_parts():
                    part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True):
        """Frozen parts stay in eval mode: their statistics and their dropout must not move."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The widest of all parts: towers may be narrower than the head, and what is saved is loaded in this one."""
        dtypes = {weight.dtype for weight in self.parameters() if weight.is_floating_point()}
        return reduce(torch.promote_types, {dtype for dtype in dtypes if dtype.itemsize > 1} or dtypes)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).apply_freezing()  # loading makes all weights trainable
        return loaded


__all__ = ["FreezesParts"]
