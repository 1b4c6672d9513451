"""Sounds on their way to a model: decoded ahead in threads, cut into windows, gathered into batches of like length.

Which windows meet in a batch depends on the set of sounds alone and never on the order they came in, so that a vector
is the same to the last bit however its neighbours were sorted. Memory is bounded: a group of sounds is decoded while
the one before it is computed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from unibrivl.audio import Window, load_audio, split_windows

GROUP_SECONDS = 600.0  # of sound in a group, 38 MB at 16 kHz, and as much again decoded ahead
FIRST_GROUP_SECONDS = 60.0  # the first is small, so that the model starts early; each next one twice as large
PADDING_S = 0.5  # of padding in a batch at most: what one more forward pass costs, measured on SpeechLM Base
CPU_BATCH_S = 16.0  # of sound in a batch on a CPU, where longer ones gain nothing and take more memory


@dataclass(frozen=True)
class Piece:
    """A window of a sound: which source it is of, and when."""

    source: int
    samples: np.ndarray
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Unreadable:
    """A source that could not be decoded."""

    source: int
    error: Exception


def canonical_order(sources: Sequence[Any]) -> list[int]:
    """The sources by name, and those without one by their content: the same for every order they came in."""
    return sorted(range(len(sources)), key=lambda index: (sort_key(sources[index]), index))


def sort_key(source: Any) -> str:
    """A path as it is, of all else a digest of its samples or pixels; file objects keep their place."""
    if isinstance(source, dict):  # an Audio value of datasets
        source = next((source[key] for key in ("path", "bytes", "array") if source.get(key) is not None), b"")
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    content = getattr(source, "samples", source)
    if hasattr(content, "cpu"):
        content = content.detach().cpu().numpy()
    if not isinstance(content, (bytes, bytearray)):
        content = content.tobytes() if hasattr(content, "tobytes") else b""
    return "#" + hashlib.sha256(content).hexdigest()


def groups(
    sources: Sequence[Any],
    order: Sequence[int],
    rate_hz: int,
    window_s: float,
    hop_s: float | None,
    workers: int,
    options: dict,
) -> Generator[tuple[list[Piece], list[Unreadable]], None, None]:
    """The windows of all sources, group by group, what follows being decoded in threads while one is used.

    Groups are cut by seconds of sound in the canonical order, so they do not depend on which thread was faster. Close
    the iterator when leaving it early: threads may be waiting.
    """

    def read(index: int) -> list[Piece] | Unreadable:
        try:
            sound = load_audio(sources[index], rate_hz=rate_hz, **options)
        except (ValueError, OSError, ImportError) as error:
            return Unreadable(index, error)
        return [_piece(index, window) for window in split_windows(sound, window_s, hop_s)]

    pieces: list[Piece] = []
    unreadable: list[Unreadable] = []
    size, held = min(FIRST_GROUP_SECONDS, GROUP_SECONDS), 0.0
    with closing(decoded_ahead(read, order, workers)) as found:
        for result in found:
            if isinstance(result, Unreadable):
                unreadable.append(result)
            else:
                pieces += result
            held += seconds_of(result)
            if held >= size or unreadable:
                yield pieces, unreadable
                pieces, unreadable = [], []
                size, held = min(2 * size, GROUP_SECONDS), 0.0
    if pieces:
        yield pieces, unreadable


def seconds_of(result: list[Piece] | Unreadable) -> float:
    return 0.0 if isinstance(result, Unreadable) else result[-1].end_s


class Turns:
    """Who may decode: anybody while little lies ready, and always the one that is waited for."""

    def __init__(self, read: Callable[[int], Any]):
        self.read = read
        self.changed = threading.Condition()
        self.ready_s, self.taken, self.closed = 0.0, 0, False

    def decode(self, turn: int, index: int):
        with self.changed:
            self.changed.wait_for(lambda: self.closed or turn == self.taken or self.ready_s < GROUP_SECONDS)
            if self.closed:
                return None
        result = self.read(index)
        with self.changed:
            self.ready_s += seconds_of(result)
        return result

    def take(self, result) -> None:
        with self.changed:
            self.ready_s -= seconds_of(result)
            self.taken += 1
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()


def decoded_ahead(read: Callable[[int], Any], order: Sequence[int], workers: int) -> Generator[Any, None, None]:
    """`read` of each index in order, in threads that run at most `GROUP_SECONDS` of sound ahead."""
    turns = Turns(read)
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="unibrivl-decode")
    try:
        coming = deque(pool.submit(turns.decode, turn, index) for turn, index in enumerate(order))
        while coming:
            result = coming.popleft().result()
            turns.take(result)
            yield result
    finally:
        turns.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _piece(index: int, window: Window) -> Piece:
    return Piece(index, window.samples, window.start_s, window.end_s)


def batches(
    pieces: Sequence[Piece], batch_size: int, rate_hz: int, batch_by: str = "padding", most_s: float = float("inf")
) -> Iterator[list[int]]:
    """Numbers of pieces that run together: longest first, so that memory peaks at once and padding is least.

    A batch ends at `batch_size` pieces, at `most_s` seconds, or when its padding would exceed `PADDING_S`. With
    `batch_by="length"` only pieces of one length share one, for towers in which padding leaks.
    """
    allowed = 0 if batch_by == "length" else PADDING_S * rate_hz
    batch: list[int] = []
    padding = longest = 0
    for number in sorted(range(len(pieces)), key=lambda index: -len(pieces[index].samples)):
        samples = len(pieces[number].samples)
        padding += longest - samples
        full = len(batch) == batch_size or (len(batch) + 1) * longest > most_s * rate_hz
        if batch and (full or padding > allowed):
            yield batch
            batch = []
        if not batch:
            longest, padding = samples, 0
        batch.append(number)
    if batch:
        yield batch


def ahead(
    order: Sequence[int], function, sources: Sequence[Any], size: int, workers: int
) -> Iterator[list[tuple[int, Any]]]:
    """`function` of the sources in groups of `size`, one group ahead in threads; an exception is a result too."""

    def attempt(index: int):
        try:
            return index, function(sources[index])
        except (ValueError, OSError, ImportError) as error:
            return index, error

    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        coming = [pool.submit(attempt, index) for index in chunks[0]] if chunks else []
        for following in [*chunks[1:], []]:
            now, coming = coming, [pool.submit(attempt, index) for index in following]
            yield [future.result() for future in now]


def mean_vector(found: list[tuple[Piece, np.ndarray]]) -> np.ndarray:
    """Of one sound: its windows' vectors, weighted by how long each is; a single window's own, untouched."""
    if len(found) == 1:
        return found[0][1]
    seconds = np.array([piece.end_s - piece.begin_s for piece, _ in found])
    mean = (np.stack([vector for _, vector in found]).astype(np.float64) * seconds[:, None]).sum(0)
    return (mean / np.linalg.norm(mean)).astype(np.float32)
