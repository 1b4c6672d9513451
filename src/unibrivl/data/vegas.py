"""VEGAS: short videos of ten classes; five of them are the classes sounds are turned into pictures of.

Layout: one folder a class with `{id}.mp4` or `.wav` at any depth, pictures as `.jpg` of the same name; optionally
`split.csv` with the columns `id` and `split`, ids being unique or written `class/id`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from unibrivl.data.layout import Stems, as_listing, describe, kind_of, locate, subfolders, walk
from unibrivl.data.records import DatasetError, Listing, Sample
from unibrivl.data.tables import read_csv

logger = logging.getLogger(__name__)

CLASSES = (
    *("baby_cry", "chainsaw", "dog", "drum", "fireworks", "helicopter", "printer", "rail_transport", "snoring"),
    "water_flowing",
)
FIVE_CLASSES = ("baby_cry", "dog", "fireworks", "rail_transport", "water_flowing")  # of the picture generation
NUM_VIDEOS = 28_109


def load(root: str | os.PathLike, classes: Sequence[str] | None = None) -> Listing:
    """VEGAS as a `Listing`.

    Args:
        root (`str`): the folder with one folder a class; `Baby cry` and `baby_cry` are the same class.
        classes (`Sequence[str]`, *optional*): only these, such as `FIVE_CLASSES`; all ten if None.
    """
    wanted = tuple(plain(name) for name in (classes or CLASSES))
    for name in wanted:
        if name not in CLASSES:
            raise ValueError(f"{name!r} is no class of VEGAS: it has {', '.join(CLASSES)}")
    root = locate(root, "VEGAS", ("*/",), ("VEGAS", "data"))
    folders = {plain(name): name for name in subfolders(root)}
    here = [name for name in wanted if name in folders]
    if not here:
        raise DatasetError(
            f"{root} is not VEGAS: looked for folders named {', '.join(wanted)}; there is {describe(root)}. Give the "
            "folder that holds one folder a class"
        )
    if len(here) < len(wanted):
        logger.warning("VEGAS in %s: no folder %s", root, ", ".join(name for name in wanted if name not in here))
    splits = read_splits(os.path.join(root, "split.csv"))
    samples = []
    for label in here:
        folder = os.path.join(root, folders[label])
        files = Stems([folder])
        stems = sorted({os.path.splitext(os.path.basename(path))[0] for path in walk(folder) if heard(path)})
        samples += [
            Sample(
                id=f"{label}/{stem}",
                **files.media(stem),
                labels=(label,),
                split=splits.get(f"{label}/{stem}", splits.get(stem)),
                group=stem,
            )
            for stem in stems
        ]
    official = NUM_VIDEOS if set(wanted) == set(CLASSES) else None
    return as_listing("VEGAS", root, samples, official=official, looked_for="{class}/**/{id}.mp4 or .wav")


def heard(path: str) -> bool:
    return kind_of(path) in ("audio", "video")


def plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def read_splits(path: str) -> dict[str, str]:
    if not os.path.exists(path):
        return {}
    return {row["id"]: row["split"] for row in read_csv(path, ("id", "split"))}
