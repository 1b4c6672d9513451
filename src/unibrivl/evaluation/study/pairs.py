"""What a study judges: sounds and the pictures that systems made of them, read from a table.

A row is one sound and one picture of it. Rows whose system is "photo" are real photographs of what sounds: they are
no system under test but make the attention checks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from unibrivl.data.tables import is_empty, read_rows

PHOTO = "photo"
NAMED = 5  # files that an error names


@dataclass(frozen=True)
class Pair:
    """
    Args:
        sound, image (`str`): paths of files.
        system (`str`): what made the picture of the sound.
        label (`str`): the class of the sound; empty where nobody needs it.
        test (`str`): part of the study; the paper ran three and averaged. Empty where there is one.
    """

    sound: str
    image: str
    system: str
    label: str = ""
    test: str = ""

    @property
    def kind(self) -> str:
        """The class as it is compared: "Dog" and "dog " are one."""
        return self.label.strip().casefold()


def read_pairs(path: str | os.PathLike, labels: bool = True) -> list[Pair]:
    """Rows of a CSV, TSV, JSON-lines or parquet file; files are looked for beside it.

    Args:
        labels: whether each row must have a label.
    """
    path = Path(path)
    required = ["sound", "image", "system", *(["label"] if labels else [])]
    pairs, missing = [], []
    for number, row in enumerate(read_rows(str(path), required), 1):
        for column in required:
            if is_empty(row[column]):
                raise ValueError(f"{path}, row {number}: {column} is empty. Fill it in, or leave the row out")
        told = {name: "" if is_empty(row.get(name)) else str(row[name]) for name in ("system", "label", "test")}
        files = [str(path.parent / str(row[column])) for column in ("sound", "image")]
        missing += [file for file in files if not os.path.isfile(file)]
        pairs.append(Pair(*files, **told))
    if missing:
        more = ", ..." if len(missing) > NAMED else ""
        raise ValueError(
            f"{len(missing)} files of {path} are not there: {', '.join(missing[:NAMED])}{more}. Paths are relative to "
            "the folder of the table"
        )
    if not pairs:
        raise ValueError(f"{path} has no rows: each names a sound, a picture of it and the system that made it")
    return pairs
