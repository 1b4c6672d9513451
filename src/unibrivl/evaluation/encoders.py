"""What a benchmark asks of a model, and vectors that are computed once.

`unibrivl.load` gives such an encoder. A model of your own is a small class:

    class Mine:
        name, fingerprint = "mine", "weights of 2026-11-21"      # without a fingerprint nothing is kept

        def encode_audio(self, paths): ...                       # (N, E)
        def encode_text(self, texts): ...                        # (N, E)
        def generate(self, paths, seeds): ...                    # a Pillow picture for each sound and its seed

What writes has `caption(paths)` or `transcribe(paths)` instead: a text for each sound.

Shapes: N things, E numbers of a vector.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from unibrivl.metrics import cached_features

AT_ONCE = 128  # things whose vectors are kept together: what a kill may cost
KINDS = {"audio": "encode_audio", "image": "encode_image", "text": "encode_text"}
WRITTEN = {"captions": "caption", "transcripts": "transcribe"}  # what is written of sounds
METHODS = {**KINDS, **WRITTEN, "text_cut": "encode_text_cut", "generate": "generate"}  # what a benchmark may ask for
Given = Callable[[list[Any]], AbstractContextManager[list[Any]]]


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

    def of(
        self, kind: str, things: Sequence[Any], ids: Sequence[str] | None = None, given: Given = nullcontext
    ) -> np.ndarray:
        """(N, E).

        Args:
            kind (`str`): "audio", "image" or "text"; "text_cut" of an encoder that offers it.
            things: paths, or texts.
            ids (*optional*): unlike names of the things; by default what they are.
            given (*optional*): makes what the encoder gets of some things that are no paths, and takes it back.
        """
        encode = getattr(self.encoder, METHODS[kind])
        rows = [self._kept(kind, some, named, encode, given) for some, named in self._blocks(kind, things, ids)]
        vectors_NE = np.concatenate(rows).astype(np.float32)
        return vectors_NE / np.maximum(np.linalg.norm(vectors_NE, axis=1, keepdims=True), 1e-12)

    def written(self, kind: str, paths: Sequence[Any], ids: Sequence[str] | None = None) -> list[str]:
        """A text for each sound, kept as vectors are.

        Args:
            kind (`str`): "captions" or "transcripts".
            paths, ids: as of `of`.
        """
        write = getattr(self.encoder, WRITTEN[kind])
        texts: list[str] = []
        for some, named in self._blocks(kind, paths, ids):
            path = None if self.folder is None else self.folder / f"{kind}-{block_key(named)}.json"
            found = None if path is None else read_texts(path, named, self.fingerprint)
            if found is None:
                found = as_texts(write(some), len(some), self.name)
                if path is not None:
                    write_texts(path, named, self.fingerprint, found)
            texts += found
        return texts

    def _blocks(
        self, kind: str, things: Sequence[Any], ids: Sequence[str] | None
    ) -> Iterator[tuple[list[Any], list[str]]]:
        """Some things at a time and their names, under a bar."""
        names = [str(one) for one in (things if ids is None else ids)]
        with tqdm(total=len(things), unit=f" {kind}", disable=None if self.progress is None else not self.progress,
                  leave=False) as bar:  # fmt: skip
            for start in range(0, len(things), AT_ONCE):
                some = list(things[start : start + AT_ONCE])
                yield some, names[start : start + AT_ONCE]
                bar.update(len(some))

    def _kept(self, kind: str, some: list[Any], named: list[str], encode: Any, given: Given) -> np.ndarray:
        """Vectors of some things, from the disk if they are there."""

        def compute(_: Any) -> np.ndarray:
            with given(some) as what:
                return as_rows(encode(what), len(some), self.name)

        if self.folder is None:
            return compute(named)
        return cached_features(self.folder / f"{kind}-{block_key(named)}.npz", named, self.fingerprint, compute)


def block_key(named: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]


def as_rows(found: Any, number: int, name: str) -> np.ndarray:
    """What an encoder gave, as an array of one row a thing."""
    found = getattr(found, "vectors", found)
    if hasattr(found, "detach"):
        found = found.detach().float().cpu().numpy()
    rows_NE = np.asarray(found, dtype=np.float32)
    if rows_NE.ndim != 2 or len(rows_NE) != number or not np.isfinite(rows_NE).all():
        raise ValueError(f"{name} gave {rows_NE.shape} for {number} things: an encoder gives one finite row for each")
    return rows_NE


def as_texts(found: Any, number: int, name: str) -> list[str]:
    """What a model wrote, as one text for each sound; "" is one."""
    texts = [found] if isinstance(found, str) else list(found)
    if len(texts) != number or not all(isinstance(one, str) for one in texts):
        raise ValueError(f"{name} wrote {len(texts)} texts for {number} sounds: it gives one string for each")
    return texts


def write_texts(path: Path, named: Sequence[str], fingerprint: str, texts: Sequence[str]) -> None:
    """A file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    told = {"fingerprint": fingerprint, "texts": dict(zip(named, texts, strict=True))}
    partial.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_texts(path: Path, named: Sequence[str], fingerprint: str) -> list[str] | None:
    """What `write_texts` wrote of just these sounds; None where it is not there, or is another's."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["fingerprint"] != fingerprint or list(told["texts"]) != list(named):
            return None
        return as_texts(told["texts"].values(), len(named), path.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
