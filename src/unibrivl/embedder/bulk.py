"""Any number of files into one file of vectors, in a run that may be stopped at any moment and goes on where it was.

While it runs, vectors go into parts in a folder beside the output. At the end they are merged in the order of the
inputs, the output is put in its place, and the parts are removed.
"""

from __future__ import annotations

import json
import os
import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from unibrivl.data.places import told, within_reach
from unibrivl.embedder import sounds, vector_file
from unibrivl.embedder.embedder import Embedder
from unibrivl.embedder.embeddings import Failure
from unibrivl.embedder.inputs import Input, find_inputs
from unibrivl.embedder.parts import Parts, beside
from unibrivl.embedder.vector_file import Held

MOST_AT_ONCE = 10_000  # sounds whose decoding is planned ahead
BATCHES_AT_ONCE = 8  # of pictures and texts
KINDS = ("audio", "image", "text")


class Stopped(KeyboardInterrupt):
    """Ctrl-C; the message says what is kept and how to go on."""


@dataclass(frozen=True)
class BulkReport:
    """What a run did.

    Args:
        path (`Path`): the file of vectors.
        rows (`int`): how many it holds.
        width (`int`): numbers in each.
        embedded, unchanged (`int`): things that were embedded now, and that were there.
        others (`int`): things that were there and are not among the inputs; they stay.
        failures (`tuple[Failure, ...]`): things that have no vector; also in `errors_path`.
    """

    path: Path
    rows: int
    width: int
    embedded: int
    unchanged: int
    others: int
    failures: tuple[Failure, ...]

    @property
    def errors_path(self) -> Path:
        return beside(self.path, ".errors.jsonl")


def embed_files(
    embedder: Embedder,
    paths: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    texts: Iterable[str] = (),
    kind: str = "auto",
    root: str | os.PathLike | None = None,
    windows: bool = False,
    restart: bool = False,
    progress: bool | None = None,
    crew: Any = None,
) -> BulkReport:
    """Embed files, folders and texts into `out`, a parquet file that `read_vectors` reads.

    Files that are in `out`, or in the parts of a run that was stopped, and have kept their size and time are not
    embedded again. Things that `out` holds beside the inputs stay in it. Ctrl-C raises `Stopped`; what was embedded
    until then is kept.

    Args:
        kind, root: see `find_inputs`.
        windows (`bool`): a row for every window, with its begin and end, instead of one for every sound.
        restart (`bool`): embed everything anew; an older `out` stays until the new one is whole.
        progress (`bool`, *optional*): a bar; by default on a terminal.
        crew (`RayCrew`, *optional*): who embeds, where it is not this process alone; see `bulk_ray`. What one began
            the other can finish.
    """
    out = check_out(out)
    inputs = find_inputs(paths, texts, kind=kind, root=root)
    check_inputs(embedder, inputs)
    with Parts(out, about(embedder, windows), restart) as parts:
        run = (Run if crew is None else crew.run)(embedder, inputs, parts, windows)
        try:
            try:
                run.embed(progress)
                return run.finish()
            finally:
                parts.flush()  # whatever ended the run, what is embedded is kept
                if not run.failures:
                    beside(out, ".errors.jsonl").unlink(missing_ok=True)
        except KeyboardInterrupt:
            raise Stopped(parts.how_to_go_on()) from None


def check_out(out: str | os.PathLike) -> Path:
    """The output's path, refused before anything is computed where nothing could be written."""
    vector_file.arrow()
    out = Path(os.path.abspath(out))
    if out.suffix != ".parquet":
        raise ValueError(f"vectors are written to a parquet file, and {out.name} does not end in .parquet")
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file in it")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):
        raise ValueError(f"{out.parent} cannot be written to: choose another place for {out.name}")
    return out


def check_inputs(embedder: Embedder, inputs: Sequence[Input]) -> None:
    if not inputs:
        raise ValueError("nothing to embed: no sound or picture in what was named, and no text")
    kinds = {one.kind for one in inputs if not one.error} - set(embedder.matcher.kinds)
    for one in inputs:
        if one.kind in kinds and not one.error:
            takes = " and ".join(embedder.matcher.kinds)
            raise ValueError(
                f"{embedder.matcher.name} embeds {takes}, and {one.id} is {one.kind}: leave it out, or choose what is "
                "taken with --kind (kind=)"
            )


def about(embedder: Embedder, windows: bool) -> dict[str, Any]:
    """What the file says of how its vectors were made."""
    import torch
    import transformers

    from unibrivl import __version__

    config = embedder.matcher.model.config
    settings = {"windows": windows, "window_s": float(embedder.window_s), "hop_s": float(embedder.hop_s)}
    return {
        "fingerprint": embedder.fingerprint,
        "model": getattr(config, "_name_or_path", ""),
        "revision": getattr(config, "_commit_hash", None),
        "settings": {**settings, **embedder.matcher.settings},
        "versions": {
            "unibrivl": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


class Run:
    """One call of `embed_files`: what is to be done, what is there, and what failed."""

    def __init__(self, embedder: Embedder, inputs: Sequence[Input], parts: Parts, windows: bool):
        self.embedder, self.inputs, self.parts, self.windows = embedder, inputs, parts, windows
        self.failures: list[Failure] = []
        state = parts.state()
        self.todo = [one for one in inputs if one.error or not is_there(one, state.get(one.key))]

    def embed(self, progress: bool | None) -> None:
        hidden = None if progress is None else not progress
        done = len(self.inputs) - len(self.todo)
        with (
            tqdm(total=len(self.inputs), initial=done, unit=" things", disable=hidden) as bar,
            open(beside(self.parts.out, ".errors.jsonl"), "w", encoding="ascii") as errors,
        ):
            for one in self.todo:
                if one.error:
                    self.fail(one, one.error, errors, bar)
            for kind in KINDS:
                wanted = [one for one in self.todo if one.kind == kind and not one.error]
                # sorted by name as the embedder does, so that batches do not depend on the order of the inputs
                self.embed_kind(kind, sorted(wanted, key=lambda one: one.path or one.id), errors, bar)
        self.parts.flush()

    def embed_kind(self, kind: str, wanted: Sequence[Input], errors: Any, bar: Any) -> None:
        """Things of one kind; what is no file of its own here is fetched, some of it at a time."""
        embed = {"audio": self.embed_audio, "image": self.embed_images, "text": self.embed_texts}[kind]
        for portion, broken in within_reach(wanted):
            for one, error in broken:
                self.fail(one, error, errors, bar)
            embed(portion, errors, bar)

    def fail(self, one: Input, error: object, errors: Any, bar: Any) -> None:
        failure = Failure(one.id, told(error, one))
        self.failures.append(failure)
        errors.write(json.dumps({"id": one.id, "kind": one.kind, "error": failure.error}) + "\n")
        errors.flush()
        bar.update()

    def embed_audio(self, wanted: Sequence[Input], errors: Any, bar: Any) -> None:
        embedder = self.embedder
        for start in range(0, len(wanted), MOST_AT_ONCE):
            chunk = wanted[start : start + MOST_AT_ONCE]
            paths = [one.path for one in chunk]
            rate_hz, order = embedder.matcher.sampling_rate, range(len(chunk))
            groups = sounds.groups(paths, order, rate_hz, embedder.window_s, embedder.hop_s, embedder.workers, {})
            with closing(groups):
                for pieces, unreadable in groups:
                    for broken in unreadable:
                        self.fail(chunk[broken.source], broken.error, errors, bar)
                    self.embed_group(chunk, pieces, bar)

    def embed_group(self, chunk: Sequence[Input], pieces: list[sounds.Piece], bar: Any) -> None:
        """The windows of some sounds; when interrupted, the sounds that are whole by then are kept."""
        expected = Counter(piece.source for piece in pieces)
        rows: dict[int, list[tuple[sounds.Piece, np.ndarray]]] = defaultdict(list)
        try:
            self.embedder._embed_pieces(pieces, rows, bar)
        finally:
            for index in sorted(rows):
                found = sorted(rows[index], key=lambda pair: pair[0].begin_s)
                if len(found) < expected[index]:
                    continue
                if self.windows:
                    self.parts.add(chunk[index], [(piece.begin_s, piece.end_s, vector) for piece, vector in found])
                else:
                    self.parts.add(chunk[index], [(np.nan, np.nan, sounds.mean_vector(found))])
        self.parts.flush_if_due()

    def embed_images(self, wanted: Sequence[Input], errors: Any, bar: Any) -> None:
        def encode(chunk: Sequence[Input]):
            names = [one.id for one in chunk]
            return self.embedder.encode_image(
                [one.path for one in chunk], on_error="collect", progress=False, ids=names
            )

        self.embed_chunks(wanted, encode, errors, bar)

    def embed_texts(self, wanted: Sequence[Input], errors: Any, bar: Any) -> None:
        def encode(chunk: Sequence[Input]):
            return self.embedder.encode_text([one.id for one in chunk])

        self.embed_chunks(wanted, encode, errors, bar)

    def embed_chunks(self, wanted: Sequence[Input], encode: Callable, errors: Any, bar: Any) -> None:
        at_once = BATCHES_AT_ONCE * self.embedder.batch_size
        waiting = [wanted[start : start + at_once] for start in range(0, len(wanted), at_once)][::-1]
        while waiting:
            chunk = waiting.pop()
            try:
                found = encode(chunk)
            except ValueError as error:
                if len(chunk) == 1:
                    self.fail(chunk[0], error, errors, bar)
                waiting += [[one] for one in reversed(chunk)] if len(chunk) > 1 else []
                continue
            by_name = {one.id: one for one in chunk}
            for name, vector in found:
                self.parts.add(by_name[name], [(np.nan, np.nan, vector)])
                bar.update()
            for failure in found.failures:
                self.fail(by_name[failure.id], failure.error, errors, bar)
            self.parts.flush_if_due()

    def finish(self) -> BulkReport:
        """Merge, where there is anything new; put the output in its place; remove the parts."""
        parts, done = self.parts, len(self.todo) - len(self.failures)
        state = parts.state()
        failed = {one.key for one in self.inputs if not is_there(one, state.get(one.key))}
        if len(failed) != len(self.failures):
            raise RuntimeError(f"parts have vanished from {parts.folder} during the run: start the same command again")
        named = dict.fromkeys(one.key for one in self.inputs)
        others = [key for key in state if key not in named]
        order = [*others, *(key for key in named if key not in failed)]
        rows, width = sum(state[key].rows for key in order), parts.width()
        if parts.numbers() or state.keys() - set(order):
            vector_file.merge(parts.files(), state, order, width, parts.about, parts.out, parts.folder / "scratch")
        parts.finished = True
        unchanged = len(self.inputs) - len(self.todo)
        return BulkReport(parts.out, rows, width, done, unchanged, len(others), tuple(self.failures))


def is_there(one: Input, held: Held | None) -> bool:
    """Whether there is a vector of this thing as it is now."""
    if held is None or one.error:
        return False
    return (held.size_bytes, held.mtime_ns) == (one.size_bytes, one.mtime_ns)
