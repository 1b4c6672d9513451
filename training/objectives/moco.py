"""BriVL's own objective: both directions of a pair, over two queues of momentum keys.

Shapes: B rows of this process, G rows of all processes, N columns, E width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.training.momentum import MomentumCopy
from unibrivl.training.objectives.base import embedding, run
from unibrivl.training.objectives.nce import TEMPERATURE, both_in_top, nce
from unibrivl.training.objectives.queued import QueuedObjective


class MoCoLoss(QueuedObjective):
    """Each side's embeddings pick their partner's momentum key out of the other side's queue.

        L = NCE(left ; k_right, Q_right) + NCE(right ; k_left, Q_left)

    Args:
        width (`int`): numbers of an embedding, the same on both sides.
        left, right (`str`): fields of the model's output: by default those of `BriVLModel`.
        momentum (`float`): share of its past that the momentum copy keeps at each step.
        num_top (`int`): BriVL's multi-label rule: columns among a row's `num_top` nearest on both sides are positives
            too. 0 turns it off, as BriVL's training does.
        queue_size, queue_init, in_batch_negatives, dataset_size: see `QueuedObjective`.

    Inputs: what the model needs for both embeddings, and `sample_id`.
    Terms: `{left}_to_{right}` and `{right}_to_{left}`, without `_embeds`.
    Relations: `CXLoss` is this between spaces, `InBatchLoss` this without memory.
    """

    def __init__(
        self,
        model: nn.Module,
        width: int,
        left: str = "image_embeds",
        right: str = "text_embeds",
        queue_size: int = 9600,
        momentum: float = 0.99,  # BriVL code; UniBriVL paper 3.4
        temperature: float = TEMPERATURE,
        queue_init: str = "empty",
        in_batch_negatives: bool = False,
        num_top: int = 0,
        dataset_size: int | None = None,
    ):
        self.left, self.right = left, right
        self.names = left.removesuffix("_embeds"), right.removesuffix("_embeds")
        queues = dict.fromkeys(self.names, width)
        super().__init__(model, queues, queue_size, queue_init, in_batch_negatives, dataset_size)
        if num_top and in_batch_negatives:
            raise ValueError("num_top ranks the queue alone: choose it or in_batch_negatives")
        self.momentum = MomentumCopy(model, momentum)
        self.temperature, self.num_top = temperature, num_top

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        output = run(model, batch)
        queries = embedding(output, self.left), embedding(output, self.right)
        slow = self.momentum_output(model, batch, output)
        keys = embedding(slow, self.left), embedding(slow, self.right)
        return self.terms(queries, keys, batch, write=model.training)

    def terms(
        self,
        queries: tuple[torch.Tensor, torch.Tensor],
        keys: tuple[torch.Tensor, torch.Tensor],
        batch: Mapping[str, Any],
        write: bool,
    ) -> dict[str, torch.Tensor]:
        """The loss of embeddings (B, E) of the left and right side and of their momentum keys, all of length one."""
        rows = self.rows(queries[0], batch)
        gathered = {name: rows.shares.gather(keys_BE) for name, keys_BE in zip(self.names, keys, strict=True)}
        columns = {name: self.columns(name, keys_GE, rows) for name, keys_GE in gathered.items()}
        positives_BN = None
        if self.num_top and len(columns[self.names[0]][0]):
            queues = columns[self.names[0]][0], columns[self.names[1]][0]
            positives_BN = both_in_top(keys[0], keys[1], queues[0], queues[1], self.num_top)
        found = {}
        for side, other in ((0, 1), (1, 0)):
            negatives_NE, hidden_BN = columns[self.names[other]]
            losses_B = nce(queries[side], keys[other], negatives_NE, self.temperature, hidden_BN, positives_BN)
            found[f"{self.names[side]}_to_{self.names[other]}"] = rows.shares.mean(losses_B)
        if write:
            self.write(gathered, rows)
        return found
