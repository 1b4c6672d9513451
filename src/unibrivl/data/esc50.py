"""ESC-50: 2,000 clips of 5 s in 50 classes and 5 folds; ESC-10 is the subset of ten easy classes.

Layout: `audio/{fold}-{source}-{take}-{target}.wav` and `meta/esc50.csv`. CC BY-NC 3.0.
"""

from __future__ import annotations

import os

from unibrivl.data.layout import as_listing, locate, names_below
from unibrivl.data.records import Listing, Sample
from unibrivl.data.tables import number, read_csv

NUM_CLIPS, NUM_FOLDS = 2000, 5
NUM_CLIPS_ESC10 = 400


def load(root: str | os.PathLike, esc10: bool = False) -> Listing:
    """ESC-50 as a `Listing`; the group of a clip is the recording it was cut from.

    Args:
        root (`str`): the folder with `audio` and `meta`, or the one that holds `ESC-50-master`.
        esc10 (`bool`): only the ten classes of ESC-10.
    """
    name, official = ("ESC-10", NUM_CLIPS_ESC10) if esc10 else ("ESC-50", NUM_CLIPS)
    folder = locate(root, name, ("meta/esc50.csv", "audio"), ("ESC-50-master", "ESC-50"))
    table = os.path.join(folder, "meta", "esc50.csv")
    files = names_below(os.path.join(folder, "audio"))
    samples = [
        Sample(
            id=os.path.splitext(row["filename"])[0],
            audio=files.get(row["filename"]),
            labels=(row["category"],),
            fold=number(f"{table}, {row['filename']}", "fold", row["fold"], int),
            group=row["src_file"],
        )
        for row in read_csv(table, "filename fold target category esc10 src_file".split())
        if not esc10 or row["esc10"].lower() == "true"
    ]
    parts = dict.fromkeys(range(1, NUM_FOLDS + 1), official // NUM_FOLDS)
    return as_listing(name, folder, samples, official=official, parts=parts, looked_for="audio/*.wav")
