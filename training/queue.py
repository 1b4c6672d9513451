"""The queue of past embeddings: negatives beyond the batch, each with the id of the sample that it came from.

It starts empty and only its filled part is used, or (`init="random"`, BriVL's start) full of random directions. The
newest rows push out the oldest. It keeps float32 whatever the model computes in.

Shapes: N rows written, F rows filled, K rows at most, E width.
"""

from __future__ import annotations

import torch
from torch import nn

NO_ID = torch.iinfo(torch.int64).min  # of a sample without id: it equals no other


class EmbeddingQueue:
    """
    Args:
        size (`int`): how many embeddings are remembered, K.
        width (`int`): numbers of an embedding, E.
        init (`str`): `"empty"`, or `"random"`: full of normalised Gaussian rows, the same in every process.
    """

    def __init__(self, size: int, width: int, init: str = "empty"):
        if size < 1 or width < 1:
            raise ValueError(f"a queue needs at least one row of one number; got size={size} and width={width}")
        if init not in ("empty", "random"):
            raise ValueError(f"a queue starts 'empty' or 'random'; got init={init!r}")
        self.rows_KE = torch.zeros(size, width)
        self.ids_K = torch.full((size,), NO_ID)
        self.num_written = 0  # since the start: the next row goes to this number modulo size
        if init == "random":
            drawn = torch.randn(size, width, generator=torch.Generator().manual_seed(0))
            self.rows_KE, self.num_written = nn.functional.normalize(drawn, dim=-1), size

    @property
    def size(self) -> int:
        return len(self.ids_K)

    @property
    def num_filled(self) -> int:
        return min(self.num_written, self.size)

    def read(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """What is filled, in no particular order: rows (F, E) and ids (F,)."""
        self._move(device)
        # a backward pass that comes after the next write needs what was read
        return self.rows_KE[: self.num_filled].clone(), self.ids_K[: self.num_filled].clone()

    @torch.no_grad()
    def write(self, rows_NE: torch.Tensor, ids_N: torch.Tensor) -> None:
        """Remember the rows of the whole batch, gathered; of more than K rows the last K."""
        self._move(rows_NE.device)
        first = max(0, len(rows_NE) - self.size)
        places = torch.arange(self.num_written + first, self.num_written + len(rows_NE), device=rows_NE.device)
        places = places % self.size
        self.rows_KE[places] = rows_NE[first:].to(self.rows_KE.dtype)
        self.ids_K[places] = ids_N[first:]
        self.num_written += len(rows_NE)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {
            "rows": self.rows_KE.clone(),
            "ids": self.ids_K.clone(),
            "num_written": torch.tensor(self.num_written),
        }

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        if state["rows"].shape != self.rows_KE.shape:
            raise ValueError(
                f"the saved queue is {tuple(state['rows'].shape)} and this one {tuple(self.rows_KE.shape)}: resume "
                "with the queue_size and the model that it was saved with"
            )
        self.rows_KE = state["rows"].to(self.rows_KE, copy=True)
        self.ids_K = state["ids"].to(self.ids_K, copy=True)
        self.num_written = int(state["num_written"])

    def _move(self, device: torch.device) -> None:
        self.rows_KE, self.ids_K = self.rows_KE.to(device), self.ids_K.to(device)
