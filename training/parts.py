"""What a recipe's `build(config)` hands to the loop: the parts of a run, and what is said about it in its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from unibrivl.training.sampler import Draw

Batch = dict[str, Any]


class Objective(Protocol):
    """What turns a batch into named terms; their sum is the loss. What it remembers is in its state."""

    def __call__(self, model: Any, batch: Batch) -> Mapping[str, torch.Tensor]: ...

    def before_step(self, model: Any, step: int) -> None:
        """Once for each optimiser step, before its first forward pass."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> Any: ...


class Data(Protocol):
    """Examples by `Draw`: everything random about one comes from `draw.seed`.

    Where it has `lengths`, one number an example, batches are made of examples of like length.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, draw: Draw) -> Any: ...


@dataclass
class About:
    """What the files beside the model say, in the words of `unibrivl.hub.records`.

    Args:
        task, dataset (`str`): of the evaluation, for results.json.
        towers, data, licences: for training.json.
    """

    task: str = "feature-extraction"
    dataset: str = "held-out data"
    towers: dict[str, dict[str, str]] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    licences: dict[str, str] = field(default_factory=dict)


@dataclass
class Parts:
    """
    Args:
        model: a model of transformers, ready to train; what has requires_grad=False stays as it is.
        objective: see `Objective`.
        data, collate: the training examples, and what makes a batch of a list of them.
        evaluate (*optional*): model -> named numbers. Every process calls it with the whole data and gets the same.
        processor (*optional*): saved beside the model.
        prepare (*optional*): what has to be there before the first example and takes its time, such as embeddings of
            a frozen tower. Every process of a run that trains calls it once; a dry run does not.
        foresee (*optional*): what `prepare` will need, in words, for a dry run.
        about: see `About`.
    """

    model: PreTrainedModel
    objective: Objective
    data: Data
    collate: Callable[[list[Any]], Batch]
    evaluate: Callable[[Any], Mapping[str, float]] | None = None
    processor: Any = None
    about: About = field(default_factory=About)
    prepare: Callable[[], object] | None = None
    foresee: Callable[[], object] | None = None
