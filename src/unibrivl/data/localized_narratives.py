"""Localized Narratives of COCO: people describe a picture aloud while they point at it.

Layout: `coco_train_localized_narratives-*.jsonl` and `coco_val_localized_narratives.jsonl` (or in `annotations`), the
voices below `voice-recordings/` as the files name them (`coco_val/coco_val_{image}_{annotator}.ogg`), COCO's pictures
of 2017 in `train2017/` and `val2017/` there or in a folder of their own. CC BY 4.0.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from unibrivl.data.layout import as_listing, locate
from unibrivl.data.records import DatasetError, Listing, Sample
from unibrivl.data.tables import number, read_jsonl

NUM_NARRATIVES = {"train": 134_272, "val": 8573}
LISTS = {"train": "coco_train_localized_narratives*.jsonl", "val": "coco_val_localized_narratives*.jsonl"}
VOICES = ("voice-recordings", "voice_recordings", ".")
COLUMNS = "image_id annotator_id caption voice_recording".split()


def load(root: str | os.PathLike, images: str | os.PathLike | None = None) -> Listing:
    """Localized Narratives of COCO as a `Listing`, one sample a narrative; the group is the annotator.

    Splits whose lists are not there are not expected. Where no picture at all is found, sounds need none.

    Args:
        images (`str`, *optional*): the folder that holds `train2017` and `val2017`; `root` if None.
    """
    either = "|".join(f"{at}{one}" for at in ("", "annotations/") for one in LISTS.values())
    root = locate(root, "Localized Narratives (COCO)", (either,))
    pictures = root if images is None else os.fspath(images)
    if not os.path.isdir(pictures):
        raise DatasetError(f"{pictures} is no folder. Give images the one that holds train2017 and val2017")
    samples, parts = list[Sample](), dict[str | int, int]()
    for split, pattern in LISTS.items():
        base = glob.escape(root)
        lists = sorted(glob.glob(os.path.join(base, pattern)) or glob.glob(os.path.join(base, "annotations", pattern)))
        for path in lists:
            samples += list(narratives(path, root, pictures, split))
            parts[split] = NUM_NARRATIVES[split]
    seen = any(sample.image for sample in samples)
    return as_listing(
        "Localized Narratives (COCO)",
        root,
        samples,
        complete=lambda one: bool(one.audio and (one.image or not seen)),
        official=sum(parts.values()),
        parts=parts,
        looked_for="voice-recordings/coco_*/*.ogg and, if there are any, train2017/*.jpg and val2017/*.jpg",
    )


def narratives(path: str, root: str, pictures: str, split: str) -> Iterator[Sample]:
    for line, row in enumerate(read_jsonl(path, COLUMNS), 1):
        image = number(f"{path}, row {line}", "image_id", row["image_id"], int)
        voice = str(row["voice_recording"])
        picture = os.path.join(pictures, f"{split}2017", f"{image:012d}.jpg")
        sounds = (os.path.join(root, folder, voice) for folder in VOICES)
        yield Sample(
            id=os.path.splitext(os.path.basename(voice))[0],
            audio=next((sound for sound in sounds if os.path.isfile(sound)), None),
            image=picture if os.path.isfile(picture) else None,
            texts=(row["caption"],),
            split=split,
            group=str(row["annotator_id"]),
        )
