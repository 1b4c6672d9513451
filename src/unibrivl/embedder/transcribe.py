"""The sounds of a folder, written down in a run that may be stopped at any moment and goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from unibrivl.audio import load_audio
from unibrivl.data.transcripts import Transcript, TranscriptFile, errors_beside, file_for
from unibrivl.embedder.embeddings import Failure
from unibrivl.embedder.inputs import Input, find_inputs
from unibrivl.embedder.sounds import ahead

WORKERS = 2  # threads that decode ahead


class Writes(Protocol):
    """What writes down what is said: `Transcriber`, or anything of this shape."""

    sampling_rate: int
    batch_size: int

    @property
    def settings(self) -> dict[str, Any]: ...

    def __call__(self, clips: Sequence[np.ndarray]) -> list[str]: ...


@dataclass(frozen=True)
class TranscribeReport:
    """What a run did.

    Args:
        path (`Path`): the file of transcripts.
        written, unchanged (`int`): sounds that were heard now, and that had been.
        empty (`int`): of all of them those in which nothing is said.
        failures (`tuple[Failure, ...]`): sounds that could not be read; also in `errors_path`.
    """

    path: Path
    written: int
    unchanged: int
    empty: int
    failures: tuple[Failure, ...]

    @property
    def errors_path(self) -> Path:
        return errors_beside(self.path)


def transcribe_files(
    writer: Writes | Callable[[Sequence[np.ndarray]], list[str]],
    folder: str | os.PathLike,
    *,
    out: str | os.PathLike | None = None,
    restart: bool = False,
    progress: bool | None = None,
) -> TranscribeReport:
    """Write down every sound below `folder` into a file there; see `unibrivl.data.transcripts`.

    Sounds that were heard before and have kept their size and time are not heard again.

    Args:
        writer: with `settings`, `sampling_rate` and `batch_size`; clips -> texts.
        out (*optional*): another file for the transcripts.
        restart (`bool`): hear everything anew.
        progress (`bool`, *optional*): a bar; by default on a terminal.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name the one that holds the sounds")
    settings = dict(writer.settings)  # type: ignore[union-attr]
    path = file_for(folder, settings) if out is None else Path(out)
    place = next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(place, os.W_OK):
        raise ValueError(f"{place} cannot be written to: name another place for the transcripts with --out")
    inputs = [one for one in find_inputs([folder], kind="audio", root=folder) if one.kind == "audio"]
    if not inputs:
        raise ValueError(f"there is no sound below {folder}")
    kept = TranscriptFile(path, settings, restart)
    todo = [one for one in inputs if one.error or not kept.has(name_of(one), one.size_bytes, one.mtime_ns)]
    run = Run(writer, kept, inputs, todo)
    failures = run.write(None if progress is None else not progress)
    heard = [kept.found[name] for name in map(name_of, inputs) if name in kept.found]
    return TranscribeReport(
        path=path,
        written=len(todo) - len(failures),
        unchanged=len(inputs) - len(todo),
        empty=sum(not one.text for one in heard),
        failures=failures,
    )


def name_of(one: Input) -> str:
    """The sound as the file of transcripts calls it, on every system."""
    return one.id.replace(os.sep, "/")


class Run:
    """What is to be heard, and where it goes."""

    def __init__(self, writer: Any, kept: TranscriptFile, inputs: Sequence[Input], todo: Sequence[Input]):
        self.writer, self.kept, self.total = writer, kept, len(inputs)
        # by size: sounds of like length share a batch
        self.todo = sorted(todo, key=lambda one: (one.size_bytes, one.id))

    def write(self, hidden: bool | None) -> tuple[Failure, ...]:
        failures: list[Failure] = []
        errors = errors_beside(self.kept.path)
        groups = ahead(range(len(self.todo)), self.decode, self.todo, self.writer.batch_size, WORKERS)
        with tqdm(total=self.total, initial=self.total - len(self.todo), unit=" sounds", disable=hidden) as bar:
            for group in groups:
                clips = [(self.todo[place], found) for place, found in group if isinstance(found, np.ndarray)]
                failures += [
                    Failure(self.todo[place].id, str(found)) for place, found in group if isinstance(found, Exception)
                ]
                if clips:
                    texts = self.writer([clip for _, clip in clips])
                    self.kept.add(
                        Transcript(name_of(one), text, one.size_bytes, one.mtime_ns)
                        for (one, _), text in zip(clips, texts, strict=True)
                    )
                bar.update(len(group))
        if failures:
            lines = (json.dumps({"id": one.id, "error": one.error}) for one in failures)
            errors.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        else:
            errors.unlink(missing_ok=True)
        return tuple(failures)

    def decode(self, one: Input) -> np.ndarray:
        if one.error:
            raise ValueError(one.error)
        return load_audio(one.path, rate_hz=self.writer.sampling_rate).samples
