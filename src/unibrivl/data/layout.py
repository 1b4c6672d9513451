"""What every loader asks of a folder: is it the right one, which files does it hold, and which of those a list names.

A wrong folder is refused with what was looked for and what is there instead. Folders are read once and looked up by
name: a stat for each of two million clips would take longer than the embedding.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from unibrivl.audio.doctor import SUFFIXES as SOUND_SUFFIXES
from unibrivl.data.records import DatasetError, Listing, Sample

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
VIDEO_SUFFIXES = frozenset((".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".flv"))


def kind_of(name: str) -> str | None:
    """By the suffix: "audio", "image", "video", or None for anything else."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in SOUND_SUFFIXES:
        return "audio"
    if suffix in PICTURE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None


def locate(
    root: str | os.PathLike, name: str, needed: Sequence[str], inside: Sequence[str] = (), hint: str = ""
) -> str:
    """The folder that holds everything `needed`: `root`, or one of the names it has `inside` an unpacked archive.

    Args:
        name (`str`): the dataset's name.
        needed (`Sequence[str]`): relative paths or patterns; `a|b` is either.
        hint (`str`, *optional*): what else the message should say.
    """
    root = os.fspath(root)
    if not os.path.isdir(root):
        what = "is a file" if os.path.exists(root) else "does not exist"
        raise DatasetError(f"{root} {what}: {name} is a folder that holds {_and(needed)}")
    candidates = [root, *(os.path.join(root, *one.split("/")) for one in inside)]
    for folder in candidates:
        if os.path.isdir(folder) and not absent(folder, needed):
            return folder
    gone = absent(root, needed)
    where = f" or in its {' or '.join(inside)}" if inside else ""
    hint = f" {hint}" if hint else ""
    raise DatasetError(
        f"{root} is not {name}: looked in it{where} for {_and(needed)}; there is no {' and no '.join(gone)}, "
        f"but {describe(root)}.{hint}"
    )


def absent(folder: str, needed: Iterable[str]) -> list[str]:
    """Which of the patterns match nothing in the folder."""
    base = glob.escape(folder)
    return [
        one.replace("|", " or ")
        for one in needed
        if not any(glob.glob(os.path.join(base, *choice.split("/"))) for choice in one.split("|"))
    ]


def describe(folder: str, most: int = 6) -> str:
    """A folder's content in a few words, for messages."""
    names = sorted(entry.name + "/" * entry.is_dir() for entry in os.scandir(folder) if entry.name[0] != ".")
    if not names:
        return "nothing at all"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _and(needed: Iterable[str]) -> str:
    return ", ".join(one.replace("|", " or ") for one in needed)


def walk(folder: str) -> Iterator[str]:
    """All files below, as paths that begin with `folder`; sorted, hidden ones left out.

    Links to folders are followed, for large folders are often linked to; each folder is walked once, so a link to a
    parent ends there. A folder that may not be read raises.
    """
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        place = os.path.realpath(parent)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.join(parent, name)


def _raise(error: OSError) -> None:
    raise error


def subfolders(folder: str) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")


class Stems:
    """The media below some folders by kind and stem: `stems.get("audio", "dog_1")` is a path or None.

    Of two sounds with one stem a .wav or .flac counts before a compressed one; otherwise the first path counts.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._paths: dict[str, dict[str, str]] = {"audio": {}, "image": {}, "video": {}}
        for folder in folders:
            for path in walk(folder):
                kind = kind_of(path)
                if kind is not None:
                    stem, suffix = os.path.splitext(os.path.basename(path))
                    held = self._paths[kind].get(stem)
                    if held is None or (suffix.lower() in (".wav", ".flac") and not _plain(held)):
                        self._paths[kind][stem] = path

    def get(self, kind: str, *stems: str) -> str | None:
        """The first of the stems that is there."""
        paths = self._paths[kind]
        return next((paths[stem] for stem in stems if stem in paths), None)

    def count(self, kind: str) -> int:
        return len(self._paths[kind])

    def media(self, *stems: str) -> dict[str, Any]:
        """The fields of a sample: sound, picture and video; the video is the sound where there is no other."""
        video = self.get("video", *stems)
        return {"audio": self.get("audio", *stems) or video, "image": self.get("image", *stems), "video": video}


def _plain(path: str) -> bool:
    return path.lower().endswith((".wav", ".flac"))


def names_below(folder: str, parts: int = 1) -> dict[str, str]:
    """Files below by the last `parts` of their path with "/" between: {"fold1/a.wav": path}."""
    found: dict[str, str] = {}
    for path in walk(folder) if os.path.isdir(folder) else ():
        key = "/".join(os.path.normpath(path).split(os.sep)[-parts:])
        found.setdefault(key, path)
    return found


def as_listing(
    name: str,
    root: str,
    samples: Iterable[Sample],
    *,
    complete: Callable[[Sample], bool] = lambda sample: sample.audio is not None,
    official: int | None = None,
    parts: Mapping[Any, int] | None = None,
    looked_for: str,
) -> Listing:
    """Samples parted into those that are complete and those that are missing; refused if none is there.

    Args:
        complete (callable): whether a sample has the files it should have; its sound if not given.
        looked_for (`str`): names or patterns of the files, for the message.
    """
    found, missing, seen = [], [], set[str]()
    for sample in samples:
        if sample.id in seen:
            raise DatasetError(f"{root}: {name} has {sample.id!r} twice in its lists. Remove one of the two rows")
        seen.add(sample.id)
        if complete(sample):
            found.append(sample)
        else:
            missing.append(replace(sample, audio=None, image=None, video=None))
    if not (found or missing):
        raise DatasetError(f"{root} holds nothing of {name}: looked for {looked_for}; there is {describe(root)}")
    if not found:
        raise DatasetError(
            f"{root} holds the lists of {name} and none of the {len(missing)} files they name: looked for {looked_for}"
            f", such as the one of {missing[0].id!r}; there is {describe(root)}"
        )
    listing = Listing(name, tuple(found), tuple(missing), official, dict(parts or {}))
    if listing.found < listing.expected:
        logger.warning("%s in %s", listing.summary(), root)
    return listing
