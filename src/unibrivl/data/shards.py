"""Shards: a dataset as a few large tar files, in the layout of WebDataset, made of a `Listing` and read by number.

A sample is a run of members with one key: `dog_1.flac`, `dog_1.jpg`, `dog_1.json`; the key ends at the first dot of
the name. Ours and others' are read alike: the headers are walked once, and where each member lies is kept in a small
file beside the shard. From then on any sample is one seek away, so shuffling, resuming and sharing out by rank are
arithmetic on numbers, with no buffer whose content a kill would lose.

A shard may come from a stranger: nothing is ever unpacked to the disk, links, devices and names that climb out are
passed over, and `skipped` says so.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import re
import tarfile
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from unibrivl.data.layout import describe, kind_of
from unibrivl.data.records import DatasetError, Listing, Sample
from unibrivl.data.video import safe_name

MEGABYTE = 1_000_000
MAX_MEMBER_BYTES = 1 << 30
MAX_PATTERNS = 1_000_000
MOST_SKIPPED = 100  # reasons that are kept; all are counted
FIELDS = ("id", "texts", "labels", "split", "fold", "group", "start_s", "end_s")


# ---- writing


def write_shards(
    listing: Listing,
    out: str | os.PathLike,
    *,
    shard_mb: float = 500.0,
    name: str = "shard",
    progress: bool | None = None,
) -> Shards:
    """Write the files of a listing as shards, byte for byte, with what is known of each sample as JSON.

    Run it again after it was stopped or killed: shards that are whole stay as they are. The same listing gives the
    same bytes.

    Args:
        out (`str`): the folder; `name`-000000.tar and so on, and `index.json` with the numbers of samples.
        shard_mb (`float`): a shard is closed when the next sample would make it larger than so many megabytes.
        progress (`bool`, *optional*): a bar; by default on a terminal.
    """
    if shard_mb <= 0:
        raise ValueError(f"shard_mb must be above 0, not {shard_mb}")
    if not len(listing):
        raise DatasetError(f"{listing.summary()}: there is nothing to write")
    if safe_name(name, dots=False) != name:
        raise ValueError(f"name is {name!r}: use letters, digits, - and _")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    plan = planned(listing, round(shard_mb * MEGABYTE))
    files = [f"{name}-{number:06}.tar" for number in range(len(plan))]
    index: dict[str, Any] = {
        "name": listing.name,
        "samples": len(listing),
        "shards": [
            {"file": file, "samples": len(samples), "digest": digest(samples)}
            for file, samples in zip(files, plan, strict=True)
        ],
    }
    old = read_index(folder) if (folder / "index.json").exists() else {"shards": []}
    kept = {one["file"] for one in old["shards"] if one in index["shards"] and (folder / one["file"]).is_file()}
    for stale in {one["file"] for one in old["shards"]} - kept:  # first: the index must never vouch for them
        if re.fullmatch(r"[\w-]+\.tar", stale):  # and an index of others must not send us elsewhere
            (folder / stale).unlink(missing_ok=True)
    write_whole(folder / "index.json", json.dumps(index, indent=1).encode())
    hidden = None if progress is None else not progress
    with tqdm(total=len(listing), desc=listing.name, unit="sample", disable=hidden) as bar:
        for file, samples in zip(files, plan, strict=True):
            if file not in kept:
                write_one(folder / file, samples)
            bar.update(len(samples))
    return Shards(folder)


@dataclass(frozen=True)
class Planned:
    """A sample and the members it becomes: (suffix, path, size, time)."""

    key: str
    about: bytes
    files: tuple[tuple[str, str, int, int], ...]


def planned(listing: Listing, most_bytes: int) -> list[list[Planned]]:
    """Which samples go into which shard."""
    plan: list[list[Planned]] = [[]]
    filled, keys = 0, set[str]()
    for sample in listing:
        one = plan_one(sample)
        if one.key in keys:
            raise DatasetError(f"{listing.name} has {sample.id!r} twice. Give samples ids of their own")
        keys.add(one.key)
        size = sum(padded(size) for _, _, size, _ in one.files) + padded(len(one.about))
        if plan[-1] and filled + size > most_bytes:
            plan.append([])
            filled = 0
        plan[-1].append(one)
        filled += size
    return plan


def plan_one(sample: Sample) -> Planned:
    about: dict[str, Any] = {name: getattr(sample, name) for name in FIELDS}
    about["events"] = [list(event) for event in sample.events]
    about = {name: value for name, value in about.items() if value not in (None, (), [])}
    files, suffixes = [], set[str]()
    for path in dict.fromkeys((sample.audio, sample.image, sample.video)):
        if path is None:
            continue
        suffix = os.path.splitext(path)[1].lower().lstrip(".")
        if not suffix or suffix in suffixes or suffix == "json":
            raise DatasetError(f"{sample.id}: {path} needs a suffix that says what it is, unlike the sample's others")
        suffixes.add(suffix)
        found = os.stat(path)
        files.append((suffix, path, found.st_size, found.st_mtime_ns))
    return Planned(safe_name(sample.id, dots=False), json.dumps(about, sort_keys=True).encode(), tuple(files))


def padded(size: int) -> int:
    """Bytes of a member: a header, and its content in blocks of 512."""
    return 512 + -(-size // 512) * 512


def digest(samples: Sequence[Planned]) -> str:
    return hashlib.blake2b(repr(samples).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def write_one(path: Path, samples: Sequence[Planned]) -> None:
    """A whole shard or none: written beside and renamed. Owners and times are left out."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
                for sample in samples:
                    add_sample(tar, sample)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)  # on a full disk it would be what fills it
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OSError(f"{path} could not be written: the disk is full. Make room and run it again") from error
        raise


def add_sample(tar: tarfile.TarFile, sample: Planned) -> None:
    for suffix, source, size, _ in sample.files:
        with open(source, "rb") as content:
            if os.fstat(content.fileno()).st_size != size:
                raise DatasetError(f"{source} has changed while it was written. Run it again")
            add(tar, f"{sample.key}.{suffix}", size, content)
    add(tar, f"{sample.key}.json", len(sample.about), io.BytesIO(sample.about))


def add(tar: tarfile.TarFile, name: str, size: int, content: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, content)


def write_whole(path: Path, content: bytes) -> None:
    # several processes may index one shard, and in containers all of them have the same number
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def read_index(folder: Path) -> dict[str, Any]:
    path = folder / "index.json"
    try:
        index = json.loads(path.read_bytes())
        [(one["file"], one["samples"]) for one in index["shards"]]
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"{path} is no index of shards ({error!r}). Delete it to read the .tar files") from error
    return index


# ---- reading


@dataclass(frozen=True)
class ShardSample:
    """A sample in memory.

    Args:
        sample (`Sample`): what its JSON and text say; paths are None, and the id is the key where none is given.
        files (`dict[str, bytes]`): its members by suffix.
        about (`dict`): its JSON, whatever that holds.
    """

    sample: Sample
    files: dict[str, bytes]
    about: dict[str, Any]

    @property
    def audio(self) -> bytes | None:
        """For `load_audio`; the video where there is no other sound."""
        return self._first("audio") or self._first("video")

    @property
    def image(self) -> bytes | None:
        return self._first("image")

    @property
    def video(self) -> bytes | None:
        return self._first("video")

    def _first(self, kind: str) -> bytes | None:
        return next((content for suffix, content in self.files.items() if kind_of(f"_.{suffix}") == kind), None)


class Shards:
    """Samples of tar files, by number: `shards[7]` reads one, `len(shards)` counts them; nothing else is opened.

    Args:
        paths: a folder that `write_shards` wrote or that holds .tar files, a file, a pattern such as
            `clips-{000000..000127}.tar`, or several of these.
        max_bytes (`int`): larger members are passed over.

    Attributes:
        paths (`tuple[str, ...]`): the shards.
        keys (`list[str]`): of the samples, in order.
        shard_N (`np.ndarray`): which shard each sample lies in.
        skipped (`list[str]`): members that were passed over and why, the first hundred; `num_skipped` counts all.
    """

    def __init__(self, paths: str | os.PathLike | Iterable[str | os.PathLike], max_bytes: int = MAX_MEMBER_BYTES):
        counts: dict[str, int] = {}
        self.paths = tuple(expand(paths, counts))
        self.keys: list[str] = []
        self.skipped: list[str] = []
        self.num_skipped = 0
        found = []
        for path in self.paths:
            members = index_of(path, max_bytes)
            if path in counts and len(members.keys) != counts[path]:
                raise DatasetError(
                    f"{path} has {len(members.keys)} samples and its index.json says {counts[path]}. Write it again"
                )
            self.keys += members.keys
            self.num_skipped += members.num_skipped
            self.skipped += [f"{path}: {reason}" for reason in members.skipped]
            found.append(members)
        del self.skipped[MOST_SKIPPED:]
        if not self.keys:
            why = f": {self.skipped[0]}" if self.skipped else ""
            raise DatasetError(f"no sample in {len(self.paths)} shards, such as {self.paths[0]}{why}")
        self.suffixes = sorted({suffix for members in found for suffix in members.suffixes})
        number = {suffix: place for place, suffix in enumerate(self.suffixes)}
        counted = [len(members.keys) for members in found]
        self.shard_N: np.ndarray = np.repeat(np.arange(len(found), dtype=np.int32), counted)
        sizes = np.concatenate([np.diff(members.first) for members in found])
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        renamed = [np.array([number[suffix] for suffix in members.suffixes], np.int16) for members in found]
        self._suffix = np.concatenate(
            [names[members.suffix] for names, members in zip(renamed, found, strict=True) if len(names)]
        )
        self._offset = np.concatenate([members.offset for members in found])
        self._size = np.concatenate([members.size for members in found])

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> ShardSample:
        """Read a sample. The file is opened anew each time, so processes share nothing."""
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} samples, from 0; got {number}")
        path = self.paths[self.shard_N[number]]
        files: dict[str, bytes] = {}
        with open(path, "rb", buffering=0) as file:
            for place in range(self._first[number], self._first[number + 1]):
                file.seek(int(self._offset[place]))
                size = int(self._size[place])
                content = read_exactly(file, size)
                if len(content) != size:
                    raise DatasetError(f"{path} ends within {self.keys[number]}: it has changed since it was opened")
                files[self.suffixes[self._suffix[place]]] = content
        return as_sample(self.keys[number], files, path)

    def __iter__(self) -> Iterator[ShardSample]:
        return (self[number] for number in range(len(self)))

    def order(self, seed: int, epoch: int = 0, window: int = 1000) -> np.ndarray:
        """All sample numbers once, shuffled so that a disk reads nearly in order: shards, then within windows.

        Args:
            window (`int`): so many neighbours are mixed with each other; 1 reads shards straight through.
        """
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        chance = np.random.default_rng([seed, epoch])
        place_N = chance.permutation(len(self.paths))[self.shard_N]
        order_N = np.argsort(place_N, kind="stable")
        shift = chance.integers(window)  # or the same neighbours would meet at the same borders every epoch
        block_N = (np.arange(len(self)) + shift) // window
        return order_N[np.lexsort((chance.random(len(self)), block_N))]


def read_exactly(file: Any, size: int) -> bytes:
    """One `read` of a raw file may give less."""
    pieces = []
    while size and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def as_sample(key: str, files: dict[str, bytes], path: str) -> ShardSample:
    """What a sample's JSON and text say; of others' JSON what has our names and kinds."""
    about: dict[str, Any] = {}
    if "json" in files:
        try:
            about = json.loads(files["json"])
        except ValueError as error:
            raise DatasetError(f"{path}: {key}.json is no JSON ({error}). Write the shard again") from error
        about = about if isinstance(about, dict) else {"json": about}
    texts = strings(about.get("texts"))
    if not texts and "txt" in files:
        texts = tuple(line.strip() for line in files["txt"].decode("utf-8", "replace").splitlines() if line.strip())
    labels = strings(about.get("labels"))
    if not labels and "cls" in files:
        labels = (files["cls"].decode("utf-8", "replace").strip(),)
    given, fold = about.get("id"), about.get("fold")
    sample = Sample(
        id=given if isinstance(given, str) and given else key,
        texts=texts,
        labels=labels,
        fold=fold if isinstance(fold, int) and not isinstance(fold, bool) else None,
        split=as_word(about.get("split")),
        group=as_word(about.get("group")),
        start_s=as_seconds(about.get("start_s")),
        end_s=as_seconds(about.get("end_s")),
    )
    return ShardSample(sample, files, about)


def strings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def as_word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def as_seconds(value: Any) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return float(value) if fits else None


# ---- finding the shards, and what is in them


def expand(paths: str | os.PathLike | Iterable[str | os.PathLike], counts: dict[str, int]) -> Iterator[str]:
    """Paths of shards that are there; `counts` is told how many samples an index promises."""
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise DatasetError("no shards: give a folder, a .tar file or a pattern")
    for given in (os.fspath(one) for one in several):
        if os.path.isdir(given):
            yield from in_folder(given, counts)
            continue
        for path in braces(given):
            if not os.path.isfile(path):
                hint = "" if "://" not in path else ". Shards are read from a disk: download them first"
                raise DatasetError(f"{path} is not there{hint or '. A pattern names every shard it stands for'}")
            yield path


def in_folder(folder: str, counts: dict[str, int]) -> Iterator[str]:
    if os.path.exists(os.path.join(folder, "index.json")):
        for one in read_index(Path(folder))["shards"]:
            path = os.path.join(folder, os.path.basename(one["file"]))
            if not os.path.isfile(path):
                raise DatasetError(f"{path} is not there, and index.json names it. Run write_shards again")
            counts[path] = one["samples"]
            yield path
        return
    names = sorted(name for name in os.listdir(folder) if name.endswith(".tar") and name[0] != ".")
    if not names:
        raise DatasetError(f"{folder} holds no shard: looked for index.json and *.tar; there is {describe(folder)}")
    yield from (os.path.join(folder, name) for name in names)


def braces(pattern: str) -> Iterator[str]:
    """`a-{00..02}.tar` and `{train,val}.tar` written out."""
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    choices: list[Sequence[str]] = []
    for number, piece in enumerate(pieces):
        span = re.fullmatch(r"(\d+)\.\.(\d+)", piece)
        if number % 2 == 0:
            choices.append((piece,))
        elif span:
            first, last = int(span[1]), int(span[2])
            if not 0 <= last - first < MAX_PATTERNS:
                raise DatasetError(f"{pattern}: a range goes from a smaller number to a larger one")
            choices.append([str(one).zfill(len(span[1])) for one in range(first, last + 1)])
        elif "," in piece:
            choices.append(piece.split(","))
        else:
            raise DatasetError(f"{pattern}: braces hold a range {{000..127}} or a list {{train,val}}")
    return ("".join(parts) for parts in itertools.product(*choices))


@dataclass
class Members:
    """Where the members of one shard lie: sample n has those from first[n] to first[n + 1]."""

    keys: list[str]
    suffixes: list[str]
    first: np.ndarray
    suffix: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    skipped: list[str]
    num_skipped: int = 0


def index_of(path: str, max_bytes: int) -> Members:
    """The members of a shard, from the file beside it if that is of this very shard, else by walking its headers."""
    found = os.stat(path)
    stamp = [1, found.st_size, found.st_mtime_ns, max_bytes]  # 1: the form of the file
    beside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.index.npz")
    try:
        with np.load(beside, allow_pickle=False) as kept:
            if kept["stamp"].tolist() == stamp:
                words = {name: kept[name].tolist() for name in ("keys", "suffixes", "skipped")}
                arrays = {name: kept[name] for name in ("first", "suffix", "offset", "size")}
                return Members(**words, **arrays, num_skipped=int(kept["num_skipped"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        kept = None  # not there, torn, or not ours: walked again
    members = walk_members(path, max_bytes)
    content = io.BytesIO()
    words = {name: np.array(getattr(members, name), dtype=np.str_) for name in ("keys", "suffixes", "skipped")}
    arrays = {name: getattr(members, name) for name in ("first", "suffix", "offset", "size", "num_skipped")}
    np.savez(content, stamp=np.array(stamp), **words, **arrays)
    with contextlib.suppress(OSError):  # it only saves time: reading needs no room and no permission to write
        write_whole(Path(beside), content.getvalue())
    return members


def walk_members(path: str, max_bytes: int) -> Members:
    keys: list[str] = []
    suffixes: dict[str, int] = {}
    first, suffix, offset, size = [0], list[int](), list[int](), list[int]()
    skipped: list[str] = []
    num_skipped, held = 0, set[str]()
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or it would remember them all
                reason = unfit(member, max_bytes)
                if reason:
                    num_skipped += 1
                    skipped += [f"{member.name!r} {reason}"] * (len(skipped) < MOST_SKIPPED)
                if reason is not None:
                    continue
                name = member.name.removeprefix("./")
                cut = name.find(".", name.rfind("/") + 1)
                key, kind = name[:cut], name[cut + 1 :].lower()
                if not keys or keys[-1] != key or kind in held:
                    keys.append(key)
                    first.append(first[-1])
                    held = set()
                held.add(kind)
                first[-1] += 1
                suffix.append(suffixes.setdefault(kind, len(suffixes)))
                offset.append(member.offset_data)
                size.append(member.size)
            check_end(path, tar.offset, keys)  # type: ignore[attr-defined]
    except tarfile.ReadError as error:
        raise DatasetError(
            f"{path} is no whole .tar file ({error}). If it is compressed, decompress it: samples are read by their "
            "place. If it was cut off, fetch it again or leave it out"
        ) from error
    if offset and offset[-1] + size[-1] > os.path.getsize(path):
        raise DatasetError(f"{path} is cut off within {keys[-1]}. Fetch it again, or leave it out")
    return Members(
        keys,
        list(suffixes),
        np.array(first, np.int64),
        np.array(suffix, np.int16),
        np.array(offset, np.int64),
        np.array(size, np.int64),
        skipped,
        num_skipped,
    )


def check_end(path: str, offset: int, keys: Sequence[str]) -> None:
    """tarfile takes a header that is no header for the end; the end is empty."""
    with open(path, "rb") as file:
        file.seek(offset)
        if file.read(512).strip(b"\0"):
            where = repr(keys[-1]) if keys else "its beginning"
            raise DatasetError(f"{path} is cut off or damaged after {where}. Fetch it again, or leave it out")


def unfit(member: tarfile.TarInfo, max_bytes: int) -> str | None:
    """Why a member is passed over; "" for those that nobody misses, None for a part of a sample."""
    if member.isdir():
        return ""
    if not member.isreg() or member.issparse():
        return "is no plain file but a link, a device or a sparse one"
    parts = member.name.removeprefix("./").split("/")
    if member.name.startswith("/") or ".." in parts or "\0" in member.name or "\\" in member.name:
        return "has a name that climbs out of the shard"
    if member.size > max_bytes:
        return f"has {member.size} bytes, more than max_bytes={max_bytes}"
    if parts[-1].startswith((".", "__")):
        return ""
    return None if "." in parts[-1] else "has no suffix that says what it is"
