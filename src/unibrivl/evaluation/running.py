"""One benchmark on one encoder: what is there is used, what is not is made, and every score says where it is from."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from unibrivl.data import Listing
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.prompts import PROMPTS, Prompts
from unibrivl.evaluation.scores import Score, read_scores, write_scores
from unibrivl.metrics import wilson
from unibrivl.utils.state_of_code import version

PARTS = ("TITLE", "PROTOCOL", "NEEDS", "load", "run")  # what a module has to have to be a benchmark


@dataclass(frozen=True)
class Settings:
    """
    Args:
        prompts (`str`): one of `PROMPTS`.
        limit (`int`, *optional*): clips of each fold or split at most, to try things: scores then say so.
        seed (`int`): of what is drawn.
        repeats (`int`): how often pictures are drawn, each time by the next seed.
        judge (*optional*): of pictures, see `judges`; benchmarks of pictures need one.
    """

    prompts: str = "label"
    limit: int | None = None
    seed: int = 2021
    repeats: int = 1
    judge: Any = None

    def __post_init__(self) -> None:
        if self.prompts not in PROMPTS:
            raise ValueError(f"prompts is one of {', '.join(PROMPTS)}; got {self.prompts!r}")
        if self.repeats < 1:
            raise ValueError(f"repeats is how often pictures are drawn, from 1; got {self.repeats}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is how many clips are taken, from 1; got {self.limit}")

    @property
    def how(self) -> Prompts:
        return PROMPTS[self.prompts]

    @property
    def seeds(self) -> range:
        """Of the pictures."""
        return range(self.seed, self.seed + self.repeats)

    @property
    def told(self) -> tuple[str, ...]:
        """What of these decides a score, but for the clips that a limit leaves."""
        judge = "" if self.judge is None else f"{self.judge.name}, {self.judge.fingerprint}"
        return self.how.version, str(self.seed), str(self.repeats), judge


@dataclass(frozen=True)
class Found:
    """A number that a benchmark computed; what else a `Score` has is added where it is known.

    Args:
        expected (`int`, *optional*): items there are officially, where that is not the listing's own number.
    """

    metric: str
    value: float
    n: int
    protocol: str
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    seed: int | None = None
    extra: dict[str, Any] | None = None
    expected: int | None = None

    @classmethod
    def share(cls, metric: str, hits: int, n: int, protocol: str, **more: Any) -> Found:
        """A proportion, with Wilson's interval."""
        low, high = wilson(hits, n)
        return cls(metric, hits / n, n, protocol, low, high, **more)


def evaluate(
    benchmark: str | ModuleType,
    encoder: Any,
    data: str | os.PathLike,
    out: str | os.PathLike = "runs/eval",
    settings: Settings | None = None,
    *,
    command: str | None = None,
    restart: bool = False,
    progress: bool | None = None,
) -> list[Score]:
    """The scores of a benchmark, from `out` if the same encoder was scored on the same clips in the same way.

    Args:
        benchmark: a name in `BENCHMARKS`, or a module of your own that has `PARTS`.
        encoder: see `encoders`.
        data: the data set's folder.
        out: vectors and scores are kept in it.
        command (*optional*): what the scores say was run; by default this process's own.
        restart (`bool`): score anew; vectors that are kept are used all the same.
    """
    name, module = named(benchmark)
    settings = settings or Settings()
    listing = limited(module.load(data), settings.limit)
    folder = Path(out) / name
    vectors = Vectors(encoder, folder / "vectors", progress)
    vectors.check(module.NEEDS)
    path = folder / f"{slug(vectors.name)}-{key_of(module, vectors, listing, settings)}.json"
    if path.exists() and not restart and vectors.fingerprint:
        return read_scores(path)
    found, state = module.run(vectors, listing, settings), version()
    scores = [
        Score(
            benchmark=name,
            model=vectors.name,
            fingerprint=vectors.fingerprint or "none: nothing tells these weights from others",
            command=command or command_of(sys.argv),
            commit=state,
            missing=tuple(one.id for one in listing.missing),
            **{
                **vars(one),
                "expected": listing.expected if one.expected is None else one.expected,
                "extra": {**(one.extra or {}), "limit": settings.limit},
            },
        )
        for one in found
    ]
    write_scores(path, scores)
    return scores


def named(benchmark: str | ModuleType) -> tuple[str, Any]:
    """The name that stands beside a benchmark's scores, and its module; what is none is refused."""
    from unibrivl.evaluation import BENCHMARKS, load_benchmark

    if isinstance(benchmark, str):
        return benchmark, load_benchmark(benchmark)
    lacks = [part for part in ("__name__", *PARTS) if not hasattr(benchmark, part)]
    if lacks:
        raise ValueError(f"{benchmark!r} is no benchmark: a module that is one has {', '.join(lacks)} too")
    name = benchmark.__name__.rpartition(".")[2]
    if name in BENCHMARKS and load_benchmark(name) is not benchmark:
        raise ValueError(f"{name!r} is a benchmark of this package: give the file of yours another name")
    return name, benchmark


def limited(listing: Listing, limit: int | None) -> Listing:
    """The first clips of each class in each fold, or split."""
    if limit is None:
        return listing
    counts: dict[Any, int] = {}

    def keep(one: Any) -> bool:
        key = one.fold, one.split, one.labels
        counts[key] = counts.get(key, 0) + 1
        return counts[key] <= limit

    return replace(listing, samples=tuple(one for one in listing.samples if keep(one)))


def key_of(module: Any, vectors: Vectors, listing: Listing, settings: Settings) -> str:
    """Changes with whatever decides a score."""
    told = [vectors.fingerprint, module.PROTOCOL, *settings.told]
    return hashlib.sha256("\n".join([*told, *(one.id for one in listing)]).encode()).hexdigest()[:12]


def slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-") or "model"


def command_of(words: Sequence[str]) -> str:
    return shlex.join([os.path.basename(words[0]) if words else "python", *words[1:]])
