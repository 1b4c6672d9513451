"""What every objective is: from a model and a batch to named terms whose sum is the loss.

    objective = OBJECTIVES["cx"](model)                        # before DDP or FSDP wraps the model
    for step, batches in enumerate(...):                       # the batches of one optimizer step
        objective.before_step(model, step)
        for batch in batches:
            terms = objective(model, batch)
            sum(terms.values()).backward()

A batch is a dictionary of the model's own inputs and of what is set aside here: `sample_id` (int64, one for each row),
`label` (int64), and `image_embeds`, cached embeddings of the image tower, in place of `pixel_values`.

Shapes: B batch, E shared width, V image tower's width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.momentum import MomentumCopy, bare, inside_wrappers
from unibrivl.training.objectives.nce import unit
from unibrivl.training.queue import EmbeddingQueue

ASIDE = ("sample_id", "label", "image_embeds")  # what of a batch is not the model's


def run(model: nn.Module, batch: Mapping[str, Any]):
    """The model's output for its inputs in the batch, by the one call of the model that DDP and FSDP count on.

    With `image_embeds` the output is as if the image tower had made them: f is applied inside that call, or the
    wrappers would miss its gradient.
    """
    inputs = {name: value for name, value in batch.items() if name not in ASIDE}
    cached_BV = batch.get("image_embeds")
    if cached_BV is None:
        return model(**inputs, return_dict=True)
    if inputs.get("pixel_values") is not None:
        raise ValueError("the batch has pixel_values and image_embeds: pass pictures, or their cached embeddings")
    owner = bare(model)
    if not hasattr(owner, "project_image"):
        raise ValueError(f"{type(owner).__name__} takes no cached image_embeds: pass pixel_values")
    if cached_BV.dim() != 2 or cached_BV.shape[1] != owner.config.native_dim:
        raise ValueError(
            f"image_embeds are {tuple(cached_BV.shape)} and must be (batch, {owner.config.native_dim}): cache what "
            "get_native_image_features of this image tower gives"
        )

    def add_pictures(module, arguments, output):
        output.native_image_embeds = unit(cached_BV)
        output.image_embeds = owner.project_image(output.native_image_embeds)
        return output

    hook = inside_wrappers(model).register_forward_hook(add_pictures, prepend=True)  # FSDP has hooks of its own
    try:
        return model(**inputs, return_dict=True)
    finally:
        hook.remove()


def embedding(output, name: str) -> torch.Tensor:
    """An embedding of the output, of length one and in float32 at least."""
    found = getattr(output, name, None)
    if found is None:
        raise ValueError(
            f"the model gave no {name}: the batch needs the inputs it is made from (pixel_values or image_embeds for "
            "pictures, input_values for sounds)"
        )
    return unit(found)


class Objective(ABC):
    """An objective keeps what lives across steps (momentum copies, queues, the step) and gives it as a state dict of
    plain tensors. It never touches files, and the exported model holds none of it.

    Requirements: built from the bare model, with its adapters, after it is settled what trains and before it is
    wrapped. `before_step` is called once per optimizer step, before the first batch of it.
    """

    def __init__(self, model: nn.Module):
        self.config = getattr(bare(model), "config", None)
        self.step = -1  # none has begun
        self.momentum: MomentumCopy | None = None
        self.queues: dict[str, EmbeddingQueue] = {}

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        return self.forward(model, batch)

    @abstractmethod
    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Named terms whose sum is the loss; over several processes the mean of theirs is the loss of the batch.

        State moves only while `model.training`.
        """

    @property
    def image_is_frozen(self) -> bool:
        """By the configuration: a weight's requires_grad may be off for other reasons, such as an adapter."""
        return getattr(self.config, "freeze_vision_model", False)

    def before_step(self, model: nn.Module, step: int) -> None:
        """The momentum copies follow the model by one step; a second call for the same step does nothing.

        Args:
            step (`int`): how many optimizer steps have been made.
        """
        if step == self.step:
            return
        self.step = step
        if self.momentum is not None:
            self.momentum.update(model)

    @torch.no_grad()
    def momentum_output(self, model: nn.Module, batch: Mapping[str, Any], output):
        """What the momentum copy gives for the batch, of which the model gave `output`. A frozen image tower is not
        run again."""
        assert self.momentum is not None
        native_BV = getattr(output, "native_image_embeds", None)
        if self.image_is_frozen and native_BV is not None:
            batch = {name: value for name, value in batch.items() if name != "pixel_values"}
            batch["image_embeds"] = native_BV.detach()
        return run(self.momentum.on(next(model.parameters()).device), batch)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything that resuming needs, as tensors by name."""
        state = {"step": torch.tensor(self.step)}
        for part, holder in self._holders().items():
            state |= {f"{part}.{name}": value for name, value in holder.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        holders = self._holders()
        known = tuple(f"{part}." for part in holders)
        foreign = [name for name in state if name != "step" and not name.startswith(known)]
        missing = [part for part, prefix in zip(holders, known, strict=True) if not _under(prefix, state)]
        if foreign or missing or "step" not in state:
            raise ValueError(
                f"this is no state of {type(self).__name__} with these settings (unknown: {foreign[:3]}, missing: "
                f"{missing[:3]}): resume with the objective and the settings that it was saved with"
            )
        for holder, prefix in zip(holders.values(), known, strict=True):
            holder.load_state_dict(_under(prefix, state))
        self.step = int(state["step"])

    def _holders(self) -> dict[str, Any]:
        holders: dict[str, Any] = {f"queue_{name}": queue for name, queue in self.queues.items()}
        if self.momentum is not None and self.momentum.averages:
            holders["momentum"] = self.momentum
        return holders


def _under(prefix: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
