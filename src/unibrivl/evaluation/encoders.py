"""What a benchmark asks of a model, and vectors that are computed once.

`unibrivl.load` gives such an encoder. A model of your own is a small class:

    class Mine:
        name, fingerprint = "mine", "weights of 2026-11-21"      # without a fingerprint nothing is kept

        def encode_audio(self, paths): ...                       # (N, E)
        def encode_text(self, texts): ...                        # (N, E)
        def generate(self, paths, seeds): ...                    # a Pillow picture for each sound and its seed

Shapes: N things, E numbers of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from unibrivl.metrics import cached_features

AT_ONCE = 128  # things whose vectors are kept together: what a kill may cost
KINDS = {"audio": "encode_audio", "image": "encode_image", "text": "encode_text"}
METHODS = {**KINDS, "text_cut": "encode_text_cut", "generate": "generate"}  # what else a benchmark may ask for


class Vectors:
    """An encoder's vectors of length one, kept on the disk under its fingerprint.

    Args:
        encoder: see above.
        folder (*optional*): where they are kept; None keeps none.
        progress (`bool`, *optional*): a bar; by default on a terminal.
    """

    def __init__(self, encoder: Any, folder: Path | None = None, progress: bool | None = None):
        self.encoder, self.folder, self.progress = encoder, folder, progress
        self.name = str(getattr(encoder, "name", "") or type(encoder).__name__)
        self.fingerprint = str(getattr(encoder, "fingerprint", "") or "")
        if folder is not None:  # each model in a folder of its own
            of_model = hashlib.sha256(self.fingerprint.encode()).hexdigest()[:12]
            self.folder = folder / of_model if self.fingerprint else None

    def check(self, kinds: Sequence[str]) -> None:
        """Refuses an encoder that lacks what a benchmark needs, before anything is computed."""
        for kind in kinds:
            if not self.can(kind):
                raise ValueError(f"{self.name} has no {METHODS[kind]}, which this benchmark needs")

    def can(self, kind: str) -> bool:
        return callable(getattr(self.encoder, METHODS[kind], None))

    def beside(self, name: str) -> Path | None:
        """A folder of this model's own for other things that are kept, if vectors are."""
        return None if self.folder is None else self.folder.parents[1] / name / self.folder.name

    def of(self, kind: str, things: Sequence[Any], ids: Sequence[str] | None = None) -> np.ndarray:
        """(N, E).

        Args:
            kind (`str`): "audio", "image" or "text"; "text_cut" of an encoder that offers it.
            things: paths, or texts.
            ids (*optional*): unlike names of the things; by default what they are.
        """
        names = [str(one) for one in (things if ids is None else ids)]
        encode, rows = getattr(self.encoder, METHODS[kind]), []
        starts = range(0, len(things), AT_ONCE)
        with tqdm(total=len(things), unit=f" {kind}", disable=None if self.progress is None else not self.progress,
                  leave=False) as bar:  # fmt: skip
            for start in starts:
                some = list(things[start : start + AT_ONCE])
                named = names[start : start + AT_ONCE]
                rows.append(self._kept(kind, some, named, encode))
                bar.update(len(some))
        vectors_NE = np.concatenate(rows).astype(np.float32)
        return vectors_NE / np.maximum(np.linalg.norm(vectors_NE, axis=1, keepdims=True), 1e-12)

    def _kept(self, kind: str, some: list[Any], named: list[str], encode: Any) -> np.ndarray:
        """Vectors of some things, from the disk if they are there."""

        def compute(_: Any) -> np.ndarray:
            return as_rows(encode(some), len(some), self.name)

        if self.folder is None:
            return compute(named)
        key = hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]
        return cached_features(self.folder / f"{kind}-{key}.npz", named, self.fingerprint, compute)


def as_rows(found: Any, number: int, name: str) -> np.ndarray:
    """What an encoder gave, as an array of one row a thing."""
    found = getattr(found, "vectors", found)
    if hasattr(found, "detach"):
        found = found.detach().float().cpu().numpy()
    rows_NE = np.asarray(found, dtype=np.float32)
    if rows_NE.ndim != 2 or len(rows_NE) != number or not np.isfinite(rows_NE).all():
        raise ValueError(f"{name} gave {rows_NE.shape} for {number} things: an encoder gives one finite row for each")
    return rows_NE
