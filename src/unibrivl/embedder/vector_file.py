"""Vectors in a parquet file: many rows, written and read in blocks, so that memory does not grow with the file.

A row is a vector with what it is of; the schema's metadata hold the model's fingerprint and how the vectors were made.
Every row has a vector: what could not be embedded is not in the file, since tools that flatten a column of lists drop
nulls without a word, and names and vectors would no longer be in step.

Shapes: N rows, E embedding.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unibrivl.embedder.embeddings import Embeddings
from unibrivl.utils import require
from unibrivl.utils.files import written_whole

FORMAT = 1  # of the metadata and columns: a change that breaks a reader raises it
BLOCK_ROWS = 4096  # in a row group: 16 MB at 1024 numbers

Key = tuple[str, str]  # kind and id


@dataclass
class Held:
    """Where the rows of one thing are, and the size and time of the file they were made from."""

    file: int
    rows: int
    size_bytes: int
    mtime_ns: int


def arrow() -> tuple[Any, Any]:
    """pyarrow and its parquet module, or the error that says how to install them."""
    purpose = "a file of vectors (parquet)"
    return require("pyarrow", "parquet", purpose), require("pyarrow.parquet", "parquet", purpose)


def record_type(width: int) -> np.dtype:
    """A row without its names; NaN and -1 stand for null."""
    numbers = [("begin_s", "<f8"), ("end_s", "<f8"), ("size_bytes", "<i8"), ("mtime_ns", "<i8")]
    return np.dtype([("vector", "<f4", (width,)), *numbers])


def write_rows(
    path: Path, width: int, about: Mapping[str, Any], blocks: Iterable[tuple[Sequence[Key], np.ndarray]]
) -> None:
    """One file, whole or not at all; each block of keys and records (N,) becomes a row group."""
    pa, pq = arrow()
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), width)
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("vector", vector, nullable=False),
            pa.field("begin_s", pa.float64()),
            pa.field("end_s", pa.float64()),
            pa.field("size_bytes", pa.int64()),
            pa.field("mtime_ns", pa.int64()),
        ],
        metadata={"unibrivl": json.dumps({"format": FORMAT, **about}, sort_keys=True)},
    )
    # only names repeat: a dictionary of floats would be built and thrown away
    with written_whole(path) as partial, pq.ParquetWriter(partial, schema, use_dictionary=["id", "kind"]) as writer:
        for keys, records in blocks:
            numbers = np.ascontiguousarray(records["vector"]).reshape(-1)
            columns = [
                pa.array([name for _, name in keys], pa.string()),
                pa.array([kind for kind, _ in keys], pa.string()),
                pa.FixedSizeListArray.from_arrays(pa.array(numbers), type=vector),
            ]
            for name in ("begin_s", "end_s"):
                columns.append(pa.array(records[name], mask=np.isnan(records[name])))
            for name in ("size_bytes", "mtime_ns"):
                columns.append(pa.array(records[name], mask=records[name] < 0))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def read_about(path: str | os.PathLike) -> dict[str, Any]:
    """How the vectors of a file were made: fingerprint, model, revision, settings, versions, and their width."""
    _, pq = arrow()
    try:
        schema = pq.read_schema(path)
        about = json.loads((schema.metadata or {})[b"unibrivl"])
        if about["format"] > FORMAT:
            raise ValueError(f"it has format {about['format']} and this version reads up to {FORMAT}: update unibrivl")
        return {**about, "fingerprint": str(about["fingerprint"]), "width": schema.field("vector").type.list_size}
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} holds no vectors of ours, or is damaged: {error}") from error


def read_blocks(path: str | os.PathLike, columns: Sequence[str] | None = None) -> Generator[Any, None, None]:
    """The rows of a file as pyarrow's record batches."""
    _, pq = arrow()
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=BLOCK_ROWS, columns=columns)


def scan(paths: Sequence[Path]) -> dict[Key, Held]:
    """What some files hold; of two that hold the same thing the later one counts."""
    state: dict[Key, Held] = {}
    names = ("kind", "id", "size_bytes", "mtime_ns")
    for number, path in enumerate(paths):
        for block in read_blocks(path, names):
            for kind, name, *about in zip(*(block.column(name).to_pylist() for name in names), strict=True):
                held = state.get((kind, name))
                if held is not None and held.file == number:
                    held.rows += 1  # one more window
                else:
                    state[kind, name] = Held(number, 1, *(-1 if value is None else value for value in about))
    return state


def merge(
    paths: Sequence[Path],
    state: Mapping[Key, Held],
    order: Sequence[Key],
    width: int,
    about: Mapping[str, Any],
    out: Path,
    scratch: Path,
) -> int:
    """The rows of `order`, which lie in `paths` as `state` says, in one file; how many there are.

    Files are read once, front to back, and each row goes to its place in `scratch`, a file of records of one length.
    Whatever the order, there is never more than a block in memory.
    """
    record = record_type(width)
    next_row: dict[Key, int] = {}
    total = 0
    for key in order:
        next_row[key] = total
        total += state[key].rows
    try:
        with open(scratch, "w+b", buffering=0) as file:
            for number, path in enumerate(paths):
                for block in read_blocks(path):
                    keys = zip(block.column("kind").to_pylist(), block.column("id").to_pylist(), strict=True)
                    kept, places = [], []
                    for row, key in enumerate(keys):
                        if key in next_row and state[key].file == number:
                            kept.append(row)
                            places.append(next_row[key])
                            next_row[key] += 1
                    _write_records(file, to_records(block, record)[kept], np.array(places, np.int64))
            file.seek(0)
            write_rows(out, width, about, _read_records(file, state, order, record))
    finally:
        scratch.unlink(missing_ok=True)
    return total


def to_records(block: Any, record: np.dtype) -> np.ndarray:
    """A record batch without its names (N,)."""
    records = np.empty(block.num_rows, record)
    vectors = block.column("vector").flatten().to_numpy(zero_copy_only=False)
    records["vector"] = vectors.reshape(block.num_rows, -1)
    for name, null in (("begin_s", np.nan), ("end_s", np.nan), ("size_bytes", -1), ("mtime_ns", -1)):
        records[name] = block.column(name).fill_null(null).to_numpy(zero_copy_only=False)
    return records


def _write_records(file: Any, records: np.ndarray, places: np.ndarray) -> None:
    """Records to their places in a file, neighbours in one go."""
    by_place = np.argsort(places, kind="stable")
    records, places = records[by_place], places[by_place]
    for run in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) != 1) + 1):
        if len(run):
            file.seek(int(places[run[0]]) * records.dtype.itemsize)
            left = memoryview(records[run[0] : run[-1] + 1].tobytes())
            while left:  # an unbuffered write may take less than it is given
                left = left[file.write(left) :]


def _read_records(
    file: Any, state: Mapping[Key, Held], order: Sequence[Key], record: np.dtype
) -> Iterator[tuple[list[Key], np.ndarray]]:
    keys = itertools.chain.from_iterable(itertools.repeat(key, state[key].rows) for key in order)
    while block := list(itertools.islice(keys, BLOCK_ROWS)):
        yield block, np.fromfile(file, record, len(block))


def read_vectors(path: str | os.PathLike, kind: str | None = None) -> Embeddings:
    """The vectors that `unibrivl embed` wrote.

    Args:
        path: the parquet file.
        kind (`str`, *optional*): `"audio"`, `"image"` or `"text"`; needed where the file holds more than one.
    """
    about = read_about(path)
    _, pq = arrow()
    vectors = np.empty((pq.read_metadata(path).num_rows, about["width"]), np.float32)
    ids: list[str] = []
    times: list[tuple[float, float]] = []
    kinds: set[str] = set()
    with closing(read_blocks(path)) as blocks:
        for block in blocks:
            names, is_a = block.column("id").to_pylist(), block.column("kind").to_pylist()
            kinds |= set(is_a)
            wanted = [row for row, one in enumerate(is_a) if kind in (None, one)]
            records = to_records(block, record_type(about["width"]))[wanted]
            vectors[len(ids) : len(ids) + len(wanted)] = records["vector"]
            ids += [names[row] for row in wanted]
            if block.column("begin_s").null_count < len(names):
                times += list(zip(records["begin_s"].tolist(), records["end_s"].tolist(), strict=True))
    if kind is None and len(kinds) > 1:
        raise ValueError(f"{path} holds {' and '.join(sorted(kinds))} vectors: say which with kind=")
    if kind is not None and kind not in kinds:
        raise ValueError(f"{path} holds no {kind} vectors, but {' and '.join(sorted(kinds)) or 'none at all'}")
    return Embeddings(
        vectors=vectors[: len(ids)],
        ids=tuple(ids),
        kind=kind or next(iter(kinds), "audio"),
        fingerprint=about["fingerprint"],
        times=tuple(times) if times and not np.isnan(times[0][0]) else None,
    )
