"""The rows of one batch: how the processes share them, and which of them belong together.

Shapes: B rows of this process, G rows of all processes, N columns, E width.
"""

from __future__ import annotations

import torch

from unibrivl.training.gather import Shares
from unibrivl.training.queue import NO_ID


class Rows:
    """
    Args:
        embeds_BE: any embeddings of the batch, for their number and device.
        sample_id_B (*optional*): which sample each row is of; rows without are all of different samples.
        label_B (*optional*): rows of one label are each other's positives.
    """

    def __init__(
        self, embeds_BE: torch.Tensor, sample_id_B: torch.Tensor | None = None, label_B: torch.Tensor | None = None
    ):
        self.shares = Shares.of(embeds_BE)
        self.device = embeds_BE.device
        if sample_id_B is None:
            sample_id_B = torch.full((len(embeds_BE),), NO_ID)
        for name, numbers_B in (("sample_id", sample_id_B), ("label", label_B)):
            if numbers_B is not None and (numbers_B.shape != (len(embeds_BE),) or numbers_B.dtype != torch.int64):
                raise ValueError(
                    f"{name} is {tuple(numbers_B.shape)} of {numbers_B.dtype} and must be ({len(embeds_BE)},) of "
                    "torch.int64: one number a row"
                )
        self.ids_B = sample_id_B.to(self.device)
        self.ids_G = self.shares.gather(self.ids_B)
        places_B = self.shares.places(self.device)
        self.own_BG = places_B[:, None] == torch.arange(self.shares.total, device=self.device)
        self.positives_BG = self.own_BG
        if label_B is not None:
            label_B = label_B.to(self.device)
            self.positives_BG = self.own_BG | (label_B[:, None] == self.shares.gather(label_B))

    def same(self, ids_N: torch.Tensor) -> torch.Tensor:
        """(B, N), columns of the row's own sample."""
        return (self.ids_B[:, None] == ids_N) & (self.ids_B[:, None] != NO_ID)

    @property
    def hidden_BG(self) -> torch.Tensor:
        """Rows that are neither: other rows of the same sample, where labels do not make them positives."""
        return self.same(self.ids_G) & ~self.positives_BG
