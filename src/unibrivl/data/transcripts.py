"""What is said in sounds, written down once and kept beside them: one line a sound, in a file for each way of writing.

    sounds/transcripts-3f2a90c1d4e8.jsonl
        {"settings": {"asr_model": "openai/whisper-base.en", "asr_revision": "91156...", ...}}
        {"audio": "a/1.wav", "size_bytes": 51244, "mtime_ns": 17..., "transcription": "a dog runs", "asr_empty": false}

The name of the file is that of its settings: another model, revision or language writes into another. Lines are only
ever added, and the last one about a sound counts, so a run that was killed loses what it had not yet written and no
more; half a line at the end is passed over. A sound in which nothing is said has a line, with no words.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unibrivl.data.records import DatasetError

PREFIX, SUFFIX, ERRORS = "transcripts-", ".jsonl", ".errors.jsonl"


@dataclass(frozen=True)
class Transcript:
    """
    Args:
        audio (`str`): the sound, relative to the folder of the file, with "/".
        text (`str`): what is said in it; "" where nothing is.
        size_bytes, mtime_ns (`int`): of the sound when it was heard. They tell whether it changed.
    """

    audio: str
    text: str
    size_bytes: int
    mtime_ns: int

    def line(self) -> str:
        return json.dumps(
            {
                "audio": self.audio,
                "size_bytes": self.size_bytes,
                "mtime_ns": self.mtime_ns,
                "transcription": self.text,
                "asr_empty": not self.text,
            }
        )


def file_for(folder: str | os.PathLike, settings: Mapping[str, Any]) -> Path:
    """Where transcripts of these settings lie in a folder."""
    told = json.dumps(settings, sort_keys=True).encode()
    return Path(folder) / f"{PREFIX}{hashlib.sha256(told).hexdigest()[:12]}{SUFFIX}"


def files_in(folder: str | os.PathLike) -> list[Path]:
    return sorted(path for path in Path(folder).glob(f"{PREFIX}*{SUFFIX}") if not path.name.endswith(ERRORS))


def errors_beside(path: str | os.PathLike) -> Path:
    """Where the sounds are listed that could not be read."""
    return Path(path).with_name(Path(path).name.removesuffix(SUFFIX) + ERRORS)


def read_transcripts(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Transcript]]:
    """The settings of a file, and its transcripts by the sound."""
    path, found = Path(path), dict[str, Transcript]()
    settings: dict[str, Any] | None = None
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
            if settings is None:
                settings = dict(told["settings"])
                continue
            one = Transcript(
                str(told["audio"]), str(told["transcription"]), int(told["size_bytes"]), int(told["mtime_ns"])
            )
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # a run was killed while it wrote
                break
            raise DatasetError(
                f"{path}, line {number} is no transcript: mend it, or remove the file and make it anew with "
                "`unibrivl transcribe`"
            ) from error
        found[one.audio] = one
    if settings is None:
        raise DatasetError(f"{path} does not begin with its settings: make it anew with `unibrivl transcribe`")
    return settings, found


def the_transcripts(folder: str | os.PathLike, asr: str | None = None) -> tuple[dict[str, Any], dict[str, Transcript]]:
    """Those of a folder, where one file of them is meant.

    Args:
        asr (*optional*): the name of a file or of its model, where there are several.
    """
    files = {path: read_transcripts(path) for path in files_in(folder)}
    chosen = [
        path for path, (settings, _) in files.items() if asr is None or asr in (path.name, settings.get("asr_model"))
    ]
    if len(chosen) == 1:
        return files[chosen[0]]
    if not chosen:
        wanted = "" if asr is None else f" by {asr}"
        raise DatasetError(
            f"{folder} holds no transcripts{wanted}: make them once with `unibrivl transcribe {folder} --model "
            f"{asr or 'openai/whisper-base.en'}`"
        )
    named = ", ".join(f"{path.name} by {files[path][0].get('asr_model')}" for path in chosen)
    raise DatasetError(f"{folder} holds several transcripts of each sound ({named}): say which, by the file's name")


class TranscriptFile:
    """A file that grows.

    Args:
        path: see `file_for`.
        settings: of what will be added; a file of others is an error.
        restart (`bool`): begin anew, whatever is there.
    """

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any], restart: bool = False):
        self.path, self.settings = Path(path), dict(settings)
        self.found: dict[str, Transcript] = {}
        if self.path.exists():
            self._end_the_last_line()
        if restart or not self.path.exists() or not self.path.read_bytes().strip():
            self._begin()
        else:
            there, self.found = read_transcripts(self.path)
            if there != self.settings:
                raise DatasetError(
                    f"{self.path} was written with other settings ({there}): name another file, or begin anew with "
                    "--restart"
                )

    def _begin(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        fresh.write_text(json.dumps({"settings": self.settings}) + "\n", encoding="ascii")
        os.replace(fresh, self.path)

    def _end_the_last_line(self) -> None:
        """A line that a kill or an editor left without its end: whole it stays, half it goes."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole == len(content):
            return
        try:
            json.loads(content[whole:])
        except ValueError:
            os.truncate(self.path, whole)
        else:
            with open(self.path, "ab") as file:
                file.write(b"\n")

    def has(self, audio: str, size_bytes: int, mtime_ns: int) -> bool:
        """Whether the sound as it is now was heard."""
        one = self.found.get(audio)
        return one is not None and (one.size_bytes, one.mtime_ns) == (size_bytes, mtime_ns)

    def add(self, transcripts: Iterable[Transcript]) -> None:
        """They are on the disk when this returns."""
        transcripts = list(transcripts)
        with open(self.path, "a", encoding="ascii") as file:
            file.write("".join(f"{one.line()}\n" for one in transcripts))
            file.flush()
            os.fsync(file.fileno())
        self.found |= {one.audio: one for one in transcripts}
