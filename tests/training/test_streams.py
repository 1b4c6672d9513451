"""Streams as the loop's data: shared out, resumed to the row, and the same whatever decodes them."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from unibrivl.data import DatasetError
from unibrivl.data.shards import Shards
from unibrivl.training.loop import train
from unibrivl.training.streams import Stream, of_datasets, of_shards

EXAMPLES = 50


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Shards:
    """Fifty samples in four shards of different sizes, each a line of text."""
    folder = tmp_path_factory.mktemp("shards")
    cuts = (0, 5, 25, 30, EXAMPLES)
    for start, stop in zip(cuts, cuts[1:], strict=False):
        with tarfile.open(folder / f"{start:02}.tar", "w") as tar:
            for number in range(start, stop):
                member, content = tarfile.TarInfo(f"{number:02}.txt"), f"{number}".encode()
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return Shards(folder)


def number_of(sample, draw) -> tuple[int, int, int]:
    return int(sample.sample.texts[0]), draw.epoch, draw.seed


def row_number(row, draw) -> tuple[int, int, int]:
    return row["number"], draw.epoch, draw.seed


def streaming(parts: int = 4):
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict({"number": list(range(EXAMPLES))}).to_iterable_dataset(num_shards=parts)


def data_of(kind: str, shards: Shards, parts: int = 4) -> Stream:
    if kind == "shards":
        return of_shards(shards, number_of, window=8)
    return of_datasets(streaming(parts), row_number, rows=EXAMPLES, buffer=8)


def taken(stream: Stream, count: int, batch_size: int = 8, seed: int = 3, **place) -> list[list[tuple[int, int, int]]]:
    return [[stream[row] for row in batch] for batch in islice(stream.batches(batch_size, seed, **place), count)]


@pytest.mark.parametrize("kind", ["shards", "datasets"])
def test_an_epoch_is_every_example_at_most_once(kind, shards):
    stream = data_of(kind, shards)
    batches = taken(stream, 12)
    for epoch in (0, 1):
        numbers = [number for batch in batches[6 * epoch : 6 * epoch + 6] for number, *_ in batch]
        assert len(numbers) == len(set(numbers)) == 48
        assert {one for batch in batches[6 * epoch : 6 * epoch + 6] for _, one, _ in batch} == {epoch}
        assert numbers != sorted(numbers)
    assert batches[:6] != batches[6:]
    assert batches == taken(stream, 12)
    assert batches != taken(stream, 12, seed=4)
    assert len({seed for batch in batches for *_, seed in batch}) == 96


@pytest.mark.parametrize("kind", ["shards", "datasets"])
@pytest.mark.parametrize("done", [1, 5, 6, 7, 40])
def test_a_resumed_stream_goes_on_with_the_same_rows(kind, done, shards):
    stream = data_of(kind, shards)
    assert taken(stream, 4, taken=done) == taken(stream, done + 4)[done:]


@pytest.mark.parametrize(("kind", "parts"), [("shards", 4), ("datasets", 4), ("datasets", 3)])
def test_processes_see_different_examples_and_equally_many(kind, parts, shards):
    stream = data_of(kind, shards, parts)
    for done in (0, 6):
        two = [taken(stream, 6, taken=done, rank=rank, world=2) for rank in (0, 1)]
        assert [len(batch) for batches in two for batch in batches] == [4] * 12
        first, second = ({number for batch in batches for number, *_ in batch} for batches in two)
        assert not first & second
        assert len(first | second) == 48
        seeds = [seed for batches in two for batch in batches for *_, seed in batch]
        assert len(set(seeds)) == 48


def test_shards_that_cannot_be_shared_evenly_begin_again():
    stream = Stream(lambda seed, epoch, rank, world: range(3) if rank else range(100, 113), 16, lambda row, draw: row)
    long, short = ([row for batch in taken(stream, 2, rank=rank, world=2) for row in batch] for rank in (0, 1))
    assert short == [0, 1, 2, 0, 1, 2, 0, 1]
    assert long == list(range(100, 108))
    with pytest.raises(DatasetError, match="no rows"):
        taken(replace(stream, rows=lambda *place: []), 1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["shards", "datasets"])
def test_workers_change_nothing(kind, workers, shards):
    stream = data_of(kind, shards)
    loader = DataLoader(stream, batch_sampler=stream.batches(8, 3, 2), num_workers=workers, collate_fn=list)
    assert list(islice(loader, 7)) == taken(stream, 7, taken=2)


def test_questions_that_cannot_be_answered(shards):
    stream = data_of("shards", shards)
    with pytest.raises(ValueError, match="lower batch_size"):
        stream.batches(51, 0)
    with pytest.raises(ValueError, match="multiple of 3"):
        stream.batches(8, 0, world=3)
    with pytest.raises(ValueError, match="rows="):
        of_datasets(streaming(), row_number)
    with pytest.raises(ValueError, match="streaming=True"):
        of_datasets([1, 2], row_number)
    datasets = pytest.importorskip("datasets")
    assert len(of_datasets(datasets.Dataset.from_dict({"number": [1, 2, 3]}), row_number)) == 3


@dataclass
class Prepared:
    """The tiny run's examples by the number that a shard's sample holds."""

    pairs: tiny_run.Pairs

    def __call__(self, sample, draw):
        return self.pairs[replace(draw, index=int(sample.sample.texts[0]) % len(self.pairs))]


def build(folder: Path, stop: int | None = None):
    def parts(config):
        made = tiny_run.build(replace(config, objective=replace(config.objective, stop=stop)))
        made.data = of_shards(Shards(folder), Prepared(made.data), window=8)
        return made

    return parts


def test_a_run_on_shards_resumes_to_the_bit(tmp_path, shards):
    folder = Path(shards.paths[0]).parent
    torch.set_num_threads(1)
    fields = {"steps": 10, "save_every": 2, "evaluate_every": 5}
    train(tiny_run.config(str(tmp_path / "whole"), **fields), build(folder))
    with pytest.raises(RuntimeError, match="stopped here"):
        train(tiny_run.config(str(tmp_path / "torn"), **fields), build(folder, stop=15))
    train(tiny_run.config(str(tmp_path / "torn"), **fields), build(folder), resume=True)
    whole, torn = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "torn"))
    assert whole.keys() == torn.keys()
    assert all(torch.equal(whole[name], torn[name]) for name in whole)
    assert np.isfinite(sum(float(value.double().sum()) for value in whole.values()))
