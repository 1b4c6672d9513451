"""A segment: one safetensors file of vectors with their ids, and the rows that it takes the place of.

It is written whole or not at all and never changed, so whoever is killed leaves a state that was true. It is read
through the memory map: of ten million vectors only what a search touches is in memory.

Shapes: N rows, E embedding.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unibrivl.utils.files import written_whole

TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I64": np.dtype("<i8"), "U8": np.dtype("u1")}
MOST_HEADER = 1 << 20  # bytes; ours have a few hundred


@dataclass(frozen=True)
class Segment:
    """
    Args:
        vectors_NE (`np.ndarray`): a memory map.
        letters (`np.ndarray`): all ids one behind the other, as UTF-8.
        ends_N (`np.ndarray`): where each ends.
        dead (`np.ndarray`): rows, counted over all segments from the first, that count no longer from here on.
    """

    vectors_NE: np.ndarray
    letters: np.ndarray
    ends_N: np.ndarray
    dead: np.ndarray

    def __len__(self) -> int:
        return len(self.ends_N)

    def id_of(self, row: int) -> str:
        begin = int(self.ends_N[row - 1]) if row else 0
        return self.letters[begin : int(self.ends_N[row])].tobytes().decode("utf-8")

    def ids(self) -> list[str]:
        text, begins = self.letters.tobytes(), [0, *self.ends_N.tolist()]
        return [text[begin:end].decode("utf-8") for begin, end in zip(begins[:-1], begins[1:], strict=True)]


class Names:
    """Ids by position: those of a segment stay on the disk until they are asked for, new ones follow."""

    def __init__(self, kept: Segment | None = None):
        self.kept, self.new = kept, list[str]()
        self.first = 0 if kept is None else len(kept)

    def __len__(self) -> int:
        return self.first + len(self.new)

    def __getitem__(self, place: int) -> str:
        if self.kept is None or place >= self.first:
            return self.new[place - self.first]
        return self.kept.id_of(place)

    def __iter__(self) -> Iterator[str]:
        return itertools.chain([] if self.kept is None else self.kept.ids(), self.new)

    def extend(self, ids: Iterable[str]) -> None:
        self.new.extend(ids)


def write_segment(path: Path, ids: Iterable[str], vectors_NE: np.ndarray, dead: Sequence[int]) -> None:
    from safetensors.numpy import save_file

    words = [name.encode("utf-8") for name in ids]
    ends_N = np.cumsum([len(word) for word in words], dtype=np.int64)
    tensors = {
        "vectors": np.ascontiguousarray(vectors_NE),
        "letters": np.frombuffer(b"".join(words), np.uint8),
        "ends": ends_N,
        "dead": np.sort(np.asarray(dead, np.int64)),
    }
    with written_whole(path) as partial:
        save_file(tensors, partial, metadata={"unibrivl": "vectors under ids"})


def read_segment(path: Path) -> Segment:
    """The segment, mapped. safetensors' own reader for numpy copies a tensor, and these may not fit into memory."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= MOST_HEADER:
                raise ValueError(f"its header has {length} bytes")
            header = json.loads(file.read(length))
        whole = np.memmap(path, np.uint8, "r")
        found = {}
        for name in ("vectors", "letters", "ends", "dead"):
            about = header[name]
            begin, end = (8 + length + place for place in about["data_offsets"])
            if end > len(whole):
                raise ValueError(f"{name} would end at byte {end} of {len(whole)}")
            found[name] = whole[begin:end].view(TYPES[about["dtype"]]).reshape(about["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no segment of ours, or is damaged: {error}") from error
    if len(found["vectors"]) != len(found["ends"]):
        raise ValueError(f"{path} is damaged: {len(found['vectors'])} vectors and {len(found['ends'])} ids")
    return Segment(found["vectors"], found["letters"], found["ends"], found["dead"])
