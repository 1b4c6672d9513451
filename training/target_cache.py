"""Cached targets: what a frozen tower says of a file is computed once, and read from the disk ever after.

    cache = TargetCache("cache", picture_tower(model, processor))
    cache.prepare(paths)                         # computes what is not there; a second call, or run, computes nothing
    v_V = cache.row(paths[0], view=0)            # float32, from a memory-mapped file

What a tower says is a row of numbers, or, of sounds, a block of as many rows as there are frames (`cache.block`). It
is found by the content of its file, and by which part of it is meant, not by its name, under the fingerprint of all
that decides it: the tower's weights and configuration, its processor's settings, the augmentation. A changed tower,
processor or picture therefore finds nothing of the old ones, and what was computed for one folder serves another that
holds the same pictures.

Processes may prepare the same cache at once: see `vector_parts`. Whoever is killed has lost some seconds of work. Rows
are computed in groups that follow from the files alone, so they have the same bits whether they were computed at one
go or after a kill.

Shapes: B files of a group, T rows of a file, V numbers of a row.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from unibrivl.data import DatasetError
from unibrivl.data.pictures import open_picture
from unibrivl.hub.fingerprint import fingerprint
from unibrivl.training.augment import PictureAugmentation
from unibrivl.training.sampler import derive
from unibrivl.training.vector_parts import NUMBERS, Parts

logger = logging.getLogger(__name__)

GROUP = 16  # files that pass through the tower together
PART_S = 10.0  # OURS: of work that a kill may cost
PART_BYTES = 1 << 28  # that wait in memory to be written
MANY_PARTS = 16  # above which they are joined, for every part in use holds a file open
MOST_JOINED = 1 << 30  # bytes; joining takes as many again on the disk
SETTLED_S = 2.0  # OURS: FAT's tick; a file written so shortly before may be written again in the same one
MOST_NAMED = 20  # files in one message
ELSEWHERE = "Make room or make it writable, or choose another folder for the cache (data.cache=FOLDER)"
HASH_BYTES, VIEW_BYTES = 16, 2
FORMAT = 1  # of what is stored, part of the fingerprint


class UnreadableTargets(DatasetError):
    """Files that the tower cannot be shown; all of them are named."""


class Excerpt(NamedTuple):
    """Part of a sound: from one sample up to another, or to where the file ends, at the rate of the tower."""

    path: str
    first: int
    stop: int


Item = str | Excerpt  # a whole file, by its path, or part of one


@dataclass(frozen=True)
class Tower:
    """A frozen tower as a function of files.

    Args:
        fingerprint (`str`): any text that changes with whatever decides its embeddings, beside the file's content.
        width (`int`): V.
        read: item -> what `embed` takes; runs in threads and may raise ValueError or OSError.
        embed: what was read of B files, and B seeds (None without augmentation) -> (B, V), or B blocks (T, V).
        views (`int`): how many augmented views of a file there are; 1 without augmentation.
        augmented (`bool`): whether the seeds are used.
        kind (`"F32"` or `"F16"`): of the numbers on the disk.
    """

    fingerprint: str
    width: int
    read: Callable[[Any], Any]
    embed: Callable[[list[Any], list[int] | None], np.ndarray | list[np.ndarray]]
    views: int = 1
    augmented: bool = False
    kind: str = "F32"

    def __post_init__(self):
        if not 1 <= self.views < 1 << (8 * VIEW_BYTES):
            raise ValueError(f"views counts the views of a file, from 1; got {self.views}")
        if self.views > 1 and not self.augmented:
            raise ValueError(
                f"{self.views} views without augmentation would all be the same: set views=1, or give an augmentation"
            )


class TargetCache:
    """
    Args:
        folder: of all caches; each tower has its own folder in it, by its fingerprint.
        tower: see `Tower`.
    """

    def __init__(self, folder: str | os.PathLike, tower: Tower):
        self.root, self.tower, self.views = Path(folder).expanduser(), tower, tower.views
        name = hashlib.sha256(tower.fingerprint.encode()).hexdigest()[:32]
        self.parts = Parts(self.root / name, tower.width, HASH_BYTES + VIEW_BYTES, tower.kind)
        self.contents = Contents(self.root / "contents.json")
        self.hash_of: dict[Item, bytes] = {}  # of what was prepared

    def __getstate__(self) -> dict:
        state = {name: value for name, value in self.__dict__.items() if name != "tower"}
        return {**state, "tower": None}  # workers read; only whoever prepares has a tower

    def row(self, item: Item, view: int = 0) -> np.ndarray:
        """(V,), the embedding of one view of a file that was prepared; a copy."""
        return np.array(self.block(item, view)[0])

    def block(self, item: Item, view: int = 0) -> np.ndarray:
        """(T, V), all rows of one view of what was prepared, as they lie on the disk: not to be written to."""
        if item not in self.hash_of:
            raise ValueError(f"{item} is not in this cache: call prepare with the paths of all files before")
        return self.parts.block(key_of(self.hash_of[item], view))

    def prepare(self, items: Sequence[Item]) -> int:
        """Compute what is not there of all views of these files, or parts of files; of how many that was.

        Raises `UnreadableTargets`, with every file that could not be read, once all others are stored.
        """
        items, broken = sorted(set(items)), dict[str, str]()
        paths = sorted({file_of(item) for item in items})
        contents = self.contents.hashes(paths, broken)
        there = [item for item in items if file_of(item) in contents]
        self.hash_of |= {item: content_of(item, contents[file_of(item)]) for item in there}
        item_of = {self.hash_of[item]: item for item in reversed(there)}
        wanted = [(content, view) for content in sorted(item_of) for view in range(self.views)]
        self.parts.sweep()
        self.parts.refresh()
        computed = 0
        if any(key_of(*one) not in self.parts.places for one in wanted):
            computed = self._fill(wanted, item_of, broken)
        if len(self.parts.seen) > MANY_PARTS and self.parts.num_bytes <= MOST_JOINED:
            self.parts.join()
        if broken:
            raise UnreadableTargets(told(broken, len(paths)))
        return computed

    def _fill(self, wanted: list[tuple[bytes, int]], item_of: dict[bytes, Any], broken: dict[str, str]) -> int:
        groups = [wanted[start : start + GROUP] for start in range(0, len(wanted), GROUP)]
        # Several processes that begin together rarely meet, and each leaves out what another has stored meanwhile
        random.Random(uuid.uuid4().int).shuffle(groups)
        keys, blocks, since = list[bytes](), list[np.ndarray](), time.monotonic()
        computed = 0
        there = sum(key_of(*one) in self.parts.places for one in wanted)
        self._describe()
        with (
            ThreadPoolExecutor(max_workers=4, thread_name_prefix="unibrivl-read") as pool,
            tqdm(total=len(wanted), initial=there, desc="targets", unit="file", disable=None) as bar,
        ):
            for group, reading in self._read_ahead(groups, item_of, pool):
                found, made = self._group(group, {one: future.result() for one, future in reading.items()})
                before = len(keys)
                for one, block_TV in zip(found, made, strict=True):
                    if key_of(*one) not in self.parts.places:
                        keys.append(key_of(*one))
                        blocks.append(block_TV)
                broken |= {file_of(item_of[one]): str(error) for one, future in reading.items()
                           if isinstance(error := future.result(), Exception)}  # fmt: skip
                bar.update(len(keys) - before)
                waiting = sum(block_TV.nbytes for block_TV in blocks)
                if keys and (time.monotonic() - since > PART_S or waiting > PART_BYTES):
                    self.parts.write(keys, blocks)
                    computed += len(keys)
                    keys, blocks, since = [], [], time.monotonic()
            if keys:
                self.parts.write(keys, blocks)
        return computed + len(keys)

    def _read_ahead(self, groups, item_of, pool) -> Iterator[tuple[list[tuple[bytes, int]], dict[bytes, Future]]]:
        """The groups of which something is missing, the next one being read while one is computed."""

        def attempt(item: Item):
            try:
                return self.tower.read(item)
            except (ValueError, OSError) as error:
                return error

        waiting = deque[tuple[list[tuple[bytes, int]], dict[bytes, Future]]]()
        for group in groups:
            if any(key_of(*one) not in self.parts.places for one in group):
                contents = dict.fromkeys(content for content, _ in group)
                waiting.append((group, {one: pool.submit(attempt, item_of[one]) for one in contents}))
                if len(waiting) > 1:
                    yield waiting.popleft()
        yield from waiting

    def _group(self, group: list[tuple[bytes, int]], read: dict[bytes, Any]) -> tuple[list, list[np.ndarray]]:
        """The whole group, whatever of it is there: the last bits depend on who shares a batch."""
        good = [one for one in group if not isinstance(read[one[0]], Exception)]
        if not good:
            return [], []
        seeds = [derive(int.from_bytes(content[:7], "little"), view) for content, view in good]
        made = self.tower.embed([read[content] for content, _ in good], seeds if self.tower.augmented else None)
        with np.errstate(over="ignore"):  # which shows as not finite
            blocks = [np.atleast_2d(np.asarray(one, NUMBERS[self.tower.kind])) for one in made]
        shapes = {block_TV.shape[1:] for block_TV in blocks}
        if len(blocks) != len(good) or shapes != {(self.tower.width,)}:
            raise ValueError(
                f"the tower gives {len(blocks)} blocks of width {sorted(shapes)} for {len(good)} files and says its "
                f"width is {self.tower.width}"
            )
        if not all(np.isfinite(block_TV).all() for block_TV in blocks):
            raise ValueError(
                "the tower's embeddings are not finite, or not in the range of the numbers they are kept in: check "
                "its weights, or its dtype (model.vision_model.float(), data.cached_sounds_in=float32)"
            )
        return good, blocks

    def _describe(self) -> None:
        """Beside the parts, for whoever wonders what a folder is; nothing reads it."""
        about = {"fingerprint": self.tower.fingerprint, "width": self.tower.width, "format": FORMAT}
        replace(self.parts.folder / "about.json", json.dumps(about, indent=1) + "\n")


def file_of(item: Item) -> str:
    return item if isinstance(item, str) else item.path


def content_of(item: Item, content: bytes) -> bytes:
    """What the key of a file, or of a part of it, begins with."""
    if isinstance(item, str):
        return content
    part = f"{item.first}-{item.stop}".encode()
    return hashlib.blake2b(content + part, digest_size=HASH_BYTES).digest()


def key_of(content: bytes, view: int) -> bytes:
    return content + view.to_bytes(VIEW_BYTES, "little")


def told(broken: dict[str, str], number: int) -> str:
    named = "; ".join(f"{path}: {why}" for path, why in sorted(broken.items())[:MOST_NAMED])
    more = f"; and {len(broken) - MOST_NAMED} more" if len(broken) > MOST_NAMED else ""
    return (
        f"{len(broken)} of {number} files cannot be read: {named}{more}. Replace or remove them, or leave their "
        "samples out (data.leave_out=ID,ID); the others are stored, so the next start is quick"
    )


class Contents:
    """Which content a path had when it was last read: path -> size, time of change, hash. It only saves time.

    Processes that write it at once overwrite one another, which costs the loser a second reading.
    """

    def __init__(self, file: Path):
        self.file = file

    def hashes(self, paths: Sequence[str], broken: dict[str, str]) -> dict[str, bytes]:
        """The hash of each path's content; what cannot be read goes to `broken`."""
        known, found, new = self._load(), dict[str, bytes](), 0

        def look(path: str):
            place = os.path.realpath(path)
            try:
                state = os.stat(place)
                entry = known.get(place)
                if entry is not None and entry[:2] == [state.st_size, state.st_mtime_ns]:
                    return place, None, bytes.fromhex(entry[2])
                content = digest(place)
            except OSError as error:
                return place, None, error
            settled = time.time_ns() - state.st_mtime_ns > SETTLED_S * 10**9
            return place, [state.st_size, state.st_mtime_ns, content.hex()] if settled else None, content

        with ThreadPoolExecutor(max_workers=4, thread_name_prefix="unibrivl-hash") as pool:
            looked = pool.map(look, paths)
            for path, (place, entry, content) in zip(
                paths, tqdm(looked, total=len(paths), desc="files", unit="file", disable=None), strict=True
            ):
                if isinstance(content, OSError):
                    broken[path] = str(content)
                    continue
                found[path] = content
                if entry is not None:
                    known[place], new = entry, new + 1
        if new:
            replace(self.file, json.dumps(known))
        return found

    def _load(self) -> dict[str, list]:
        try:
            known = json.loads(self.file.read_text(encoding="utf-8"))
            if all(len(entry) == 3 and bytes.fromhex(entry[2]) for entry in known.values()):
                return known
        except FileNotFoundError:
            return {}
        except NotADirectoryError as error:
            raise OSError(f"{self.file.parent} is no folder. {ELSEWHERE}") from error
        except (ValueError, TypeError, AttributeError):
            known = None
        logger.warning("%s is damaged: every file is read again", self.file)
        return {}


def replace(path: Path, text: str) -> None:
    """Write a file at once or not at all; of several who do so together the last counts."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written: {error}. {ELSEWHERE}") from error


def digest(path: str) -> bytes:
    """Of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=HASH_BYTES)).digest()


# ---- the tower that looks at pictures -------------------------------------------------------------------------------


def picture_tower(
    model: Any,
    image_processor: Any,
    augmentation: PictureAugmentation | None = None,
    views: int = 1,
    device: torch.device | str | None = None,
) -> Tower:
    """The image tower of a `UniBriVLModel`, as it is now.

    Args:
        model: its `get_native_image_features` is asked.
        image_processor: what makes `pixel_values`, with transformers' arguments.
        augmentation (*optional*), views: each of the views of a picture is drawn once, from its content.
        device (*optional*): where to compute; a GPU if there is one.
    """
    if not getattr(model.config, "freeze_vision_model", False):
        raise ValueError("the image tower trains, so its embeddings change: cache those of a frozen one, or none")
    settings = {
        "kind": "pictures",
        "format": FORMAT,
        "augmentation": None if augmentation is None else asdict(augmentation),
        "width": model.config.native_dim,
    }
    place = torch.device(device) if device is not None else usual_device()

    def embed(pictures: list[Image.Image], seeds: list[int] | None) -> np.ndarray:
        pixels_B3HW = pixels_of(pictures, image_processor, augmentation, seeds)
        model.vision_model.eval().to(place)  # frozen, it is in eval mode for good, and the run will want it there
        with torch.no_grad():
            output = model.get_native_image_features(pixels_B3HW.to(place), return_dict=True)
        return output.pooler_output.float().cpu().numpy()

    return Tower(
        fingerprint(model.vision_model, {"image_processor": image_processor}, settings),
        model.config.native_dim,
        open_picture,
        embed,
        views,
        augmentation is not None,
    )


def usual_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def pixels_of(
    pictures: list[Image.Image],
    image_processor: Any,
    augmentation: PictureAugmentation | None = None,
    seeds: Sequence[int] | None = None,
) -> torch.Tensor:
    """(B, 3, H, W), as the processor makes them; augmented between its resize and its normalisation."""
    if augmentation is None:
        return image_processor(pictures, return_tensors="pt")["pixel_values"]
    plain_B3HW = image_processor(pictures, do_normalize=False, return_tensors="pt")["pixel_values"]
    plain_B3HW = plain_B3HW.float().clamp(0, 1)  # a bicubic resize overshoots
    changed = [
        augmentation(one_3HW[None], torch.Generator().manual_seed(seed))
        for one_3HW, seed in zip(plain_B3HW, seeds or (), strict=True)
    ]
    pixels_B3HW = torch.cat(changed)
    if not getattr(image_processor, "do_normalize", True):
        return pixels_B3HW
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (image_processor.image_mean, image_processor.image_std)
    )
    return (pixels_B3HW - mean) / std
