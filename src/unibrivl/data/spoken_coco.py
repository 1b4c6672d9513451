"""SpokenCOCO: the captions of COCO's pictures, read aloud: some 605,000 sounds of 123,287 pictures.

Layout: `SpokenCOCO_{train,val}.json`, or the Karpathy split as `SpokenCOCO_ksplit_{train,val,test}.json`, the sounds
below `wavs/` as the files name them, COCO's pictures in `train2014/` and `val2014/` there or in a folder of their own.
Published scores are on the Karpathy split: 113,287, 5,000 and 5,000 pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

from unibrivl.data.layout import as_listing, locate
from unibrivl.data.records import DatasetError, Listing, Sample
from unibrivl.data.tables import read_json

NUM_IMAGES = {"karpathy": {"train": 113_287, "val": 5000, "test": 5000}}
FILES = {"original": "SpokenCOCO_{}.json", "karpathy": "SpokenCOCO_ksplit_{}.json"}
SPLITS = {"original": ("train", "val"), "karpathy": ("train", "val", "test")}


def load(
    root: str | os.PathLike,
    images: str | os.PathLike | None = None,
    lists: Literal["karpathy", "original"] | None = None,
) -> Listing:
    """SpokenCOCO as a `Listing`, one sample a spoken caption; the group is the speaker.

    Expected are the captions of the lists that are there. Where no picture at all is found, sounds need none.

    Args:
        images (`str`, *optional*): the folder that holds `train2014` and `val2014`; `root` if None.
        lists (`str`, *optional*): which split; the Karpathy split if its files are there, if None.
    """
    if lists not in (None, "karpathy", "original"):
        raise ValueError(f"lists is {lists!r} and must be 'karpathy', 'original' or None")
    names = [FILES[one].format(split) for one in FILES if lists in (None, one) for split in SPLITS[one]]
    folder = locate(root, "SpokenCOCO", ("|".join(names),), ("SpokenCOCO",))
    if lists is None:
        there = any(os.path.exists(os.path.join(folder, FILES["karpathy"].format(one))) for one in SPLITS["karpathy"])
        lists = "karpathy" if there else "original"
    pictures = folder if images is None else os.fspath(images)
    if not os.path.isdir(pictures):
        raise DatasetError(f"{pictures} is no folder. Give images the one that holds train2014 and val2014")
    samples = []
    for split in SPLITS[lists]:
        path = os.path.join(folder, FILES[lists].format(split))
        if os.path.exists(path):
            samples += list(captions(path, folder, pictures, split))
    seen = any(sample.image for sample in samples)
    return as_listing(
        f"SpokenCOCO ({lists})",
        folder,
        samples,
        complete=lambda one: bool(one.audio and (one.image or not seen)),
        looked_for="wavs/**.wav and, if there are any, train2014/*.jpg and val2014/*.jpg",
    )


def captions(path: str, folder: str, pictures: str, split: str) -> Iterator[Sample]:
    for number, entry in enumerate(read_json(path, "data")):
        try:
            image = existing(pictures, entry["image"])
            for one in entry["captions"]:
                yield Sample(
                    id=one["uttid"],
                    audio=existing(folder, one["wav"]),
                    image=image,
                    texts=(one["text"],),
                    split=split,
                    group=str(one["speaker"]),
                )
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{path}, entry {number} of data: no {error}. Is it SpokenCOCO's own file?") from error


def existing(folder: str, name: str) -> str | None:
    path = os.path.join(folder, name)
    return path if os.path.isfile(path) else None
