"""AudioSet: 10-second segments of YouTube videos with some of 527 labels each, as far as they still exist.

Layout: one or more of `balanced_train_segments.csv`, `unbalanced_train_segments.csv`, `eval_segments.csv` as Google
gives them, `class_labels_indices.csv`, and anywhere below the folder the segments, already cut, as `{id}` with any of
the endings downloaders use (`Y{id}`, `{id}_{start}`, `{id}_{start}_{end}`, in seconds or milliseconds). CC BY 4.0.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator

from unibrivl.data.layout import Stems, as_listing, locate
from unibrivl.data.records import DatasetError, Listing, Sample
from unibrivl.data.tables import number, read_csv

LISTS = {  # split -> its list
    "balanced_train": "balanced_train_segments.csv",
    "unbalanced_train": "unbalanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
LABELS = "class_labels_indices.csv"


def load(root: str | os.PathLike, splits: tuple[str, ...] | None = None) -> Listing:
    """AudioSet as a `Listing`; how many segments there are officially is read from the lists' own first lines.

    Args:
        root (`str`): the folder that holds the lists and the segments.
        splits (`tuple[str, ...]`, *optional*): of `balanced_train`, `unbalanced_train`, `eval`; those whose list is
            there if None.
    """
    for split in splits or ():
        if split not in LISTS:
            raise ValueError(f"{split!r} is no split of AudioSet: it has {', '.join(LISTS)}")
    wanted = [LISTS[split] for split in splits] if splits else ["|".join(LISTS.values())]
    hint = "The lists are at research.google.com/audioset/download.html."
    folder = locate(root, "AudioSet", (*wanted, LABELS), ("metadata", "csv", "annotations"), hint)
    names = {
        row["mid"]: row["display_name"] for row in read_csv(os.path.join(folder, LABELS), ("mid", "display_name"))
    }
    files = Stems([os.fspath(root)])
    samples, parts = list[Sample](), dict[str | int, int]()
    for split, name in LISTS.items():
        path = os.path.join(folder, name)
        if os.path.exists(path) and (splits is None or split in splits):
            named = list(segments(path, split, names, files))
            samples += named
            parts[split] = claimed_segments(path) or len(named)
    return as_listing(
        "AudioSet",
        os.fspath(root),
        samples,
        official=sum(parts.values()),
        parts=parts,
        looked_for="{id}.wav, Y{id}.wav or {id}_{start}.wav in any folder",
    )


def claimed_segments(path: str) -> int | None:
    """The number in the comment that opens a list."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                return None
            if found := re.search(r"num_segs=(\d+)", line):
                return int(found[1])
    return None


def segments(path: str, split: str, names: dict[str, str], files: Stems) -> Iterator[Sample]:
    with open(path, newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
            if not row or row[0].startswith("#"):
                continue
            where = f"{path}, line {line}"
            if len(row) != 4:
                raise DatasetError(f"{where}: {len(row)} columns instead of id, start, end, labels. Is it whole?")
            video = row[0]
            start, end = (number(where, what, cell) for what, cell in zip(("start", "end"), row[1:3], strict=True))
            unknown = [mid for mid in row[3].split(",") if mid not in names]
            if unknown:
                raise DatasetError(f"{where}: {LABELS} has no label {unknown[0]}. Take both from one release")
            labels = tuple(names[mid] for mid in row[3].split(","))
            media = files.media(*stems(video, start, end))
            yield Sample(f"{video}_{start:g}", **media, labels=labels, split=split, group=video)


def stems(video: str, start: float, end: float) -> Iterator[str]:
    """The names downloaders give to a segment, the most telling first."""
    times = (f"{start:g}_{end:g}", f"{start:.3f}_{end:.3f}", f"{1000 * start:.0f}_{1000 * end:.0f}")
    starts = (f"{start:g}", f"{start:.3f}", f"{start:06.0f}", f"{1000 * start:.0f}")
    for head in (video, f"Y{video}"):
        yield from (f"{head}_{time}" for time in (*times, *starts))
        yield head
