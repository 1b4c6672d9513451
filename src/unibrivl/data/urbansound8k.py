"""UrbanSound8K: 8,732 slices of up to 4 s in 10 classes and 10 folds, which must not be shuffled.

Layout: `audio/fold1` to `audio/fold10` and `metadata/UrbanSound8K.csv`. CC BY-NC 4.0. Slices of one recording share a
fold: a random split hears the test recordings in training and scores some ten points too high.
"""

from __future__ import annotations

import os

from unibrivl.data.layout import as_listing, locate, names_below
from unibrivl.data.records import Listing, Sample
from unibrivl.data.tables import number, read_csv

FOLD_SIZES = (873, 888, 925, 990, 936, 823, 838, 806, 816, 837)


def load(root: str | os.PathLike) -> Listing:
    """UrbanSound8K as a `Listing`; the group of a slice is its Freesound recording.

    `start` and `end` of the table are places in that recording; the files are cut already, so they are not kept.
    """
    folder = locate(root, "UrbanSound8K", ("metadata/UrbanSound8K.csv", "audio"), ("UrbanSound8K",))
    table = os.path.join(folder, "metadata", "UrbanSound8K.csv")
    files = names_below(os.path.join(folder, "audio"), parts=2)
    samples = []
    for row in read_csv(table, "slice_file_name fsID fold classID class".split()):
        name = row["slice_file_name"]
        fold = number(f"{table}, {name}", "fold", row["fold"], int)
        samples.append(
            Sample(
                id=os.path.splitext(name)[0],
                audio=files.get(f"fold{fold}/{name}"),
                labels=(row["class"],),
                fold=fold,
                group=row["fsID"],
            )
        )
    return as_listing(
        "UrbanSound8K",
        folder,
        samples,
        official=sum(FOLD_SIZES),
        parts=dict(enumerate(FOLD_SIZES, 1)),
        looked_for="audio/fold*/*.wav",
    )
