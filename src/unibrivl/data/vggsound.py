"""VGGSound: 10-second clips of YouTube videos in 309 classes, as far as they still exist.

Layout: `vggsound.csv` without a header (`id,start seconds,label,split`) and anywhere below the folder the clips as
`{id}_{start:06d}.mp4` or `.wav`, pictures as `.jpg` of the same name. The list is CC BY 4.0. Videos vanish: two scores
are of the same clips only if their lists of ids are the same.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator

from unibrivl.data.layout import Stems, as_listing, locate
from unibrivl.data.records import DatasetError, Listing, Sample
from unibrivl.data.tables import number

NUM_CLASSES = 309
NUM_TEST = 15_446
HEADER = ("youtube", "ytid", "# youtube", "id", "video_id")


def load(root: str | os.PathLike, split: str | None = None) -> Listing:
    """VGGSound as a `Listing`; where a clip has no sound of its own its video is the sound.

    Args:
        root (`str`): the folder that holds `vggsound.csv` and the clips.
        split (`str`, *optional*): `"train"` or `"test"`, if only these clips are there; both if None.
    """
    if split not in (None, "train", "test"):
        raise ValueError(f"split is {split!r} and must be 'train', 'test' or None")
    folder = locate(root, "VGGSound", ("vggsound.csv|*/vggsound.csv",))
    table = os.path.join(folder, "vggsound.csv")
    if not os.path.exists(table):
        table = next(
            path for one in sorted(os.listdir(folder)) if os.path.exists(path := f"{folder}/{one}/vggsound.csv")
        )
    files = Stems([folder])
    samples = (sample for sample in rows(table, files) if split in (None, sample.split))
    listing = as_listing(
        "VGGSound",
        folder,
        samples,
        parts={"test": NUM_TEST},
        looked_for="{id}_{start:06d}.wav or .mp4 in any folder",
    )
    return listing if split is None else listing.split(split)


def rows(table: str, files: Stems) -> Iterator[Sample]:
    with open(table, newline="", encoding="utf-8-sig") as file:
        for line, row in enumerate(csv.reader(file), 1):
            if line == 1 and row and row[0].strip().lower().startswith(HEADER) and not row[1].strip().isdigit():
                continue  # some copies add one
            if len(row) != 4:
                raise DatasetError(
                    f"{table}, line {line}: {len(row)} columns instead of id, start, label, split. Quote labels that "
                    "hold commas"
                )
            video, start, label, split = (cell.strip() for cell in row)
            begin = number(f"{table}, line {line}", "start", start, int)
            # some downloaders leave the zeros out
            media = files.media(f"{video}_{begin:06d}", f"{video}_{begin}")
            yield Sample(f"{video}_{begin:06d}", **media, labels=(label,), split=split, group=video)
