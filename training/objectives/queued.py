"""What objectives with queues share: the columns a row meets beside its own key, and the write that follows.

Columns are the filled part of a queue and, on request, the keys of the batch. Those that come from the row's own
sample are hidden from it: a queue larger than the data would otherwise hold the positives as negatives.

Shapes: B rows of this process, G rows of all processes, N columns, E width.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.objectives.base import Objective
from unibrivl.training.objectives.rows import Rows
from unibrivl.training.queue import EmbeddingQueue


class QueuedObjective(Objective):
    """
    Args:
        queues: name -> width of the embeddings it holds.
        queue_size (`int`): embeddings a queue remembers.
        queue_init (`str`): `"empty"`, or `"random"` as BriVL starts.
        in_batch_negatives (`bool`): the keys of the other samples of the batch, on all processes, are negatives too.
        dataset_size (`int`, *optional*): tells whether batches without `sample_id` do harm.
    """

    def __init__(
        self,
        model: nn.Module,
        queues: Mapping[str, int],
        queue_size: int,
        queue_init: str,
        in_batch_negatives: bool,
        dataset_size: int | None,
    ):
        super().__init__(model)
        self.queues = {name: EmbeddingQueue(queue_size, width, queue_init) for name, width in queues.items()}
        self.in_batch_negatives = in_batch_negatives
        self.needs_ids = queue_size > 0 and (dataset_size is None or dataset_size < queue_size)

    def rows(self, embeds_BE: torch.Tensor, batch: Mapping[str, Any]) -> Rows:
        if batch.get("sample_id") is None and self.needs_ids:
            self.needs_ids = False  # said once
            warnings.warn(
                "the batch has no sample_id. In a data set smaller than the queue, samples meet themselves as "
                "negatives: pass sample_id, a smaller queue_size, or the dataset_size if it is larger",
                stacklevel=4,
            )
        return Rows(embeds_BE, batch.get("sample_id"))

    def columns(self, name: str, keys_GE: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Negatives (N, E) of one queue, and which of them a row must not see, (B, N)."""
        columns_NE, ids_N = self.queues[name].read(rows.device)
        hidden_BN = rows.same(ids_N)
        if self.in_batch_negatives:
            columns_NE = torch.cat([columns_NE.to(keys_GE.dtype), keys_GE])
            hidden_BN = torch.cat([hidden_BN, rows.same(rows.ids_G) | rows.own_BG], 1)
        return columns_NE, hidden_BN

    def write(self, keys: Mapping[str, torch.Tensor], rows: Rows) -> None:
        """The gathered keys of the batch, into the queue of each name."""
        for name, keys_GE in keys.items():
            self.queues[name].write(keys_GE, rows.ids_G)
