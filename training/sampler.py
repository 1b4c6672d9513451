"""Which examples a step sees: one permutation an epoch, drawn from the seed, cut into batches and shared out by rank.

Everything follows from (seed, epoch, index): no generator has to be saved, a run goes on anywhere by counting the
batches it has taken, and neither the number of worker processes nor their order can change an example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch


def derive(*numbers: int) -> int:
    """A seed of 63 bits that depends on all of `numbers` and on their order."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


@dataclass(frozen=True)
class Draw:
    """What a dataset is asked for: an example, in an epoch, with the seed of all that is random about it."""

    index: int
    epoch: int
    seed: int

    def generator(self) -> torch.Generator:
        """For augmentation: the same draws for the same example of the same epoch, in any process."""
        return torch.Generator().manual_seed(self.seed)


def permutation(num_examples: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(derive(seed, epoch))
    return torch.randperm(num_examples, generator=generator).tolist()


LENGTHS = -1 % 2**32  # no example has this number
WINDOW = 50  # OURS: batches that are sorted by length together; more would make epochs alike


def alike(order: list[int], lengths: Sequence[int], batch_size: int, chance: torch.Generator) -> list[int]:
    """The same examples, so that batches hold examples of like length: less of them is padding.

    Windows of many batches are sorted by length and cut into batches, which come in random order.
    """
    place = {index: number for number, index in enumerate(order)}
    batches = []
    for start in range(0, len(order), WINDOW * batch_size):
        window = sorted(order[start : start + WINDOW * batch_size], key=lengths.__getitem__)
        batches += [window[first : first + batch_size] for first in range(0, len(window), batch_size)]
    # within a batch as drawn: or one process would have the long examples and the others would wait for it
    turns = torch.randperm(len(batches), generator=chance).tolist()
    return [index for turn in turns for index in sorted(batches[turn], key=place.__getitem__)]


class Batches:
    """A batch sampler without end, for torch's DataLoader: lists of `Draw`, this process's share of every batch.

    What does not fill a batch at the end of an epoch is left out; another permutation leaves out others.

    Args:
        num_examples, batch_size (`int`): of the dataset, and of a batch over all processes.
        seed (`int`): of the run.
        taken (`int`): batches that were taken before; the sampler's position.
        rank, world (`int`): this process among how many.
        lengths (*optional*): of the examples; batches are then made of examples of like length.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        seed: int,
        taken: int = 0,
        rank: int = 0,
        world: int = 1,
        lengths: Sequence[int] | None = None,
    ):
        if num_examples < batch_size:
            raise ValueError(
                f"the training data has {num_examples} examples and batch_size is {batch_size}: lower batch_size"
            )
        if batch_size % world:
            raise ValueError(
                f"batch_size {batch_size} cannot be shared by {world} processes: make it a multiple of {world}"
            )
        self.num_examples, self.batch_size, self.seed = num_examples, batch_size, seed
        self.taken, self.rank, self.world, self.lengths = taken, rank, world, lengths

    def __iter__(self) -> Iterator[list[Draw]]:
        in_epoch = self.num_examples // self.batch_size
        share = self.batch_size // self.world
        epoch, batch = divmod(self.taken, in_epoch)
        while True:
            order = permutation(self.num_examples, self.seed, epoch)[: in_epoch * self.batch_size]
            if self.lengths is not None:
                chance = torch.Generator().manual_seed(derive(self.seed, epoch, LENGTHS))
                order = alike(order, self.lengths, self.batch_size, chance)
            for start in range(batch * self.batch_size, in_epoch * self.batch_size, self.batch_size):
                mine = order[start + self.rank * share : start + (self.rank + 1) * share]
                yield [Draw(index, epoch, derive(self.seed, epoch, index)) for index in mine]
            epoch, batch = epoch + 1, 0
