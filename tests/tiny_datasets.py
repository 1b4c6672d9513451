"""Tiny copies of the datasets, laid out as their makers do: real WAV and JPEG files, a few kilobytes each.

`MAKERS` has one for each loader. A copy is written into a folder that is empty; what it holds is in its docstring.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

RATE_HZ = 16_000


def sound(path: Path, number: int = 0, duration_s: float = 0.1) -> Path:
    """A tone whose pitch follows from the number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times_S = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 37 * number) * times_S), RATE_HZ)
    return path


def picture(path: Path, number: int = 0) -> Path:
    """One colour that follows from the number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (40 * number % 256, 90, 200)).save(path)
    return path


def table(path: Path, header: Sequence[str] | None, rows: Iterable[Sequence[object]], tabs: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t" if tabs else ",", lineterminator="\n")
        writer.writerows([*([header] if header else []), *rows])
    return path


def text(path: Path, lines: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def make_esc50(root: Path) -> Path:
    """Two classes, one of them of ESC-10, in five folds: 10 clips."""
    rows = []
    for fold in range(1, 6):
        for target, category, easy in ((0, "dog", True), (22, "clapping", False)):
            name = f"{fold}-{1000 + fold}-A-{target}.wav"
            sound(root / "audio" / name, target)
            rows.append((name, fold, target, category, easy, 1000 + fold, "A"))
    table(root / "meta/esc50.csv", "filename fold target category esc10 src_file take".split(), rows)
    return root


def make_urbansound8k(root: Path) -> Path:
    """One slice of a siren in each of ten folds."""
    rows = []
    for fold in range(1, 11):
        name = f"{fold}00-8-0-{fold}.wav"
        sound(root / f"audio/fold{fold}" / name, fold)
        rows.append((name, f"{fold}00", 1.5, 5.5, 1, fold, 8, "siren"))
    table(
        root / "metadata/UrbanSound8K.csv", "slice_file_name fsID start end salience fold classID class".split(), rows
    )
    return root


def make_vggsound(root: Path) -> Path:
    """Four clips: a sound with a picture, a video, a sound named without zeros, and one that has vanished."""
    table(
        root / "vggsound.csv",
        None,
        [
            ("-aZ09_bcdef", 30, "dog barking", "test"),
            ("bbbbbbbbbbb", 5, "bird chirping, tweeting", "train"),
            ("ccccccccccc", 140, "dog barking", "test"),
            ("ddddddddddd", 0, "playing banjo", "test"),
        ],
    )
    sound(root / "clips/-aZ09_bcdef_000030.wav")
    picture(root / "frames/-aZ09_bcdef_000030.jpg")
    (root / "clips/bbbbbbbbbbb_000005.mp4").write_bytes(b"not opened")
    sound(root / "clips/ccccccccccc_140.wav")
    return root


def make_audioset(root: Path) -> Path:
    """Three segments of the balanced list and two of the evaluation list, one of them gone."""
    table(
        root / "class_labels_indices.csv",
        ("index", "mid", "display_name"),
        [(0, "/m/09x0r", "Speech"), (1, "/m/0bt9lr", "Dog"), (2, "/t/dd00088", "Gush")],
    )
    opening = (
        "# Segments csv created for a test",
        "# num_ytids={0}, num_segs={0}, num_unique_labels=3, num_positive_labels=4",
    )
    last = "# YTID, start_seconds, end_seconds, positive_labels"
    text(
        root / "balanced_train_segments.csv",
        [
            *(line.format(3) for line in (*opening, last)),
            'aaaaaaaaaaa, 30.000, 40.000, "/m/09x0r,/t/dd00088"',
            'bbbbbbbbbbb, 0.000, 10.000, "/m/0bt9lr"',
            'ccccccccccc, 70.000, 80.000, "/m/09x0r"',
        ],
    )
    text(
        root / "eval_segments.csv",
        [
            *(line.format(2) for line in (*opening, last)),
            'ddddddddddd, 30.000, 40.000, "/m/0bt9lr"',
            'eeeeeeeeeee, 20.000, 30.000, "/m/09x0r"',
        ],
    )
    sound(root / "audio/balanced/Yaaaaaaaaaaa.wav")
    sound(root / "audio/balanced/bbbbbbbbbbb_0_10.flac")
    sound(root / "audio/balanced/ccccccccccc_70000_80000.wav")
    sound(root / "audio/eval/ddddddddddd_30.wav")
    return root


def make_desed(root: Path) -> Path:
    """Two synthetic clips with events, one without any, and one weakly labelled clip."""
    base = root / "dataset"
    table(
        base / "metadata/validation/synthetic21_validation/soundscapes.tsv",
        "filename onset offset event_label".split(),
        [
            ("1.wav", 0.5, 1.25, "Dog"),
            ("1.wav", 1.0, 2.0, "Speech"),
            ("2.wav", 3.0, 9.5, "Frying"),
            ("3.wav", "", "", ""),
        ],
        tabs=True,
    )
    table(base / "metadata/train/weak.tsv", ("filename", "event_labels"), [("Yx_0_10.wav", "Cat,Speech")], tabs=True)
    for number in (1, 2, 3):
        sound(base / f"audio/validation/synthetic21_validation/soundscapes/{number}.wav", number)
    sound(base / "audio/train/weak/Yx_0_10.wav")
    return root


def make_clotho(root: Path) -> Path:
    """Version 2.1: two clips of each split; one file name ends in a space, one metadata file is in Latin-1."""
    for split in ("development", "validation", "evaluation"):
        names = [f"{split} rain.wav", f"{split}_door .wav"]
        captions = [[name, *(f"{split} caption {number}, of five" for number in range(1, 6))] for name in names]
        table(root / f"clotho_captions_{split}.csv", ["file_name", *(f"caption_{n}" for n in range(1, 6))], captions)
        for number, name in enumerate(names):
            sound(root / f"clotho_audio_{split}/{split}" / name, number)
    rows = "file_name,keywords,sound_id\nevaluation rain.wav,caf\xe9,1234\nevaluation_door .wav,y,Not found\n"
    (root / "clotho_metadata_evaluation.csv").write_bytes(rows.encode("latin-1"))
    return root


def make_vegas(root: Path) -> Path:
    """Two classes; a video with a picture, a sound, and a split file."""
    (root / "Baby cry/videos").mkdir(parents=True)
    (root / "Baby cry/videos/v1.mp4").write_bytes(b"not opened")
    picture(root / "Baby cry/frames/v1.jpg")
    sound(root / "dog/d1.wav")
    sound(root / "dog/d2.wav", 1)
    table(root / "split.csv", ("id", "split"), [("baby_cry/v1", "test"), ("d1", "train")])
    return root


def make_flickr8k_audio(root: Path) -> Path:
    """Three pictures, one a split, with two captions each; one sound is gone."""
    tokens, pairs, speakers = [], [], []
    for number, split in enumerate(("train", "dev", "test")):
        image = f"{number}00_ab.jpg"
        picture(root / "Flicker8k_Dataset" / image, number)
        text(root / f"Flickr8k_text/Flickr_8k.{split}Images.txt", [image])
        for caption in (0, 1):
            wav = f"{number}00_ab_{caption}.wav"
            tokens.append(f"{image}#{caption}\tA dog runs , {split} {caption} .")
            pairs.append(f"{wav} {image} #{caption}")
            speakers.append(f"{wav} {caption}")
            if (number, caption) != (2, 1):
                sound(root / "flickr_audio/wavs" / wav, caption)
    text(root / "Flickr8k_text/Flickr8k.token.txt", tokens)
    text(root / "flickr_audio/wav2capt.txt", pairs)
    text(root / "flickr_audio/wav2spk.txt", speakers)
    return root


def make_spoken_coco(root: Path) -> Path:
    """The Karpathy split with one picture and two captions a split."""
    for number, split in enumerate(("train", "val", "test")):
        image = f"val2014/COCO_val2014_{number:012d}.jpg"
        picture(root / image, number)
        spoken = []
        for caption in (0, 1):
            wav = f"wavs/val/{caption}/m{caption}-{number}.wav"
            sound(root / wav, number)
            name = f"{number}_{caption}"
            spoken.append({"text": f"words {name}", "speaker": f"m{caption}", "uttid": name, "wav": wav})
        entries = {"data": [{"image": image, "captions": spoken, "reassign_id": number}]}
        (root / f"SpokenCOCO_ksplit_{split}.json").write_text(json.dumps(entries), encoding="utf-8")
    return root


def make_localized_narratives(root: Path) -> Path:
    """Two narratives of the validation split and one of a shard of the training split."""
    for split, image, annotator, shard in (
        ("val", 139, 12, ""),
        ("val", 139, 7, ""),
        ("train", 9, 1, "-00000-of-00004"),
    ):
        voice = f"coco_{split}/coco_{split}_{image}_{annotator}.ogg"
        row = {"dataset_id": f"mscoco_{split}2017", "image_id": str(image), "annotator_id": annotator}
        row |= {"caption": f"In this image {annotator}.", "timed_caption": [], "traces": [], "voice_recording": voice}
        with (root / f"coco_{split}_localized_narratives{shard}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        sound(root / "voice-recordings" / voice, annotator)
        picture(root / f"{split}2017/{image:012d}.jpg")
    return root


def make_ravdess(root: Path) -> Path:
    """Two actors, three clips of each, and a song that does not count."""
    for actor in (1, 24):
        for emotion in (1, 5, 8):
            name = f"03-01-{emotion:02d}-01-02-01-{actor:02d}.wav"
            sound(root / f"Audio_Speech_Actors_01-24/Actor_{actor:02d}" / name, emotion)
    sound(root / "Audio_Speech_Actors_01-24/Actor_01/03-02-01-01-01-01-01.wav")
    return root


def make_sounds_and_pictures(root: Path) -> Path:
    """One class with a sound, a photograph and a drawing."""
    table(root / "classes.csv", ("label", "folder", "text"), [("train", "railway", "a train")])
    sound(root / "audio/railway/4-1-A-45.ogg")
    header = "file_name label fold split source_id".split()
    table(root / "audio/metadata.csv", header, [("railway/4-1-A-45.ogg", "train", 4, "test", 1)])
    for folder in ("photos", "pictograms"):
        picture(root / folder / "railway/one.png")
        table(root / folder / "metadata.csv", ("file_name", "label", "split"), [("railway/one.png", "train", "train")])
    return root


def make_spoken_digits(root: Path) -> Path:
    """Two digits by one speaker."""
    for digit in (0, 1):
        sound(root / f"audio/george/{digit}_george_0.flac", digit)
    rows = [(f"george/{digit}_george_0.flac", digit, f"the digit {digit}", "george", "test") for digit in (0, 1)]
    table(root / "audio/metadata.csv", "file_name label text speaker split".split(), rows)
    return root


def make_speech_emotion(root: Path) -> Path:
    """A sentence and a face."""
    sound(root / "audio/Actor_11/03-01-05-01-01-01-11.flac")
    rows = [("Actor_11/03-01-05-01-01-01-11.flac", "angry", "Kids are talking by the door", 11, "test")]
    table(root / "audio/metadata.csv", "file_name label text actor split".split(), rows)
    picture(root / "pictograms/angry/a.png")
    table(root / "pictograms/metadata.csv", ("file_name", "label", "split"), [("angry/a.png", "angry", "train")])
    return root


def make_captions(root: Path) -> Path:
    """One caption of AudioCaps."""
    header = "audiocap_id youtube_id start_time caption".split()
    table(root / "audiocaps_val.csv", header, [(7, "aaaaaaaaaaa", 30, "A dog barks, then stops")])
    return root


def make_folder(root: Path) -> Path:
    """Two pairs of one stem, one with a caption."""
    for number in (1, 2):
        sound(root / f"dog_{number}.wav", number)
        picture(root / f"dog_{number}.jpg", number)
    text(root / "dog_1.txt", ["a dog"])
    return root


MAKERS = {name.removeprefix("make_"): maker for name, maker in sorted(globals().items()) if name.startswith("make_")}
