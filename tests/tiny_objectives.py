"""Small things to minimise objectives on: a UniBriVL that draws nothing in training, tables of embeddings, batches.

Shapes: B batch, N samples, E width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tiny_towers import pictures, sounds, unibrivl_config
from torch import nn
from transformers.utils import ModelOutput

from unibrivl.modeling import UniBriVLModel


@dataclass
class Embeddings(ModelOutput):
    """Under the names that the objectives look for."""

    audio_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None


class Tables(nn.Module):
    """One free embedding for each sample and kind: losses can be followed by hand. A `shift` mismatches the pairs."""

    def __init__(self, **tables_NE: torch.Tensor):
        super().__init__()
        self.tables = nn.ParameterDict({kind: nn.Parameter(table.clone()) for kind, table in tables_NE.items()})

    def forward(self, shift=0, return_dict=True):
        found = {f"{kind}_embeds": table for kind, table in self.tables.items()}
        return Embeddings(**{**found, "image_embeds": found["image_embeds"].roll(shift, 0)})


def still_model(seed: int = 0, dtype: torch.dtype = torch.float32, **fields) -> UniBriVLModel:
    """Without dropout and the like: in training it does what it does in evaluation."""
    torch.manual_seed(seed)
    return UniBriVLModel(unibrivl_config("ast", "clip", sa_dropout=0.0, **fields)).to(dtype).train()


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def batch_of(model: UniBriVLModel, number: int = 4, seed: int = 0, cached: bool = True, first_id: int = 0) -> dict:
    """Sounds with the cached embeddings of their pictures, or with the pictures."""
    dtype = model.audio_model.projection.fc1.weight.dtype
    batch = {name: value.to(dtype) for name, value in sounds("ast", number, seed).items()}
    if cached:
        drawn = random(number, model.config.native_dim, seed=seed + 100, dtype=dtype)
        batch["image_embeds"] = nn.functional.normalize(drawn, dim=-1)
    else:
        batch["pixel_values"] = pictures("clip", number, seed + 1).to(dtype)
    return {**batch, "sample_id": torch.arange(first_id, first_id + number)}


def part_of(batch: dict, rows: slice) -> dict:
    return {name: value[rows] for name, value in batch.items()}


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(terms.values())


def fill_queues(objective, number: int = 16, seed: int = 7, first_id: int = 1000) -> None:
    """As if other samples had been seen before."""
    for name, queue in objective.queues.items():
        rows = nn.functional.normalize(random(number, queue.rows_KE.shape[1], seed=seed + len(name)), dim=-1)
        queue.write(rows, torch.arange(first_id, first_id + number))
