"""Clotho: sounds of 15 to 30 s with five captions each.

Layout: `clotho_captions_{split}.csv`, optionally `clotho_metadata_{split}.csv`, and the sounds in a folder named after
the split, itself or below `clotho_audio_{split}`. Version 1 has the splits development and evaluation; 2.1 adds
validation and enlarges development, with the same evaluation. Captions: Tampere University's non-commercial licence;
sounds: each its own.
"""

from __future__ import annotations

import os

from unibrivl.data.layout import as_listing, locate, names_below
from unibrivl.data.records import Listing, Sample
from unibrivl.data.tables import read_csv

SPLITS = ("development", "validation", "evaluation")
SIZES_V1 = {"development": 2893, "evaluation": 1045}
SIZES_V2 = {"development": 3839, "validation": 1045, "evaluation": 1045}
CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def load(root: str | os.PathLike) -> Listing:
    """Clotho as a `Listing`; the version is 2.1 if the captions of the validation split are there.

    Splits whose captions are not there are not expected. With the metadata, the group of a clip is its Freesound
    recording.
    """
    folder = locate(root, "Clotho", ("clotho_captions_*.csv",), ("clotho", "clotho_v2"))
    tables = {split: os.path.join(folder, f"clotho_captions_{split}.csv") for split in SPLITS}
    tables = {split: path for split, path in tables.items() if os.path.exists(path)}
    sizes = SIZES_V2 if is_second(folder, tables) else SIZES_V1
    samples = [sample for split, path in tables.items() for sample in clips(folder, split, path)]
    return as_listing(
        "Clotho 2.1" if sizes is SIZES_V2 else "Clotho 1",
        folder,
        samples,
        official=sum(sizes[split] for split in tables),
        parts={split: sizes[split] for split in tables},
        looked_for="{split}/*.wav or clotho_audio_{split}/{split}/*.wav",
    )


def is_second(folder: str, tables: dict[str, str]) -> bool:
    """Version 2 by its validation split, or by more development clips than version 1 has."""
    if "validation" in tables or "development" not in tables:
        return "validation" in tables
    rows = sum(1 for _ in read_csv(tables["development"], ("file_name",)))
    return rows > SIZES_V1["development"]


def clips(folder: str, split: str, table: str) -> list[Sample]:
    files: dict[str, str] = {}
    for below in (split, f"clotho_audio_{split}"):
        files = names_below(os.path.join(folder, below)) | files
    files = {name.strip(): path for name, path in files.items()}  # some names end in a space, in the lists too
    recordings = {}
    metadata = os.path.join(folder, f"clotho_metadata_{split}.csv")
    if os.path.exists(metadata):  # its makers' names and titles are not in UTF-8
        for row in read_csv(metadata, ("file_name", "sound_id"), encoding="latin-1"):
            recordings[row["file_name"].strip()] = row["sound_id"].strip()
    samples = []
    for row in read_csv(table, ("file_name", *CAPTIONS)):
        name = row["file_name"].strip()
        recording = recordings.get(name)
        samples.append(
            Sample(
                id=f"{split}/{os.path.splitext(name)[0]}",
                audio=files.get(name),
                texts=tuple(row[caption] for caption in CAPTIONS),
                split=split,
                group=recording if recording and recording.isdigit() else None,
            )
        )
    return samples
