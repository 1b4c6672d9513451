"""The project's own packs of small sounds and pictures: folders of media with a `metadata.csv` each.

A pack's sounds and pictures are samples of their own that share labels, for no recording and picture are of one event.
Ids begin with the folder: `audio/dog/1-100032-A-0`. Licences stand in each `metadata.csv` and differ from row to row.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from unibrivl.data.layout import as_listing, locate, names_below
from unibrivl.data.records import Listing, Sample
from unibrivl.data.tables import number, read_csv

__all__ = ["load_captions", "load_sounds_and_pictures", "load_speech_emotion", "load_spoken_digits"]

CAPTION_TABLES = {  # file -> split and number of rows
    "audiocaps_train.csv": ("audiocaps_train", 49_838),
    "audiocaps_val.csv": ("audiocaps_val", 2475),
    "clotho_captions_development.csv": ("clotho_development", 2893),
}


def load_sounds_and_pictures(root: str | os.PathLike) -> Listing:
    """640 sounds of 50 classes, photographs of most of these and drawings; folds are ESC-50's.

    The group of a sound is its Freesound recording, its text the class in words.
    """
    sizes = {"audio": 640, "photos": 6868, "single_photos": 18, "pictograms": 174}
    root = locate(root, "the pack sounds_and_pictures", ("classes.csv", "audio/metadata.csv", "photos/metadata.csv"))
    words = {row["label"]: row["text"] for row in read_csv(os.path.join(root, "classes.csv"), ("label", "text"))}
    return pack("sounds_and_pictures", root, sizes, group="source_id", words=words)


def load_spoken_digits(root: str | os.PathLike) -> Listing:
    """3,000 spoken digits of six speakers, who are the groups; handwritten ones are in arrays that are not listed."""
    root = locate(root, "the pack spoken_digits", ("audio/metadata.csv", "digits|audio/george"))
    return pack("spoken_digits", root, {"audio": 3000}, group="speaker")


def load_speech_emotion(root: str | os.PathLike) -> Listing:
    """720 acted sentences of twelve actors, who are the groups, and drawn faces of the same eight emotions."""
    root = locate(root, "the pack speech_emotion", ("audio/metadata.csv", "audio/Actor_*"))
    return pack("speech_emotion", root, {"audio": 720, "pictograms": 26}, group="actor")


def load_captions(root: str | os.PathLike) -> Listing:
    """Captions of AudioCaps and of Clotho's development split, without their sounds: text only."""
    root = locate(root, "the pack captions", ("|".join(CAPTION_TABLES),))
    samples, parts = list[Sample](), dict[str | int, int]()
    for name, (split, count) in CAPTION_TABLES.items():
        path = os.path.join(root, name)
        if not os.path.exists(path):
            continue
        parts[split] = count
        clotho = split.startswith("clotho")
        key = "file_name" if clotho else "audiocap_id"
        captions = [f"caption_{index}" for index in range(1, 6)] if clotho else ["caption"]
        samples += [
            Sample(f"{split}/{row[key]}", texts=tuple(row[one] for one in captions), split=split)
            for row in read_csv(path, (key, *captions))
        ]
    return as_listing(
        "captions",
        root,
        samples,
        complete=lambda sample: bool(sample.texts),
        official=sum(parts.values()),
        parts=parts,
        looked_for="captions",
    )


def pack(
    name: str, root: str, sizes: Mapping[str, int], group: str, words: Mapping[str, str] | None = None
) -> Listing:
    """All folders of a pack that have a `metadata.csv`, sounds first."""
    samples, official = list[Sample](), 0
    for folder, count in sizes.items():
        table = os.path.join(root, folder, "metadata.csv")
        official += count
        if not os.path.exists(table):
            continue
        files = names_below(os.path.join(root, folder), parts=2)
        kind = "audio" if folder == "audio" else "image"
        for row in read_csv(table, ("file_name", "label", "split", *((group,) if kind == "audio" else ()))):
            file, text = row["file_name"], row.get("text") or (words or {}).get(row["label"])
            fold = row.get("fold")
            samples.append(
                Sample(
                    id=f"{folder}/{os.path.splitext(file)[0]}",
                    audio=files.get(file) if kind == "audio" else None,
                    image=files.get(file) if kind == "image" else None,
                    texts=(text,) if text else (),
                    labels=(row["label"],),
                    split=row["split"] or None,
                    fold=number(f"{table}, {file}", "fold", fold, int) if fold else None,
                    group=row[group] if kind == "audio" else None,
                )
            )
    return as_listing(
        name,
        root,
        samples,
        complete=lambda sample: bool(sample.audio or sample.image),
        official=official,
        looked_for="the files of metadata.csv",
    )
