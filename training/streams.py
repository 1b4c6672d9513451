"""Data that is read in its own order, as the loop's data: shards, and streaming datasets of `datasets`.

    parts = Parts(model, objective, of_shards(Shards("train-{000..127}.tar"), prepare), collate)
    parts = Parts(model, objective, of_datasets(dataset, prepare, rows=1_000_000), collate)

The main process reads rows, encoded as they are, and the loader's workers do the work: `prepare(row, draw)` decodes
and augments. So a batch depends on the seed, the number of processes and where the run is, and not on the number of
workers; a resumed run passes over the rows of the epoch it is in without decoding them, which takes no time for shards
(their rows are numbers) and that of reading them for others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from unibrivl.data import DatasetError
from unibrivl.data.shards import Shards, ShardSample
from unibrivl.training.sampler import Draw, derive
from unibrivl.utils import require


@dataclass(frozen=True)
class Row:
    """What a worker is handed: something to prepare, and the draw that decides all that is random about it."""

    content: Any
    draw: Draw


@dataclass
class Stream:
    """
    Args:
        rows: called with a seed, an epoch, this process's number and how many there are, it gives this process's rows
            of that epoch; the processes' rows are different ones.
        length (`int`): rows of an epoch in all processes together. An epoch is as many whole batches as this makes,
            the same number everywhere. A process that has fewer rows than its share begins again with them.
        prepare: makes an example of a row's content and its `Draw`.
    """

    rows: Callable[[int, int, int, int], Iterable[Any]]
    length: int
    prepare: Callable[[Any, Draw], Any]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: Row) -> Any:
        return self.prepare(row.content, row.draw)

    def batches(
        self, batch_size: int, seed: int, taken: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[list[Row]]:
        """This process's share of every batch, without end, from where a run is that has taken `taken` batches."""
        if self.length < batch_size:
            raise ValueError(
                f"the training data has {self.length} examples and batch_size is {batch_size}: lower batch_size"
            )
        if batch_size % world:
            raise ValueError(
                f"batch_size {batch_size} cannot be shared by {world} processes: make it a multiple of {world}"
            )
        return self._batches(batch_size, seed, taken, rank, world)

    def _batches(self, batch_size: int, seed: int, taken: int, rank: int, world: int) -> Iterator[list[Row]]:
        share = batch_size // world
        first_epoch, done = divmod(taken, self.length // batch_size)
        for epoch in itertools.count(first_epoch):
            contents = enumerate(self._without_end(seed, epoch, rank, world))
            most = (self.length // batch_size) * share
            skipped = done * share if epoch == first_epoch else 0
            mine = itertools.islice(contents, skipped, most)
            while numbered := list(itertools.islice(mine, share)):
                yield [
                    Row(content, Draw(index, epoch, derive(seed, epoch, index)))
                    for index, content in ((number * world + rank, content) for number, content in numbered)
                ]

    def _without_end(self, seed: int, epoch: int, rank: int, world: int) -> Iterator[Any]:
        while True:
            is_empty = True
            for content in self.rows(seed, epoch, rank, world):
                is_empty = False
                yield content
            if is_empty:
                raise DatasetError(f"process {rank} of {world} has no rows: use fewer processes, or more shards")


@dataclass
class ShardRows:
    """Numbers of samples: each process takes every world-th of one shuffled order."""

    shards: Shards
    window: int

    def __call__(self, seed: int, epoch: int, rank: int, world: int) -> Iterable[int]:
        return self.shards.order(seed, epoch, self.window)[rank::world].tolist()


@dataclass
class ReadThenPrepare:
    """Reading is the workers' too."""

    shards: Shards
    prepare: Callable[[ShardSample, Draw], Any]

    def __call__(self, number: int, draw: Draw) -> Any:
        return self.prepare(self.shards[number], draw)


def of_shards(shards: Shards, prepare: Callable[[ShardSample, Draw], Any], window: int = 1000) -> Stream:
    """Shards as data, read nearly in order.

    Args:
        prepare: makes an example of a `ShardSample`: `load_audio(sample.audio)` and so on.
        window (`int`): so many neighbours are mixed; see `Shards.order`.
    """
    return Stream(ShardRows(shards, window), len(shards), ReadThenPrepare(shards, prepare))


@dataclass
class DatasetRows:
    """Rows of a streaming dataset: shards and a buffer shuffled anew each epoch, then split by process."""

    dataset: Any
    buffer: int

    def __call__(self, seed: int, epoch: int, rank: int, world: int) -> Iterable[dict[str, Any]]:
        from datasets.distributed import split_dataset_by_node

        shuffled = self.dataset.shuffle(seed=derive(seed, epoch) % 2**32, buffer_size=self.buffer)
        return split_dataset_by_node(shuffled, rank=rank, world_size=world) if world > 1 else shuffled


def of_datasets(
    dataset: Any, prepare: Callable[[dict[str, Any], Draw], Any], rows: int | None = None, buffer: int = 1000
) -> Stream:
    """A `datasets.IterableDataset` as data: parquet files, a repository of the Hub, or anything that streams.

    Where its shards can be shared out evenly, each process reads its own; else each reads all and takes its part. Cast
    sounds and pictures with `Audio(decode=False)` and `Image(decode=False)`: rows then hold bytes or paths, which
    `load_audio` reads, in the workers.

    Args:
        dataset: a `datasets.IterableDataset`, or a `datasets.Dataset`, which is read as one.
        prepare: makes an example of a row.
        rows (`int`, *optional*): how many it has; a stream cannot say so itself, a `datasets.Dataset` can.
        buffer (`int`): so many rows are held to be shuffled.
    """
    datasets = require("datasets", "train", "streaming a dataset")
    if isinstance(dataset, datasets.Dataset):
        rows = len(dataset) if rows is None else rows
        dataset = dataset.to_iterable_dataset()
    if not isinstance(dataset, datasets.IterableDataset):
        raise ValueError(
            f"expected a datasets.IterableDataset, not {type(dataset).__name__}: "
            "datasets.load_dataset(..., split='train', streaming=True) gives one"
        )
    if rows is None or rows < 1:
        raise ValueError("say how many rows the stream has, rows=...: an epoch must end for all processes at once")
    return Stream(DatasetRows(dataset, buffer), rows, prepare)
