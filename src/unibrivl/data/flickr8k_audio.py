"""Flickr8k Audio: 8,000 pictures with five captions each, read aloud: 40,000 sounds.

Layout: `flickr_audio/wavs/{image}_{0-4}.wav`, `flickr_audio/wav2capt.txt` (`wav jpg #i`), `flickr_audio/wav2spk.txt`;
beside it the texts `Flickr8k.token.txt` and `Flickr_8k.{train,dev,test}Images.txt` (or in `Flickr8k_text`) and the
pictures in `Flicker8k_Dataset`, which is how it is spelled.
"""

from __future__ import annotations

import os

from unibrivl.data.layout import as_listing, locate, names_below
from unibrivl.data.records import DatasetError, Listing, Sample

SPLITS = {"train": "trainImages", "dev": "devImages", "test": "testImages"}
NUM_IMAGES = {"train": 6000, "dev": 1000, "test": 1000}
CAPTIONS_PER_IMAGE = 5
PICTURES = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")
TEXTS = (".", "Flickr8k_text")


def load(root: str | os.PathLike) -> Listing:
    """Flickr8k Audio as a `Listing`, one sample a sound; several share a picture. The group is the speaker.

    A sound without a caption, a split or, where there are pictures, without its picture is `missing`.
    """
    needed = (
        "flickr_audio/wavs",
        "flickr_audio/wav2capt.txt",
        "Flickr8k.token.txt|Flickr8k_text/Flickr8k.token.txt",
        *(f"Flickr_8k.{one}.txt|Flickr8k_text/Flickr_8k.{one}.txt" for one in SPLITS.values()),
    )
    root = locate(root, "Flickr8k Audio", needed, ("flickr8k", "Flickr8k"))
    sounds = names_below(os.path.join(root, "flickr_audio", "wavs"))
    pictures: dict[str, str] = {}
    for folder in PICTURES:
        pictures = names_below(os.path.join(root, folder)) | pictures
    captions = read_captions(text_file(root, "Flickr8k.token.txt"))
    split_of = {
        name: split
        for split, part in SPLITS.items()
        for (name,) in fields(text_file(root, f"Flickr_8k.{part}.txt"), 1)
    }
    speakers_path = os.path.join(root, "flickr_audio", "wav2spk.txt")
    speakers = {row[0]: row[1] for row in fields(speakers_path, 2)} if os.path.exists(speakers_path) else {}
    samples = []
    for wav, image, caption in fields(os.path.join(root, "flickr_audio", "wav2capt.txt"), 3):
        text = captions.get((image, caption.lstrip("#")))
        samples.append(
            Sample(
                id=os.path.splitext(wav)[0],
                audio=sounds.get(wav),
                image=pictures.get(image),
                texts=(text,) if text else (),
                split=split_of.get(image),
                group=speakers.get(wav),
            )
        )
    return as_listing(
        "Flickr8k Audio",
        root,
        samples,
        complete=lambda one: bool(one.audio and one.texts and one.split and (one.image or not pictures)),
        official=CAPTIONS_PER_IMAGE * sum(NUM_IMAGES.values()),
        parts={split: CAPTIONS_PER_IMAGE * number for split, number in NUM_IMAGES.items()},
        looked_for="flickr_audio/wavs/{image}_{0-4}.wav with a caption, a split and, if there are any, a picture",
    )


def text_file(root: str, name: str) -> str:
    return next(path for folder in TEXTS if os.path.exists(path := os.path.join(root, folder, name)))


def read_captions(path: str) -> dict[tuple[str, str], str]:
    """(image, number) -> caption, of lines `image.jpg#number<TAB>caption`."""
    captions = {}
    with open(path, encoding="utf-8") as file:
        for line_number, line in enumerate(file, 1):
            if line.strip():
                key, tab, text = line.rstrip("\n").partition("\t")
                image, sign, index = key.rpartition("#")
                if not (tab and sign):
                    raise DatasetError(f"{path}, line {line_number}: no `image#number<TAB>caption`. Is it whole?")
                captions[image, index] = text.strip()
    return captions


def fields(path: str, count: int) -> list[tuple[str, ...]]:
    rows = []
    with open(path, encoding="utf-8") as file:
        for line_number, line in enumerate(file, 1):
            row = tuple(line.split())
            if row and len(row) != count:
                raise DatasetError(f"{path}, line {line_number}: {len(row)} words instead of {count}. Is it whole?")
            if row:
                rows.append(row)
    return rows
