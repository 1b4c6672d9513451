"""DESED: 10-second clips of ten domestic sounds with the onsets and offsets of each.

Layout: `dataset/metadata/{part}.tsv` (or `{part}/*.tsv`) beside `dataset/audio/{part}/`, a part being `train/weak`,
`validation/synthetic21_validation`, `eval/public` and so on. A clip without events has a row with empty fields. The
synthetic parts can be had freely, the real ones on request, so any of them may be absent: only those whose list is
there are expected.
"""

from __future__ import annotations

import glob
import os

from unibrivl.data.layout import as_listing, describe, locate, names_below
from unibrivl.data.records import DatasetError, Listing, Sample
from unibrivl.data.tables import number, read_csv
from unibrivl.metrics.events import Event

LABELS = (
    *("Alarm_bell_ringing", "Blender", "Cat", "Dishes", "Dog", "Electric_shaver_toothbrush", "Frying"),
    *("Running_water", "Speech", "Vacuum_cleaner"),
)
PARTS: dict[str, int | None] = {  # official numbers of clips; None where releases differ
    "train/weak": None,
    "train/unlabel_in_domain": None,
    "train/synthetic21_train": None,
    "validation/validation": 1168,
    "validation/synthetic21_validation": 2500,
    "eval/public": 692,
}


def load(root: str | os.PathLike) -> Listing:
    """DESED as a `Listing`; the split of a clip is the last name of its part: `synthetic21_validation`.

    Clips of `weak` have labels and no events, those of `unlabel_in_domain` neither.
    """
    folder = locate(root, "DESED", ("metadata", "audio"), ("dataset", "DESED/dataset"))
    samples, official, parts = list[Sample](), 0, dict[str | int, int]()
    for part, count in PARTS.items():
        table = list_of(folder, part)
        if table is None:
            continue
        clips = clips_of(table, os.path.join(folder, "audio", *part.split("/")), part.split("/")[-1])
        samples += clips
        parts[part.split("/")[-1]] = count or len(clips)
        official += count or len(clips)
    if not samples:
        raise DatasetError(
            f"{folder} is DESED without a list: looked in metadata/ for {', '.join(f'{part}.tsv' for part in PARTS)}; "
            f"there is {describe(os.path.join(folder, 'metadata'))}. Unpack the metadata of at least one part"
        )
    looked_for = "audio/{part}/**.wav"
    return as_listing("DESED", folder, samples, official=official, parts=parts, looked_for=looked_for)


def list_of(folder: str, part: str) -> str | None:
    base = os.path.join(folder, "metadata", *part.split("/"))
    if os.path.exists(f"{base}.tsv"):
        return f"{base}.tsv"
    lists = sorted(glob.glob(os.path.join(glob.escape(base), "*.tsv")))
    whole = [one for one in lists if os.path.basename(one) == "soundscapes.tsv"] or lists
    if len(whole) > 1:
        raise DatasetError(f"{base} holds {len(whole)} lists: {', '.join(map(os.path.basename, whole))}. Keep one")
    return whole[0] if whole else None


def clips_of(table: str, audio: str, split: str) -> list[Sample]:
    """A list has a row an event; clips keep the order of their first row."""
    files = names_below(audio)
    labels: dict[str, dict[str, None]] = {}
    events: dict[str, list[Event]] = {}
    for row in read_csv(table, ("filename",)):
        name = row["filename"]
        of_clip = labels.setdefault(name, {})
        if "event_labels" in row:  # weak: all labels in one cell
            of_clip.update(dict.fromkeys(filter(None, row["event_labels"].split(","))))
        elif row.get("event_label"):
            where, label = f"{table}, {name}", row["event_label"]
            onset, offset = (number(where, column, row.get(column)) for column in ("onset", "offset"))
            events.setdefault(name, []).append(Event(onset, offset, label))
            of_clip[label] = None
        unknown = of_clip.keys() - set(LABELS)
        if unknown:
            raise DatasetError(
                f"{table}: {name} has the label {unknown.pop()!r}, which DESED has not. Is it another's?"
            )
    return [
        Sample(
            id=f"{split}/{os.path.splitext(name)[0]}",
            audio=files.get(name),
            labels=tuple(sorted(of_clip)),
            events=tuple(events.get(name, ())),
            split=split,
        )
        for name, of_clip in labels.items()
    ]
