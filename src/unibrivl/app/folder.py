"""A folder of pictures that sounds may find: embedded once, remembered, shown as thumbnails and never as files.

Shapes: M pictures, E numbers of an embedding.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unibrivl.data.pictures import PictureError, open_picture
from unibrivl.embedder import Embedder, Embeddings
from unibrivl.embedder.inputs import Input, find_inputs

logger = logging.getLogger(__name__)

MOST_PICTURES = 100_000
THUMBNAIL = 192  # pixels of its longer side
CACHE = "UNIBRIVL_CACHE"  # the environment's name for where vectors are kept


@dataclass(frozen=True)
class Match:
    """A row of the folder's vectors, by its id, and its scores; see `Found`."""

    id: str
    score: float
    channels: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A picture of the folder: its name within it, its cosine to the sound, and itself, small.

    Args:
        channels (`dict`): each channel's own cosine, of a model that has several.
    """

    name: str
    score: float
    thumbnail: Image.Image
    channels: dict[str, float] = field(default_factory=dict)

    def jpeg(self) -> bytes:
        file = io.BytesIO()
        self.thumbnail.save(file, format="JPEG", quality=88)
        return file.getvalue()


class PictureFolder:
    """
    Args:
        folder: searched with the folders in it; hidden ones are skipped and links to folders are not followed.
        seer: a pipeline whose matcher sees, or an embedder that does.
        cache (*optional*): a folder for vectors; `cache_folder()` by default.
    """

    def __init__(self, folder: str | os.PathLike, seer: Any, cache: str | os.PathLike | None = None) -> None:
        self.folder = Path(folder).resolve()
        if not self.folder.is_dir():
            raise ValueError(f"--pictures {folder} is no folder: name one that has pictures in it")
        inputs = [one for one in find_inputs([self.folder], kind="image", root=self.folder) if not one.error]
        if not inputs:
            raise ValueError(f"--pictures {folder} has no picture in it that ends in .jpg, .png, .webp or their like")
        if len(inputs) > MOST_PICTURES:
            raise ValueError(f"--pictures {folder} has {len(inputs)} pictures, and the page searches {MOST_PICTURES}")
        embedder = seer if isinstance(seer, Embedder) else Embedder(seer.listener)
        where = Path(cache) if cache is not None else cache_folder()
        place = hashlib.sha256(f"{self.folder}\n{embedder.fingerprint}".encode()).hexdigest()[:24]
        self.vectors = embedded(embedder, inputs, where / f"pictures-{place}.safetensors")

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, embeds_1E: torch.Tensor, top: int = 6) -> list[Found]:
        """The pictures that fit a sound best; one that has vanished since is left out."""
        scores_M = self.vectors.vectors @ embeds_1E[0].float().cpu().numpy()
        rows = np.argsort(-scores_M, kind="stable")
        return self.opened((Match(self.vectors.ids[row], float(scores_M[row])) for row in rows), top)

    def opened(self, ranked: Iterable[Match], top: int) -> list[Found]:
        """The first pictures of a ranking that are still there, small."""
        found: list[Found] = []
        for match in ranked:
            if len(found) == top:
                break
            name = name_of(match.id)
            try:
                picture = open_picture(self.folder / name)
            except (PictureError, OSError) as error:
                logger.warning("%s was left out: %s", name, error)
                continue
            picture.thumbnail((THUMBNAIL, THUMBNAIL))
            found.append(Found(name, match.score, picture, match.channels))
        return found


def embedded(embedder: Embedder, inputs: list[Input], path: Path) -> Embeddings:
    """The vectors of pictures: those of an earlier run for files that have not changed since, and the rest anew."""
    marks = {mark_of(one): one for one in inputs}
    known = remembered(path, embedder.fingerprint)
    held = set[str]() if known is None else set(known.ids)
    missing = [mark for mark in marks if mark not in held]
    parts = [] if known is None else [known[[row for row, mark in enumerate(known.ids) if mark in marks]]]
    if missing:
        paths = [marks[mark].path for mark in missing]
        new = embedder.encode_image(paths, on_error="collect", ids=missing)
        for failure in new.failures:
            logger.warning("%s was left out: %s", name_of(failure.id), failure.error)
        parts.append(new)
    parts = [part for part in parts if len(part)]
    if not parts:
        raise ValueError(f"none of the {len(inputs)} pictures could be opened: {path.name} has nothing to search")
    vectors = Embeddings.join(parts)
    if missing or known is None or len(known) != len(vectors):
        path.parent.mkdir(parents=True, exist_ok=True)
        vectors.save(path)
    return vectors


def remembered(path: Path, fingerprint: str) -> Embeddings | None:
    if not path.is_file():
        return None
    try:
        known = Embeddings.load(path)
    except ValueError as error:
        logger.warning("the remembered vectors are made anew: %s", error)
        return None
    return known if known.fingerprint == fingerprint else None


def mark_of(one: Input) -> str:
    """A picture at one moment: a file that changes gets another mark."""
    return f"{one.size_bytes}/{one.mtime_ns}/{one.id}"


def name_of(mark: str) -> str:
    return mark.split("/", 2)[2]


def cache_folder() -> Path:
    if given := os.environ.get(CACHE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unibrivl"


__all__ = ["Found", "Match", "PictureFolder", "cache_folder"]
