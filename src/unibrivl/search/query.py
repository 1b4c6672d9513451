"""What is asked for: a sound, a picture, a text, or a mixture of them with weights.

Shapes: E embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Part:
    """One thing of a mixture.

    Args:
        name (`str`): what it is called when a hit says why it was found.
        vectors (`Mapping[str, np.ndarray]`): its vector (E,) for each kind that is searched: of texts some models
            have one for sounds and another for pictures. Under "" the one for all others.
        weight (`float`): below zero for what should not be there.
    """

    name: str
    vectors: Mapping[str, np.ndarray]
    weight: float = 1.0

    def vector(self, kind: str) -> np.ndarray:
        if kind == "text" and kind not in self.vectors:  # of whichever side: no model has texts for texts
            return next(iter(self.vectors.values()))
        if kind not in self.vectors and "" not in self.vectors:
            made = " and ".join(sorted(self.vectors))
            raise ValueError(f"{self.name} was encoded for comparison with {made} and not with {kind}")
        return self.vectors[kind] if kind in self.vectors else self.vectors[""]


@dataclass(frozen=True)
class Query:
    """
    Args:
        parts (`tuple[Part, ...]`): at least one.
        fingerprint (`str`): of the model that made the vectors; empty for vectors that nobody vouches for.
    """

    parts: tuple[Part, ...]
    fingerprint: str = ""

    def vector(self, kind: str) -> np.ndarray:
        """The sum of the parts by their weights, of length one."""
        total_E = np.sum([part.weight * part.vector(kind).astype(np.float64) for part in self.parts], axis=0)
        length = float(np.linalg.norm(total_E))
        if not length > 1e-6:  # NaN is not above it either
            raise ValueError("the parts of the query cancel each other out: choose other weights")
        return (total_E / length).astype(np.float32)

    def why(self, kind: str, vector_E: np.ndarray) -> tuple[tuple[str, float], ...]:
        """How near each part is to something that was found."""
        return tuple((part.name, float(part.vector(kind) @ vector_E)) for part in self.parts)

    @staticmethod
    def of(thing: Any, weight: float = 1.0) -> Query:
        """Of Embeddings with one row, an array (E,), or a query, which stays as it is."""
        if isinstance(thing, Query):
            return thing
        if hasattr(thing, "fingerprint"):
            if len(thing) != 1:
                raise ValueError(f"a query is one vector, and these are {len(thing)}: take one row, or mix them")
            key = getattr(thing, "against", None) or ""
            return Query((Part(f"{thing.kind} {thing.ids[0]}", {key: thing.vectors[0]}, weight),), thing.fingerprint)
        vector_E = np.asarray(thing, np.float32)
        if vector_E.ndim != 1:
            raise ValueError(f"a query is one vector (E,), got {vector_E.shape}")
        return Query((Part("vector", {"": vector_E}, weight),))

    @staticmethod
    def mix(things: Iterable[tuple[Any, float]]) -> Query:
        """Things, as `of` takes them, with their weights."""
        queries = [Query.of(thing, weight) for thing, weight in things]
        if not queries:
            raise ValueError("nothing is asked for: mix at least one thing")
        made = {query.fingerprint for query in queries if query.fingerprint}
        if len(made) > 1:
            raise ValueError("the parts were embedded by different models: embed all of them with one")
        return Query(tuple(part for query in queries for part in query.parts), "".join(made))


def encoded(
    embedder: Any,
    kinds: Sequence[str],
    *,
    audio: Sequence[tuple[Any, float]] = (),
    image: Sequence[tuple[Any, float]] = (),
    text: Sequence[tuple[str, float]] = (),
) -> Query:
    """Sounds, pictures and texts with their weights, as a query.

    Args:
        embedder: a `unibrivl.embedder.Embedder`, or whatever has its verbs.
        kinds (`Sequence[str]`): what will be searched.
    """
    parts = []
    for sound, weight in audio:
        parts.append(Part(f"audio {sound}", {"": embedder.encode_audio([sound]).vectors[0]}, weight))
    for picture, weight in image:
        parts.append(Part(f"image {picture}", {"": embedder.encode_image([picture]).vectors[0]}, weight))
    for words, weight in text:
        vectors = {
            kind: embedder.encode_text([words], against=kind).vectors[0] for kind in kinds if kind != "text"
        }  # of a model whose texts do not differ this is the same vector again, and short
        parts.append(Part(f"text {words!r}", vectors or {"": embedder.encode_text([words]).vectors[0]}, weight))
    if not parts:
        raise ValueError("nothing is asked for: name a sound, a picture or a text")
    return Query(tuple(parts), embedder.fingerprint)
