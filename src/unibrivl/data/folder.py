"""Your own sounds and pictures: a folder, a CSV or a parquet file is a dataset.

Three ways to say what belongs together. By row: a table with a column `audio`, `image` or `file_name`. By stem:
`dog_1.wav` beside `dog_1.jpg` (and `dog_1.txt` with a caption a line). By label: one folder a class, below folders
named `train` and `test` if there are any. `load` finds out which it is and says so; `how` decides it.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from unibrivl.data.layout import as_listing, describe, kind_of, subfolders, walk
from unibrivl.data.records import DatasetError, Listing, Sample
from unibrivl.data.tables import SUFFIXES, columns_of, is_empty, nearest, number, read_rows
from unibrivl.data.transcripts import PREFIX as TRANSCRIPTS

__all__ = ["load"]

logger = logging.getLogger(__name__)

COLUMNS = "audio image file_name text label split fold id start_s end_s group".split()
OTHER_NAMES = {  # what others call our columns: asked about where ours is not there
    **dict.fromkeys("wav wav_path audio_path audio_file sound file path filename filepath".split(), "audio"),
    **dict.fromkeys("jpg image_path image_file img picture photo".split(), "image"),
    **dict.fromkeys("caption sentence transcript transcription".split(), "text"),
    **dict.fromkeys("category class class_name".split(), "label"),
    "subset": "split",
}
SPLITS = frozenset("train training valid validation val dev test eval evaluation".split())
KINDS = {  # folders that say what they hold rather than of which class it is
    **dict.fromkeys("audio audios sound sounds wav wavs clips".split(), "audio"),
    **dict.fromkeys("image images picture pictures photo photos img jpg jpegs frames".split(), "image"),
    **dict.fromkeys("text texts caption captions".split(), "text"),
}


def load(
    path: str | os.PathLike,
    how: Literal["rows", "stems", "labels"] | None = None,
    columns: Mapping[str, str | None] | None = None,
) -> Listing:
    """A folder or a table as a `Listing`.

    Args:
        path (`str`): a .csv, .tsv, .jsonl or .parquet file, whose paths are relative to its folder; or a folder.
        how (`str`, *optional*): `"rows"`, `"stems"` or `"labels"`. If None, a folder with a `metadata` table (or one
            single table) is read by row, one whose media lie in subfolders by label, any other by stem.
        columns (`Mapping[str, str]`, *optional*): our column -> yours, as in `{"audio": "wav", "label": "category"}`;
            None says that the table has none, however its columns are called.
    """
    path = os.fspath(path)
    if how not in (None, "rows", "stems", "labels"):
        raise ValueError(f"how is {how!r} and must be 'rows', 'stems', 'labels' or None")
    if not os.path.exists(path):
        raise DatasetError(f"{path} does not exist. Give a folder, or a table ending in {', '.join(SUFFIXES)}")
    if not os.path.isdir(path):
        if how not in (None, "rows"):
            raise DatasetError(f"{path} is a file, and how={how!r} is for folders. Give its folder")
        return by_row(path, columns)
    chosen = how or choose(path)
    if how is None:
        logger.info("%s: read by %s", path, chosen)
    if chosen == "rows":
        return by_row(the_table(path), columns)
    if columns:
        raise ValueError(f"columns are for tables, and {path} is read by {chosen}. Leave them away or give the table")
    return by_stem(path) if chosen == "stems" else by_label(path)


def choose(folder: str) -> Literal["rows", "stems", "labels"]:
    """How a folder is most likely meant; what could be two things is an error."""
    tables = tables_in(folder)
    if any(os.path.splitext(name)[0] == "metadata" for name in tables) or len(tables) == 1:
        return "rows"
    if tables:
        raise DatasetError(f"{folder} holds the tables {', '.join(tables)}. Give the path of the one you mean")
    below = subfolders(folder)
    if any(name.lower() in KINDS for name in below) or any(kind_of(name) for name in os.listdir(folder)):
        return "stems"
    if not below:
        raise DatasetError(f"{folder} holds no sound, picture, video or table, but {describe(folder)}. Give another")
    return "labels"


def tables_in(folder: str) -> list[str]:
    """Names of tables of samples; transcripts, which lie beside sounds as well, are none."""
    names = (name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES))
    return sorted(name for name in names if not name.startswith((".", TRANSCRIPTS)))


def the_table(folder: str) -> str:
    tables = tables_in(folder)
    named = [name for name in tables if os.path.splitext(name)[0] == "metadata"]
    choice = named or tables
    if len(choice) != 1:
        raise DatasetError(
            f"{folder} holds {len(choice)} tables ({', '.join(choice) or describe(folder)}). Give the path of one"
        )
    return os.path.join(folder, choice[0])


# by row


def by_row(path: str, columns: Mapping[str, str | None] | None = None) -> Listing:
    """A table, one sample a row. Files it names and the disk does not hold are `missing`."""
    taken = match_columns(path, columns_of(path), columns or {})
    base = os.path.dirname(path)
    samples: list[Sample] = []
    gone: dict[str, str] = {}  # id -> the path that is not there
    named: Counter[str] = Counter()
    for row_number, row in enumerate(read_rows(path), 1):
        where = f"{path}, row {row_number}"
        sample, absent = one_row(where, base, {ours: row.get(theirs) for ours, theirs in taken.items()})
        if "id" not in taken:  # several captions or windows of one file are several samples
            named[sample.id] += 1
            if named[sample.id] > 1:
                sample = replace(sample, id=f"{sample.id}#{named[sample.id]}")
        samples.append(sample)
        if absent is not None:
            gone[sample.id] = absent
    if not samples:
        raise DatasetError(f"{path} has no rows. Is it whole?")
    if len(gone) == len(samples):
        raise DatasetError(
            f"{path}: none of the {len(samples)} rows has its files; the first is {next(iter(gone.values()))}. "
            "Paths are relative to the table's folder"
        )
    return as_listing(
        os.path.basename(path),
        base or ".",
        samples,
        complete=lambda sample: sample.id not in gone,
        looked_for="the table's paths",
    )


def match_columns(path: str, present: list[str], columns: Mapping[str, str | None]) -> dict[str, str]:
    """Our name -> the table's. A column that is nearly one of ours is a slip, not a column to pass over."""
    for ours, theirs in columns.items():
        if ours not in COLUMNS:
            near = nearest(ours, COLUMNS)
            raise DatasetError(
                f"columns has {ours!r}, and a sample has {', '.join(COLUMNS)}" + (f". Is it {near!r}?" if near else "")
            )
        if theirs is not None and theirs not in present:
            near = nearest(theirs, present)
            raise DatasetError(
                f"{path} has no column {theirs!r}: it has {', '.join(present)}"
                + (f". Is it {near!r}?" if near else "")
            )
    wanted: dict[str, str | None] = {**{name: name for name in COLUMNS if name in present}, **columns}
    taken = {ours: theirs for ours, theirs in wanted.items() if theirs is not None}
    for name in present:
        slip = None if name in taken.values() else OTHER_NAMES.get(name.lower()) or nearest(name, COLUMNS)
        if slip == "audio" and "file_name" in taken:
            continue
        if slip is not None and slip not in wanted:
            raise DatasetError(
                f"{path} has a column {name!r} and no {slip!r}. If it is that, pass columns={{{slip!r}: {name!r}}} or "
                f"rename it; if not, pass columns={{{slip!r}: None}}"
            )
    if not {"audio", "image", "file_name"} & taken.keys():
        raise DatasetError(
            f"{path} has no column audio, image or file_name: it has {', '.join(present) or 'none'}. "
            "Rename one, or pass columns={'audio': ...}"
        )
    return taken


def one_row(where: str, base: str, row: Mapping[str, Any]) -> tuple[Sample, str | None]:
    """A row as a sample, and the first path it names that the disk does not hold."""
    paths: dict[str, str] = {}
    for column in ("audio", "image", "file_name"):
        named = row.get(column)
        if is_empty(named):
            continue
        if not isinstance(named, str):
            raise DatasetError(f"{where}: {column} is {type(named).__name__} and must be a path")
        kind = column
        if column == "file_name":
            kind = kind_of(named) or ""
            if not kind:
                raise DatasetError(
                    f"{where}: {named!r} has no suffix of a sound or picture. Use a column audio or image"
                )
        paths[kind] = os.path.join(base, named)
    if not paths:
        raise DatasetError(f"{where} names neither a sound nor a picture. Fill in a path or leave the row out")
    gone = next((path for path in paths.values() if not os.path.isfile(path)), None)
    first = next(value for column in ("audio", "image", "file_name") if (value := row.get(column)))
    fold = row.get("fold")
    sample = Sample(
        id=str(row.get("id") or os.path.splitext(first)[0]),
        audio=paths.get("audio", paths.get("video")),
        image=paths.get("image"),
        video=paths.get("video"),
        texts=strings(row.get("text")),
        labels=strings(row.get("label")),
        split=text_of(row.get("split")),
        fold=None if is_empty(fold) else number(where, "fold", fold, int),
        group=text_of(row.get("group")),
        start_s=seconds(where, "start_s", row),
        end_s=seconds(where, "end_s", row),
    )
    if sample.start_s is not None and sample.end_s is not None and not 0 <= sample.start_s < sample.end_s:
        raise DatasetError(f"{where}: it is from {sample.start_s} to {sample.end_s} s. start_s must be before end_s")
    return sample, gone


def seconds(where: str, column: str, row: Mapping[str, Any]) -> float | None:
    value = row.get(column)
    return None if is_empty(value) else number(where, column, value)


def strings(value: Any) -> tuple[str, ...]:
    """A cell that may hold one thing or, in parquet and JSON, several."""
    if is_empty(value):
        return ()
    return tuple(str(one) for one in value) if isinstance(value, list | tuple) else (str(value),)


def text_of(value: Any) -> str | None:
    return None if is_empty(value) else str(value)


# by stem, by label


def by_stem(folder: str) -> Listing:
    """Files of one name belong together, whichever folders named after kinds (`audio/`, `images/`) they lie in.

    Where there are sounds and pictures, a stem that has only one of both is `missing`.
    """
    sets = gather(folder)
    has_both = [key for key, files in sets.items() if is_heard(files) and is_seen(files)]
    alone = {
        kind: next((files[kind] for files in sets.values() if kind in files), None) for kind in ("audio", "image")
    }
    if alone["audio"] and alone["image"] and not has_both:
        raise DatasetError(
            f"{folder} holds sounds and pictures and no two of one name: {alone['audio']}, {alone['image']}. Give "
            "pairs one stem, name them in a table, or pass how='labels' if the folders are classes"
        )
    samples = []
    for key, files in sets.items():
        top = key.split("/")[0].lower()
        samples.append(as_sample(key, files, split=top if "/" in key and top in SPLITS else None))
    whole = set(has_both) if has_both else set(sets)
    return as_listing(
        os.path.basename(os.path.abspath(folder)),
        folder,
        samples,
        complete=lambda sample: sample.id in whole,
        looked_for="sounds and pictures",
    )


def by_label(folder: str) -> Listing:
    """One folder a class; below folders named after splits if all of them are."""
    below = subfolders(folder)
    loose = [name for name in os.listdir(folder) if kind_of(name)]
    if loose or not below:
        raise DatasetError(
            f"{folder} is read by label, one folder a class, "
            + (f"and {loose[0]} lies beside the class folders. Move it into one" if loose else "and has no folders")
        )
    splits = [name for name in below if name.lower() in SPLITS]
    if splits and len(splits) < len(below):
        others = [name for name in below if name not in splits]
        raise DatasetError(
            f"{folder} holds {', '.join(splits)} beside {', '.join(others[:4])}: splits or classes? Put every class "
            "below a split, or name files and labels in a table"
        )
    samples = []
    for split in splits or (None,):
        within = folder if split is None else os.path.join(folder, split)
        for label in subfolders(within):
            for key, files in gather(os.path.join(within, label)).items():
                name = "/".join(part for part in (split, label, key) if part)
                samples.append(as_sample(name, files, labels=(label,), split=split and split.lower()))
    return as_listing(
        os.path.basename(os.path.abspath(folder)),
        folder,
        samples,
        complete=lambda sample: True,
        looked_for="sounds and pictures in one folder a class",
    )


def gather(folder: str) -> dict[str, dict[str, str]]:
    """Media below a folder by relative path without suffix and without folders named after kinds: {key: {kind: path}}.

    A .txt counts only beside a sound or picture of its name.
    """
    sets: dict[str, dict[str, str]] = {}
    for path in walk(folder):
        kind = "text" if path.lower().endswith(".txt") else kind_of(path)
        if kind is None:
            continue
        *parents, name = os.path.relpath(path, folder).split(os.sep)
        key = "/".join([*(part for part in parents if part.lower() not in KINDS), os.path.splitext(name)[0]])
        files = sets.setdefault(key, {})
        if kind in files:
            raise DatasetError(f"{files[kind]} and {path} are both the {kind} of {key!r}. Keep one, or rename one")
        files[kind] = path
    return {key: files for key, files in sets.items() if files.keys() != {"text"}}


def is_heard(files: Mapping[str, str]) -> bool:
    return "audio" in files or "video" in files


def is_seen(files: Mapping[str, str]) -> bool:
    return "image" in files or "video" in files


def as_sample(name: str, files: Mapping[str, str], **fields: Any) -> Sample:
    texts: tuple[str, ...] = ()
    if "text" in files:
        with open(files["text"], encoding="utf-8-sig") as file:
            try:
                texts = tuple(line.strip() for line in file if line.strip())
            except UnicodeDecodeError as error:
                raise DatasetError(f"{files['text']} is not UTF-8: {error.reason}. Save it as UTF-8") from error
    video = files.get("video")
    return Sample(name, files.get("audio", video), files.get("image"), video, texts, **fields)
