"""Videos prepared once: a folder of sounds and pictures that `load` reads, made in a run that may be killed.

    out/metadata.jsonl   one row a sample, written first: `load(out)` counts what is not there yet as missing
    out/audio, out/image what was made of each video, written beside and renamed
    out/manifest.jsonl   what became of each: found, corrupt with the reason, or missing
    out/prepare.json     how they were made; another way needs another folder

A file of the manifest grows line by line and is put in order at the end. Samples that are in it are not made again
unless their video has changed or what was made of it is gone.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from unibrivl.data.layout import VIDEO_SUFFIXES, kind_of, walk
from unibrivl.data.records import DatasetError, Listing, Sample
from unibrivl.data.video import VideoError, moment, safe_name, write_picture, write_sound
from unibrivl.utils import require

PER_WORKER = 4  # videos that are handed to a process ahead


@dataclass(frozen=True)
class Settings:
    """How videos are prepared; see `prepare_videos`."""

    rate_hz: int = 16_000
    frame: Literal["random", "middle"] = "random"
    picture_format: Literal["jpg", "png"] = "jpg"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("frame", ("random", "middle")), ("picture_format", ("jpg", "png"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r} and must be {' or '.join(map(repr, choices))}")


@dataclass(frozen=True)
class Job:
    """A sample and where its sound and its picture go, relative to the folder."""

    id: str
    video: str | None
    start_s: float | None
    end_s: float | None
    audio: str
    image: str


@dataclass(frozen=True)
class Prepared:
    """What the folder holds after a run.

    Args:
        folder (`Path`): for `load`.
        name (`str`): of the videos.
        entries (`tuple[dict, ...]`): the manifest's lines: `id`, `status` ("found", "corrupt" or "missing"), `reason`,
            `damage` where a soundtrack breaks off, `seconds`, `frame_s`, `side`.
        official (`int`): how many there should be.
        made (`int`): samples that this run looked at; the others had been.
    """

    folder: Path
    name: str
    entries: tuple[dict[str, Any], ...]
    official: int
    made: int

    @property
    def found(self) -> int:
        return self._count("found")

    @property
    def corrupt(self) -> tuple[dict[str, Any], ...]:
        return tuple(entry for entry in self.entries if entry["status"] == "corrupt")

    @property
    def expected(self) -> int:
        return max(self.official, len(self.entries))

    def summary(self) -> str:
        """The line that belongs beside every score: "clips: found 97 of 100 (1 damaged), 2 corrupt, 1 missing"."""
        damaged = sum(bool(entry.get("damage")) for entry in self.entries)
        told = f" ({damaged} damaged)" if damaged else ""
        corrupt = len(self.corrupt)
        missing = self.expected - self.found - corrupt
        return f"{self.name}: found {self.found} of {self.expected}{told}, {corrupt} corrupt, {missing} missing"

    def _count(self, status: str) -> int:
        return Counter(entry["status"] for entry in self.entries)[status]


def prepare_videos(
    videos: Listing | Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    rate_hz: int = 16_000,
    frame: Literal["random", "middle"] = "random",
    picture_format: Literal["jpg", "png"] = "jpg",
    seed: int = 0,
    workers: int = 1,
    progress: bool | None = None,
) -> Prepared:
    """Make a folder of sounds and pictures from videos, each its soundtrack and one frame of it, cut square.

    Run it again after it was stopped, killed, or when videos have come: only what is not there is made. Videos that
    have no sound, no picture or neither are written down with the reason and end nothing. Samples of earlier runs that
    are not named now stay.

    Args:
        videos (`Listing` or paths): whatever `load` gives, whose `start_s` and `end_s` are kept to; or video files and
            folders of them.
        out (`str`): the folder; `load(out)` reads it.
        rate_hz (`int`): of the sounds, mono FLAC of 16 bits.
        frame (`"random"` or `"middle"`): which frame: drawn from the sample's id and `seed`, or the middle one.
        picture_format (`"jpg"` or `"png"`): of the pictures.
        seed (`int`): another one draws other frames.
        workers (`int`): processes that decode. With more than one, a decoder that crashes costs its video only.
        progress (`bool`, *optional*): a bar; by default on a terminal.
    """
    require("av", "video", "preparing videos")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    settings = Settings(rate_hz, frame, picture_format, seed)
    listing = videos if isinstance(videos, Listing) else listed(videos)
    folder = Path(out)
    try:
        for name in ("audio", "image"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"cannot write to {folder} ({error}): make it writable, or choose another") from error
    check_settings(folder, settings)
    samples = [*listing.samples, *listing.missing]
    jobs = jobs_of(samples, settings)
    write_metadata(folder, samples, jobs)

    done = read_manifest(folder)
    todo = [job for job in jobs if not is_done(folder, job, done.get(job.id))]
    hidden = None if progress is None else not progress
    found = sum(done.get(job.id, {}).get("status") == "found" for job in jobs) if len(todo) < len(jobs) else 0
    with (
        open(folder / "manifest.jsonl", "a", encoding="utf-8") as manifest,
        tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc=listing.name, unit="video", disable=hidden) as bar,
        closing(made(todo, folder, settings, workers)) as entries,
    ):
        for entry in entries:
            manifest.write(json.dumps(entry) + "\n")
            manifest.flush()
            done[entry["id"]] = entry
            found += entry["status"] == "found"
            bar.set_postfix(found=found, refresh=False)
            bar.update()
    named = {job.id for job in jobs}
    mine = tuple(done[job.id] for job in jobs)
    others = [entry for name, entry in done.items() if name not in named]
    write_beside(folder / "manifest.jsonl", (json.dumps(entry) for entry in (*mine, *others)))
    return Prepared(folder, listing.name, mine, listing.expected, len(todo))


def listed(paths: Iterable[str | os.PathLike]) -> Listing:
    """Video files, and those in folders, as a listing; ids are paths without suffix, in a folder relative to it."""
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    given_paths = [os.path.abspath(path) for path in paths]
    samples: dict[str, Sample] = {}
    for given in given_paths:
        if not os.path.exists(given):
            raise DatasetError(f"{given} does not exist. Give video files, folders of them, or a Listing")
        within = os.path.isdir(given)
        for path in walk(given) if within else [given]:
            if within and kind_of(path) != "video":
                continue
            stem = os.path.splitext(os.path.relpath(path, given) if within else os.path.basename(path))[0]
            name = stem.replace(os.sep, "/")
            if name in samples:
                raise DatasetError(f"{samples[name].video} and {path} are both {name!r}. Rename one")
            samples[name] = Sample(name, audio=path, video=path)
    if not samples:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise DatasetError(f"no video in {', '.join(given_paths) or 'nothing'}: looked for files ending in {suffixes}")
    name = os.path.basename(given_paths[0]) if len(given_paths) == 1 else "videos"
    return Listing(name, tuple(samples.values()))


def jobs_of(samples: Sequence[Sample], settings: Settings) -> list[Job]:
    """Where each sample's files go. Some disks do not tell cases apart: ids that differ in case only get a digest."""
    spellings = Counter(sample.id.casefold() for sample in samples)
    jobs = []
    for sample in samples:
        twice = spellings[sample.id.casefold()] > 1
        stem = safe_name(f"{sample.id}\0") if twice else safe_name(sample.id)
        given = sample.video or sample.audio
        video = os.path.abspath(given) if given else None
        audio, image = f"audio/{stem}.flac", f"image/{stem}.{settings.picture_format}"
        jobs.append(Job(sample.id, video, sample.start_s, sample.end_s, audio, image))
    if not any(job.video for job in jobs):
        raise DatasetError("none of these samples has a video: give video files, or a listing of some")
    return jobs


# ---- one sample


def prepare_one(job: Job, folder: Path, settings: Settings) -> dict[str, Any]:
    """Make a sample's sound and picture; the manifest's line of it comes back, whatever happens."""
    entry = {**asdict(job), **stamp(job.video)}
    if job.video is None or "size" not in entry:
        return {**entry, "status": "missing", "reason": "there is no video"}
    sound, picture = folder / job.audio, folder / job.image
    partial = [path.with_name(f".{path.name}.partial") for path in (sound, picture)]
    try:
        check_readable(job.video)
        start_s = job.start_s or 0.0
        seconds, damage = write_sound(job.video, str(partial[0]), settings.rate_hz, job.start_s, job.end_s)
        at_s = start_s + seconds * moment(job.id, settings.seed, settings.frame)
        frame_s, side = write_picture(job.video, str(partial[1]), settings.picture_format, at_s, start_s)
        os.replace(partial[0], sound)
        os.replace(partial[1], picture)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(f"{folder}: the disk is full. What is made stays; make room and run the same again") from error
    except VideoError as error:
        for path in (sound, picture):  # of a video that was better before
            path.unlink(missing_ok=True)
        return {**entry, "status": "corrupt", "reason": str(error)}
    finally:
        for path in partial:
            path.unlink(missing_ok=True)
    made = {"seconds": round(seconds, 3), "frame_s": round(frame_s, 3), "side": side}
    return {**entry, "status": "found", **made, **({"damage": damage} if damage else {})}


def check_readable(video: str) -> None:
    try:
        with open(video, "rb"):
            pass
    except OSError as error:
        raise VideoError(f"cannot be read: {error.strerror}") from error


def stamp(video: str | None) -> dict[str, int]:
    """Size and time of a video, by which a changed one is known; nothing if it is not there."""
    try:
        found = os.stat(video or "")
    except OSError:
        return {}
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def is_done(folder: Path, job: Job, entry: Mapping[str, Any] | None) -> bool:
    """Whether the manifest's line is of this very video, and what it says was made is there."""
    if entry is None or any(entry.get(key) != value for key, value in asdict(job).items()):
        return False
    now = stamp(job.video)
    if {key: entry.get(key) for key in ("size", "mtime_ns")} != {key: now.get(key) for key in ("size", "mtime_ns")}:
        return False
    return entry["status"] != "found" or all((folder / name).is_file() for name in (job.audio, job.image))


# ---- many


def made(jobs: Sequence[Job], folder: Path, settings: Settings, workers: int) -> Generator[dict[str, Any], None, None]:
    """The manifest's lines of all samples, as they are done."""
    if workers == 1 or len(jobs) < 2:
        yield from (prepare_one(job, folder, settings) for job in jobs)
        return
    waiting = list(reversed(jobs))
    while waiting:
        suspects = list[Job]()
        yield from until_a_crash(waiting, suspects, folder, settings, workers)
        for job in suspects:  # each alone, for one of them takes its process with it
            yield alone(job, folder, settings)


def until_a_crash(
    waiting: list[Job], suspects: list[Job], folder: Path, settings: Settings, workers: int
) -> Iterator[dict[str, Any]]:
    """Take jobs off the end of `waiting`; when a process dies, those that were under way become `suspects`."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    running: dict[Future, Job] = {}
    is_broken = False
    try:
        check_pool(pool)
        while waiting or running:
            while waiting and not is_broken and len(running) < PER_WORKER * workers:
                try:
                    future = pool.submit(prepare_one, waiting[-1], folder, settings)
                except (BrokenProcessPool, OSError) as error:  # OSError: it breaks while it starts another process
                    if not running and isinstance(error, OSError):
                        raise
                    is_broken = True
                    continue
                running[future] = waiting.pop()
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    entry = future.result()
                except BrokenProcessPool:
                    suspects.append(job)
                    is_broken = True
                    continue
                yield entry
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def check_pool(pool: ProcessPoolExecutor) -> None:
    """No video is to blame where no process can be started."""
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise ValueError(
            "no process can be started: call prepare_videos below `if __name__ == '__main__':`, or with workers=1"
        ) from error


def alone(job: Job, folder: Path, settings: Settings) -> dict[str, Any]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(prepare_one, job, folder, settings).result()
        except BrokenProcessPool:
            reason = "its decoder crashed and took the process with it"
            return {**asdict(job), **stamp(job.video), "status": "corrupt", "reason": reason}


# ---- files


def check_settings(folder: Path, settings: Settings) -> None:
    path = folder / "prepare.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name, value in asdict(settings).items() if before.get(name) != value]
        if changed:
            told = ", ".join(f"{name}={before.get(name)!r}" for name in changed)
            raise DatasetError(f"{folder} was prepared with {told}. Do so again, or choose another folder")
    else:
        write_beside(path, [json.dumps(asdict(settings))])


def write_metadata(folder: Path, samples: Sequence[Sample], jobs: Sequence[Job]) -> None:
    """The table that `load` reads: these samples, then those of earlier runs that are not among them."""
    path = folder / "metadata.jsonl"
    rows = {sample.id: row_of(sample, job) for sample, job in zip(samples, jobs, strict=True)}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.setdefault(row["id"], row)
    write_beside(path, (json.dumps(row) for row in rows.values()))


def row_of(sample: Sample, job: Job) -> dict[str, Any]:
    """A row without what the sample does not have; the part that was meant is the whole sound now."""
    row: dict[str, Any] = {
        "id": sample.id,
        "audio": job.audio,
        "image": job.image,
        "text": sample.texts,
        "label": sample.labels,
    }
    row |= {"split": sample.split, "fold": sample.fold, "group": sample.group}
    return {name: value for name, value in row.items() if value not in (None, ())}


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """The last line of each sample. A line that a kill has torn is left out, and taken off the file."""
    path = folder / "manifest.jsonl"
    entries: dict[str, dict[str, Any]] = {}
    if not path.exists():
        return entries
    content = path.read_text(encoding="utf-8")
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        try:
            entry = json.loads(line)
            entries[entry["id"]] = entry
        except (ValueError, TypeError, KeyError) as error:
            if line.endswith("\n"):
                raise DatasetError(f"{path}, line {number} is none of ours. Delete the file to begin anew") from error
    if content and not content.endswith("\n"):
        write_beside(path, map(json.dumps, entries.values()))
    return entries


def write_beside(path: Path, lines: Iterable[str]) -> None:
    """A whole file or the old one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
