"""Every benchmark from its folder to its scores, on synthetic copies in the official layouts, by one made-up model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import small_packs
import tiny_datasets
from PIL import Image

from unibrivl.evaluation import BENCHMARKS, Settings, evaluate, markdown
from unibrivl.evaluation.judges import TextJudge
from unibrivl.evaluation.reported import REPORTED

COPIES = {  # benchmark -> what makes its data set; the others have their own name's
    "esc10": "esc50", "vggsound_retrieval": "vggsound", "vggsound_subsets": "vggsound", "diversity": "labelled",
    "volume": "labelled", "robustness": "labelled", "long_texts": "localized_narratives",
    "flickr8k": "flickr8k_audio", "speech_words": "spoken_digits",
}  # fmt: skip
ELSEWHERE = ("desed", "ravdess")  # need more clips than a tiny copy has: their own tests make them


class Everything:
    """Does all that benchmarks ask for, from the letters of a name: no score of it means anything."""

    name, fingerprint = "everything", "everything-v1"

    def encode_audio(self, things):
        rows = [np.random.default_rng(list(str(one).encode()[-24:])).standard_normal(12) for one in things]
        return np.stack(rows)

    encode_image = encode_text = encode_text_cut = encode_audio

    def generate(self, paths, seeds):
        return [
            Image.new("RGB", (8, 8), (seed % 255, len(path) % 255, 90))
            for path, seed in zip(paths, seeds, strict=True)
        ]

    def caption(self, paths):
        return ["a dog barks"] * len(paths)

    def transcribe(self, paths):
        return ["kids are talking"] * len(paths)


class Eye(Everything):
    name, fingerprint = "eye", "eye-v1"

    def encode_image(self, images):
        return np.stack([[*np.asarray(one.resize((2, 2)), dtype=float).ravel() + 1] for one in images])


def data_of(name, folder):
    made = COPIES.get(name, name)
    if made == "labelled":
        for label in ("dog", "rain"):
            for number in (0, 1):
                tiny_datasets.sound(folder / label / f"{number}.wav", number)
    elif made.startswith("pack_"):
        packs(folder)
        return folder / {"pack_digits": "spoken_digits", "pack_emotion": "speech_emotion"}.get(
            made, "sounds_and_pictures"
        )
    else:
        getattr(tiny_datasets, f"make_{made}")(folder)
        if made in MORE:
            MORE[made](folder)
    return folder / "audio" if name == "speech_words" else folder


def packs(folder):
    small_packs.write_packs(folder)
    rows = [(one, one.replace("_", " ")) for one in (*small_packs.CLASSES, "cat")]
    tiny_datasets.table(folder / "sounds_and_pictures" / "classes.csv", ("label", "text"), rows)
    rows = [(f"Actor_{actor:02d}/{label}.wav", label, "words", actor, "test" if actor == 3 else "train")
            for actor in (1, 2, 3) for label in ("calm", "angry")]  # fmt: skip
    for path, *_ in rows:
        tiny_datasets.sound(folder / "speech_emotion" / "audio" / path)
    tiny_datasets.table(
        folder / "speech_emotion" / "audio" / "metadata.csv", "file_name label text actor split".split(), rows
    )


def more_videos(folder):
    with open(folder / "vggsound.csv", "a", encoding="utf-8") as file:
        file.write("eeeeeeeeeee,7,playing banjo,test\n")
    tiny_datasets.sound(folder / "clips/eeeeeeeeeee_000007.wav", 3)
    tiny_datasets.picture(folder / "frames/eeeeeeeeeee_000007.jpg", 3)


def without_split(folder):
    (folder / "split.csv").unlink()


def more_flickr(folder):
    tiny_datasets.picture(folder / "Flicker8k_Dataset/300_ab.jpg", 3)
    tiny_datasets.sound(folder / "flickr_audio/wavs/300_ab_0.wav", 3)
    for name, line in (("Flickr8k_text/Flickr_8k.testImages.txt", "300_ab.jpg"),
                       ("Flickr8k_text/Flickr8k.token.txt", "300_ab.jpg#0\tA cat sleeps ."),
                       ("flickr_audio/wav2capt.txt", "300_ab_0.wav 300_ab.jpg #0"),
                       ("flickr_audio/wav2spk.txt", "300_ab_0.wav 1")):  # fmt: skip
        with open(folder / name, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def more_coco(folder):
    path = folder / "SpokenCOCO_ksplit_test.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    tiny_datasets.picture(folder / "val2014/COCO_val2014_000000000009.jpg", 9)
    tiny_datasets.sound(folder / "wavs/val/0/m0-9.wav", 9)
    spoken = [{"text": "words", "speaker": "m0", "uttid": "9_0", "wav": "wavs/val/0/m0-9.wav"}]
    told["data"].append({"image": "val2014/COCO_val2014_000000000009.jpg", "captions": spoken, "reassign_id": 9})
    path.write_text(json.dumps(told), encoding="utf-8")


def more_narratives(folder):
    voice = "coco_val/coco_val_285_3.ogg"
    row = {"dataset_id": "mscoco_val2017", "image_id": "285", "annotator_id": 3, "caption": "a word " * 60,
           "timed_caption": [], "traces": [], "voice_recording": voice}  # fmt: skip
    with open(folder / "coco_val_localized_narratives.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    tiny_datasets.sound(folder / "voice-recordings" / voice, 3)
    tiny_datasets.picture(folder / "val2017/000000000285.jpg", 3)


MORE = {
    "vggsound": more_videos, "vegas": without_split, "flickr8k_audio": more_flickr, "spoken_coco": more_coco,
    "localized_narratives": more_narratives,
}  # fmt: skip


@pytest.mark.parametrize("name", [one for one in BENCHMARKS if one not in ELSEWHERE])
def test_from_the_folder_to_the_table(name, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    settings = Settings(judge=TextJudge(Eye()))
    scores = evaluate(name, Everything(), data_of(name, folder), tmp_path / "out", settings, progress=False)
    assert scores and all(one.n >= 1 and one.commit and one.command for one in scores)
    assert markdown(scores, REPORTED).count("\n") == 2 + len(scores)
