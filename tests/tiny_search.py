"""An embedder of bytes for tests of the index: it needs no torch, and its vectors say which bytes they are of."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from unibrivl.embedder.inputs import find_inputs
from unibrivl.search import Index, update

WIDTH = 16


def of_bytes(content: bytes) -> np.ndarray:
    """A vector that says which bytes it is of."""
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return vector / np.linalg.norm(vector)


@dataclass
class Found:
    """What an index reads of Embeddings."""

    vectors: np.ndarray
    ids: tuple[str, ...]
    kind: str
    fingerprint: str
    times: tuple[tuple[float, float], ...] | None = None
    failures: tuple = ()
    against: str | None = None

    def __len__(self) -> int:
        return len(self.vectors)


class ByBytes:
    """An embedder of bytes: a window for every ten of a sound, "broken" cannot be read. It counts what it embeds."""

    batch_size, fingerprint = 2, "f" * 64

    def __init__(self, wait_s: float = 0.0):
        self.seen: list[str] = []
        self.wait_s = wait_s

    def encode_audio(self, paths, *, timestamps=False, ids=None, **_):
        return self._made(paths, ids or paths, "audio", timestamps)

    def encode_image(self, paths, *, ids=None, **_):
        return self._made(paths, ids or paths, "image", False)

    def encode_text(self, texts, *, against="audio"):
        vectors = np.stack([of_bytes(text.encode() + against.encode()) for text in texts])
        return Found(vectors, tuple(texts), "text", self.fingerprint, against=against)

    def _made(self, paths, ids, kind, windows):
        time.sleep(self.wait_s)
        rows, names, times, failures = [], [], [], []
        for path, name in zip(paths, ids, strict=True):
            content = Path(path).read_bytes()
            self.seen.append(Path(path).name)
            if content == b"broken":
                failures.append(SimpleNamespace(id=name, error="it is broken"))
                continue
            for begin in range(0, len(content), 10) if windows else [0]:
                rows.append(of_bytes(content[begin : begin + 10] if windows else content))
                names.append(name)
                times.append((begin / 10, min(begin + 10, len(content)) / 10))
        vectors = np.stack(rows) if rows else np.zeros((0, WIDTH), np.float32)
        return Found(vectors, tuple(names), kind, self.fingerprint, tuple(times) if windows else None, tuple(failures))


def bring_up(folder: Path, out: Path, embedder: ByBytes | None = None, engine: str = "exact", **options):
    embedder = embedder or ByBytes()
    if not (out / "index.json").exists():
        Index.create(out, fingerprint=embedder.fingerprint, model="by bytes", engine=engine).close()
    with Index.open(out, write=True) as index:
        return update(index, embedder, find_inputs([folder]), folders=[folder], progress=False, **options)
