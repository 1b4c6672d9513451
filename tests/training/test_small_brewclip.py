"""The small recipes of BrewCLIP: tones of voice that words do not tell, and spoken captions of classes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_brewclip
import tiny_pairs
import tiny_text
import torch
from transformers import CLIPTextModelWithProjection, ResNetConfig, ResNetModel

from unibrivl.data import DatasetError
from unibrivl.data.transcripts import Transcript, TranscriptFile, file_for
from unibrivl.modeling import BrewCLIPForSpeechClassification, BrewCLIPModel
from unibrivl.training.config import ConfigError, override
from unibrivl.training.loop import train
from unibrivl.training.recipes import small_brewclip, small_tone
from unibrivl.training.sampler import Draw

WIDTH = 24
QUICK = ["batch_size=4", "steps=2", "warmup=1", "evaluate_every=2", "save_every=2", "log_every=1"]


@pytest.fixture(scope="module")
def towers(tmp_path_factory) -> Path:
    """An image tower and a text encoder of one width."""
    folder = tmp_path_factory.mktemp("towers")
    torch.manual_seed(0)
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, WIDTH], depths=[1, 1])).save_pretrained(
        folder / "pictures"
    )
    tiny_brewclip.image_processor().save_pretrained(folder / "pictures")
    CLIPTextModelWithProjection(tiny_text.text_config(projection_dim=WIDTH)).save_pretrained(folder / "words")
    tiny_text.tokenizer().save_pretrained(folder / "words")
    return folder


def table(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def emotions(tmp_path) -> Path:
    """Two clips of each emotion to train on, and one of an actor that is held out."""
    audio = tmp_path / "speech_emotion" / "audio"
    audio.mkdir(parents=True)
    rows = []
    for number, label in enumerate(small_tone.CLASSES["eight"]):
        for take in range(3):
            name = f"{label}_{take}.flac"
            chance = np.random.default_rng(number)
            soundfile.write(audio / name, chance.normal(0, 0.1, 6000).astype(np.float32), 16_000)
            split = "test" if take == 2 else "train"
            rows.append({"file_name": name, "label": label, "text": "a b c", "split": split})
    table(audio / "metadata.csv", rows)
    return tmp_path


def settings(towers: Path, folder: Path, *more: str) -> list[str]:
    own = [f"model.pictures={towers / 'pictures'}", f"model.words={towers / 'words'}", f"data.folder={folder}"]
    return [*own, *QUICK, *more]


def test_four_classes_are_the_papers_and_eight_are_all(towers, emotions):
    four = override(small_tone.config(), settings(towers, emotions)).data
    train_on, held, labels = small_tone.clips_of(four)
    assert labels == ("neutral", "happy", "sad", "angry") and len(train_on) == 10 and len(held) == 5
    assert {small_tone.class_of(one, four) for one in held if one.label == "calm"} == {"neutral"}
    eight = override(small_tone.config(), settings(towers, emotions, "data.classes=eight")).data
    assert len(small_tone.clips_of(eight)[2]) == 8


def test_words_alone_name_one_class_for_all(towers, emotions, tmp_path):
    config = override(
        small_tone.config(), settings(towers, emotions, "model.channels=text", f"output_dir={tmp_path / 'run'}")
    )
    outcome = train(config, small_tone.build)
    model = BrewCLIPForSpeechClassification.from_pretrained(tmp_path / "run" / "model").eval()
    _, processor = small_tone.model_for(config.model, ("a", "b", "c", "d"))
    named = small_tone.named(model, processor, small_tone.clips_of(config.data)[1], config.data)
    assert len(set(named.tolist())) == 1 and outcome is not None


def test_the_channel_that_hears_trains_its_ears(towers, emotions):
    config = override(small_tone.config(), settings(towers, emotions))
    parts = small_tone.build(config)
    batch = parts.collate([parts.data[Draw(index, 0, index)] for index in range(4)])
    terms = parts.objective(parts.model.train(), batch)
    sum(terms.values()).backward()
    trunk = parts.model.brewclip
    assert any(one.grad is not None and one.grad.any() for one in trunk.audio_model.parameters())
    assert all(one.grad is None for one in trunk.text_model.parameters())
    assert set(parts.evaluate(parts.model.eval())) == {"accuracy", "mean_recall", "commonest"}


def test_what_is_missing_is_named(towers, emotions, tmp_path):
    with pytest.raises(ConfigError, match="small_words"):
        small_tone.build(override(small_tone.config(), settings(towers, emotions, "model.words=gone")))
    with pytest.raises(ConfigError, match="speech_emotion"):
        small_tone.build(override(small_tone.config(), settings(towers, tmp_path / "gone")))
    with pytest.raises(ConfigError, match="spoken_captions"):
        small_brewclip.build(override(small_brewclip.config(), settings(towers, tmp_path / "gone")))


@pytest.fixture
def captions(tmp_path) -> Path:
    """Captions of two classes with two pictures each, some held out, written down."""
    folder, rows = tmp_path / "spoken", []
    for number in range(12):
        label, split = "ab"[number % 2], "test" if number > 7 else "train"
        sound, picture = f"sounds/{number}.wav", f"pictures/{split}_{number % 4}.png"
        tiny_pairs.tone(folder / sound, 300 + 400 * (number % 2), 0.4)
        tiny_pairs.picture(folder / picture, (200 * (number % 2), 60 * (number % 4), 90))
        rows.append({"id": str(number), "audio": sound, "image": picture, "text": f"{label} c", "label": label,
                     "split": split})  # fmt: skip
    table(folder / "metadata.csv", rows)
    told = {"asr_model": "toy"}
    kept = TranscriptFile(file_for(folder, told), told)
    kept.add(Transcript(row["audio"], row["text"], 1, 1) for row in rows)
    return folder


def test_captions_of_one_class_do_not_repel_each_other(towers, captions):
    config = override(small_brewclip.config(), settings(towers, captions, "model.sounds=none"))
    parts = small_brewclip.build(config)
    batch = parts.collate([parts.data[Draw(index, 0, index)] for index in range(4)])
    assert batch["sample_id"].tolist() == [0, 1, 0, 1] and batch["image_embeds"].shape == (4, WIDTH)
    assert torch.isfinite(sum(parts.objective(parts.model.train(), batch).values()))
    found = parts.evaluate(parts.model.eval())
    assert set(found) == {"r1", "r5", "mrr"} and 0 < found["mrr"] <= 1


def test_a_run_leaves_a_model_that_needs_no_other_folder(towers, captions, tmp_path):
    config = override(
        small_brewclip.config(),
        settings(towers, captions, "model.sounds=none", f"output_dir={tmp_path / 'run'}"),
    )
    train(config, small_brewclip.build)
    model = BrewCLIPModel.from_pretrained(tmp_path / "run" / "model")
    assert model.config.text_name is None and model.config.audio_name is None


def test_transcripts_must_be_of_these_sounds(towers, captions):
    [path] = captions.glob("transcripts-*")
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(DatasetError, match="have no transcript"):
        small_brewclip.build(override(small_brewclip.config(), settings(towers, captions, "model.sounds=none")))
