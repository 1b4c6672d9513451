"""One batch over several processes: who holds which rows, the rows of all, and the mean over all of them.

Every process computes the loss of its own rows against the columns of all. `Shares.mean` is scaled so that the mean
over the processes, which is what DDP makes of gradients, is the loss of the whole batch: two processes with B rows
each train as one process with 2B does. Shares may be uneven. Without a process group there is one share, and nothing
is sent.

Shapes: B rows of this process, G rows of all processes in the order of their ranks, E width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import distributed


def num_processes() -> int:
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if ready else 1


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The sum of a number that every process holds its part of, without gradient."""
    value = value.detach().clone()
    if num_processes() > 1:
        distributed.all_reduce(value)
    return value


@dataclass(frozen=True)
class Shares:
    """How many rows of the batch each process holds, and which process this is."""

    counts: tuple[int, ...]
    rank: int

    @classmethod
    def of(cls, rows_BE: torch.Tensor) -> Shares:
        """Asks the other processes how many rows they have: all of them have to call it."""
        if num_processes() == 1:
            return cls((len(rows_BE),), 0)
        count = torch.tensor([len(rows_BE)], device=rows_BE.device)
        counts = [torch.empty_like(count) for _ in range(num_processes())]
        distributed.all_gather(counts, count)
        return cls(tuple(int(one) for one in counts), distributed.get_rank())

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def start(self) -> int:
        """Where the rows of this process begin among those of all."""
        return sum(self.counts[: self.rank])

    def places(self, device: torch.device) -> torch.Tensor:
        """(B,), where each row of this process stands among those of all."""
        return torch.arange(self.start, self.start + self.counts[self.rank], device=device)

    def gather(self, rows_BE: torch.Tensor) -> torch.Tensor:
        """The rows of all processes. What the others do with the rows of this one comes back as their gradient."""
        if len(self.counts) == 1:
            return rows_BE
        return _Gather.apply(rows_BE, self) if rows_BE.requires_grad else self._collect(rows_BE)

    def mean(self, losses_B: torch.Tensor) -> torch.Tensor:
        """The mean over the whole batch, once it is averaged over the processes."""
        return losses_B.sum() * len(self.counts) / self.total

    def _collect(self, rows_BE: torch.Tensor) -> torch.Tensor:
        longest = max(self.counts)
        padded = rows_BE.new_zeros(longest, *rows_BE.shape[1:])
        padded[: len(rows_BE)] = rows_BE
        gathered = [torch.empty_like(padded) for _ in self.counts]
        distributed.all_gather(gathered, padded)
        return torch.cat([rows[:count] for rows, count in zip(gathered, self.counts, strict=True)])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows_BE, shares):
        ctx.shares = shares
        return shares._collect(rows_BE)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_GE):
        grad_GE = sum_over_processes(grad_GE.contiguous())
        return grad_GE[ctx.shares.places(grad_GE.device)], None
