"""Embeddings: vectors that know what they are of and which model made them.

Vectors of two models, or of one model with other preprocessing, look alike and mean nothing to each other. Everything
that joins or compares embeddings therefore goes through this type, which refuses to mix fingerprints.

Shapes: N rows, E embedding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from unibrivl.utils.files import written_whole

KINDS = ("audio", "image", "text")


class FingerprintMismatch(ValueError):
    """Vectors that were not made by the same model with the same preprocessing."""


@dataclass(frozen=True)
class Failure:
    """A source that could not be embedded, and why."""

    id: str
    error: str


@dataclass(frozen=True, eq=False)
class Embeddings:
    """
    Args:
        vectors (`np.ndarray`): (N, E) float32, l2-normalised.
        ids (`tuple[str, ...]`): what each row is of: a path, the text itself, or "#0", "#1" for things without a name.
        kind (`str`): "audio", "image" or "text".
        fingerprint (`str`): of the model and its preprocessing.
        times (`tuple[tuple[float, float], ...]`, *optional*): begin and end in seconds of each row, for windows.
        failures (`tuple[Failure, ...]`): sources that have no row, when errors were collected.
        against (`str`, *optional*): of texts whose model has one vector for sounds and another for pictures: which.
    """

    vectors: np.ndarray
    ids: tuple[str, ...]
    kind: str
    fingerprint: str
    times: tuple[tuple[float, float], ...] | None = None
    failures: tuple[Failure, ...] = field(default=())
    against: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {self.kind!r}")
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32:
            raise ValueError(f"vectors must be (N, E) float32, got {self.vectors.dtype} {self.vectors.shape}")
        for name, given in (("ids", self.ids), ("times", self.times)):
            if given is not None and len(given) != len(self.vectors):
                raise ValueError(f"{len(given)} {name} for {len(self.vectors)} vectors")

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        return iter(zip(self.ids, self.vectors, strict=True))

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray | str) -> Embeddings:
        """Rows by number, slice, list, mask or id; always Embeddings, also for one."""
        if isinstance(rows, str):
            found = [row for row, name in enumerate(self.ids) if name == rows]
            if not found:
                raise KeyError(rows)
            rows = found
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        return replace(
            self,
            vectors=self.vectors[chosen],
            ids=tuple(self.ids[row] for row in chosen),
            times=None if self.times is None else tuple(self.times[row] for row in chosen),
            failures=(),
        )

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"Embeddings({len(self)} {self.kind} x {self.vectors.shape[1]}{failed}, model {self.fingerprint[:12]})"

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.vectors, dtype=dtype, copy=True if copy is None else copy)

    def check_same_model(self, other: Embeddings) -> None:
        if self.fingerprint != other.fingerprint:
            raise FingerprintMismatch(
                f"these {self.kind} vectors are of model {self.fingerprint[:12]} and the {other.kind} ones of "
                f"{other.fingerprint[:12]}: they cannot be compared or joined. Embed both with one model and settings"
            )

    def check_made_for(self, other: Embeddings) -> None:
        wanted = other.against if other.kind == "text" else other.kind
        if self.against not in (None, wanted):
            raise FingerprintMismatch(
                f"these texts were encoded for comparison with {self.against} and not with {wanted}, for which this "
                f"model has another vector: call encode_text(..., against={wanted!r})"
            )

    def similarity(self, other: Embeddings) -> np.ndarray:
        """Cosines, (len(self), len(other))."""
        self.check_same_model(other)
        self.check_made_for(other)
        other.check_made_for(self)
        if not len(self) or not len(other):  # where nothing could be embedded the width is not known
            return np.zeros((len(self), len(other)), np.float32)
        return self.vectors @ other.vectors.T

    @staticmethod
    def join(parts: Sequence[Embeddings]) -> Embeddings:
        """The rows of all parts, in their order; one kind, one fingerprint."""
        if not parts:
            raise ValueError("nothing to join: pass at least one Embeddings")
        first = parts[0]
        for part in parts[1:]:
            first.check_same_model(part)
            if (part.kind, part.against, part.times is None) != (first.kind, first.against, first.times is None):
                raise ValueError("parts of different kinds, or with times and without, cannot be joined")
        return replace(
            first,
            vectors=np.concatenate([part.vectors for part in parts]),
            ids=tuple(name for part in parts for name in part.ids),
            times=None if first.times is None else tuple(time for part in parts for time in part.times or ()),
            failures=tuple(failure for part in parts for failure in part.failures),
        )

    def save(self, path: str | os.PathLike) -> None:
        """One safetensors file, written whole or not at all."""
        from safetensors.numpy import save_file

        path = Path(path)
        about = {
            "ids": list(self.ids),
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "times": self.times,
            "failures": [[failure.id, failure.error] for failure in self.failures],
            "against": self.against,
        }
        with written_whole(path) as partial:
            vectors = np.ascontiguousarray(self.vectors)
            save_file({"vectors": vectors}, partial, metadata={"unibrivl": json.dumps(about)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> Embeddings:
        """What `save` wrote, or with the suffix .parquet what `unibrivl embed` wrote, if that is of one kind."""
        from safetensors import SafetensorError, safe_open

        if Path(path).suffix == ".parquet":
            from unibrivl.embedder.vector_file import read_vectors

            return read_vectors(path)

        try:
            with safe_open(path, "np") as file:
                about = json.loads((file.metadata() or {})["unibrivl"])
                return cls(
                    vectors=file.get_tensor("vectors"),
                    ids=tuple(about["ids"]),
                    kind=about["kind"],
                    fingerprint=about["fingerprint"],
                    times=None if about["times"] is None else tuple((begin, end) for begin, end in about["times"]),
                    failures=tuple(Failure(*row) for row in about["failures"]),
                    against=about.get("against"),
                )
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no embeddings of ours, or is damaged: {error}") from error
