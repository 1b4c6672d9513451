"""The recipes on a pack of real layout and tiny content: who hears what, which batches come of it, that they run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import tiny_datasets
import torch

from unibrivl.modeling import SpeechLMPhoneTokenizer, UniBriVLForAudioClassification, UniBriVLModel
from unibrivl.training.config import ConfigError, override
from unibrivl.training.loop import train
from unibrivl.training.recipes import photos, sounds, sounds_and_pictures
from unibrivl.training.recipes.sounds_and_pictures_data import (
    ESC10,
    Clips,
    LabelledSounds,
    SoundsData,
    division,
    tokenizer_for,
    with_both,
)
from unibrivl.training.sampler import Draw

OTHERS = ("airplane", "coughing")  # coughing has no picture
SHARED = Path(os.environ.get("UNIBRIVL_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
REAL = SHARED / "data/sounds_and_pictures"
needs_pack = pytest.mark.skipif(not REAL.exists(), reason=f"the pack sounds_and_pictures is not at {REAL}")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """Ten classes with a clip in each of four folds, two others, two pictures a class to train on and one to test."""
    root = tmp_path_factory.mktemp("pack")
    labels = [*ESC10, *OTHERS]
    tiny_datasets.table(root / "classes.csv", ("label", "folder", "text"), [(one, one, one) for one in labels])
    clips, pictures = [], []
    for number, label in enumerate(labels):
        for fold in (1, 2, 3, 4):
            name = f"{label}/{fold}-{number}-A-0.wav"
            tiny_datasets.sound(root / "audio" / name, number, duration_s=0.3)
            clips.append((name, label, fold, "test" if fold == 4 else "train", 100 * number + fold))
        for place, split in enumerate(("train", "train", "test")):
            if label != "coughing":
                tiny_datasets.picture(root / "photos" / label / f"{place}.png", number)
                pictures.append((f"{label}/{place}.png", label, split))
    tiny_datasets.table(root / "audio/metadata.csv", "file_name label fold split source_id".split(), clips)
    tiny_datasets.table(root / "photos/metadata.csv", ("file_name", "label", "split"), pictures)
    return root


@pytest.fixture(scope="module")
def tower(pack, tmp_path_factory):
    """An image tower that two steps of the recipe made."""
    folder = tmp_path_factory.mktemp("photos")
    config = override(photos.config(), ["steps=2", "batch_size=8", "evaluate_every=2", "model.side=32",
                                        "model.embedding_size=8", "model.hidden_sizes=8,16", "model.depths=1,1",
                                        f"data.folder={pack}", f"output_dir={folder}"])  # fmt: skip
    outcome = train(config, photos.build)
    assert 0 <= outcome.metrics["accuracy"] <= 1
    return outcome.model


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory):
    """A tokenizer that knows the words of the labels that have pictures."""
    words = {word for label in [*ESC10, "airplane"] for word in label.upper().split("_")}
    phones = ["AH0", "D", "IY1", "S", "K", "R", "N", "T"]
    spoken = {word: [phones[(place >> shift) % 8] for shift in (0, 3)] for place, word in enumerate(sorted(words))}
    folder = tmp_path_factory.mktemp("lexicon")
    SpeechLMPhoneTokenizer(lexicon=spoken).save_pretrained(folder)
    return folder


def quick(recipe, pack, folder, *settings):
    fields = [f"data.folder={pack}", f"output_dir={folder}", "steps=2", "batch_size=4", "evaluate_every=2", "warmup=0"]
    return override(recipe.config(), [*fields, *settings])


@pytest.mark.parametrize("fold", [None, 3])
def test_what_is_held_out_is_never_heard_in_training(pack, fold):
    parts = division(SoundsData(folder=str(pack), validation_fold=fold))
    held = {one.id for one in parts.esc10_held}
    assert {one.fold for one in parts.esc10_held} == {4 if fold is None else 3} and len(held) == len(ESC10)
    heard = {one.id for one in parts.train if one.audio} | {one.id for one in parts.esc10_train}
    assert not held & heard
    assert all(one.split != "test" for one in parts.train)  # nor the test part, when another fold is looked at
    assert not {one.group for one in parts.esc10_held} & {one.group for one in parts.esc10_train}


def test_a_fold_that_is_not_there_is_an_error(pack):
    with pytest.raises(ValueError, match=r"0 held out.*data\.validation_fold"):
        division(SoundsData(folder=str(pack), validation_fold=5))
    with pytest.raises(ConfigError, match=r"data\.folder=FOLDER"):
        division(SoundsData())


def test_labels_without_pictures_are_left_out_and_rare_ones_are_drawn_as_often(pack):
    settings = SoundsData(folder=str(pack), balance=1.0)
    parts = division(settings)
    assert with_both(parts) == {*ESC10, "airplane"}
    one_clip = {"audio/rain/1-6-A-0", "audio/rain/2-6-A-0"}
    listing = parts.train.filter(lambda one: one.id not in one_clip, "less rain")
    data = LabelledSounds(listing, ESC10, Clips(5.0), settings)
    drawn = [data[Draw(0, 0, seed)]["label"] for seed in range(600)]
    counts = np.bincount(drawn, minlength=10)
    assert counts.min() > 30 and abs(counts[ESC10.index("rain")] - 60) < 25  # one clip of rain, three of each other


def test_an_example_follows_from_its_draw_and_clips_stay_as_they_are(pack):
    settings = SoundsData(folder=str(pack))
    data = LabelledSounds(division(settings).train, ESC10, Clips(5.0), settings)
    first, again, other = data[Draw(0, 0, 3)], data[Draw(7, 2, 3)], data[Draw(0, 0, 4)]
    assert np.array_equal(first["audio"], again["audio"]) and not np.array_equal(first["audio"], other["audio"])
    kept = {name: samples.copy() for name, samples in data.clips.kept.items()}
    data[Draw(0, 0, 3)]
    assert all(np.array_equal(samples, data.clips.kept[name]) for name, samples in kept.items())


def test_moved_and_recoloured_pictures_keep_their_size_and_range():
    examples = [{"pixels": np.full((3, 32, 32), 9, np.uint8), "label": 1, "seed": seed} for seed in range(4)]
    batch = photos.augmented(examples, photos.processor_for(32), photos.PhotosData())
    assert batch["pixel_values"].shape == (4, 3, 32, 32) and batch["pixel_values"].abs().max() <= 1
    still = photos.augmented(examples, photos.processor_for(32), photos.PhotosData(shift=0, flip_prob=0, jitter=False))
    torch.testing.assert_close(still["pixel_values"], torch.full((4, 3, 32, 32), 2 * 9 / 255 - 1))


@pytest.mark.parametrize("classes", ["esc10", "all"])
def test_the_supervised_tower_trains_and_names_ten_classes(pack, tmp_path, classes):
    outcome = train(quick(sounds, pack, tmp_path, f"data.classes={classes}"), sounds.build)
    model = UniBriVLForAudioClassification.from_pretrained(outcome.model)
    assert model.config.num_labels == (10 if classes == "esc10" else 11)
    assert [model.config.id2label[number] for number in range(10)] == list(ESC10)
    assert outcome.metrics["accuracy"] in [count / 10 for count in range(11)]


@pytest.mark.parametrize("name", ["in_batch", "cx"])
def test_sounds_meet_pictures_and_words(pack, tower, lexicon, tmp_path, name):
    """The image tower stays what it was; rows of one label are one sample; three ways of telling the classes."""
    settings = [f"model.image={tower}", f"data.cache={tmp_path / 'cache'}", f"objective.name={name}"]
    settings.append(f"data.lexicon={lexicon}")
    config = quick(sounds_and_pictures, pack, tmp_path / "run", *settings)
    parts = sounds_and_pictures.build(config)
    parts.prepare()
    batch = parts.collate([parts.data[Draw(0, 0, seed)] for seed in range(6)])
    assert torch.equal(batch["sample_id"], batch["label"]) and batch["image_embeds"].shape == (6, 16)
    rows = batch["text_rows"]
    assert len(batch["unit_ids"]) == len(rows) == len(set(batch["label"].tolist())) <= 6
    assert batch["label"][rows].tolist() == list(dict.fromkeys(batch["label"].tolist()))
    assert batch["unit_attention_mask"].sum(1).max() == batch["unit_ids"].shape[1]
    parts.model.train()
    parts.objective.before_step(parts.model, 0)
    terms = [parts.objective(parts.model, batch) for _ in range(2)][-1]  # the queues are empty at first
    assert {"image_to_audio", "audio_to_image", "image_to_text", "text_to_image"} <= set(terms)
    assert all(float(value.detach()) > 0 for value in terms.values())

    outcome = train(config, sounds_and_pictures.build)
    assert set(outcome.metrics) == {"probe", "zero_shot_picture", "zero_shot_label"}
    trained, before = UniBriVLModel.from_pretrained(outcome.model), parts.model.vision_model.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in trained.vision_model.state_dict().items())


def test_another_tower_has_no_words(pack, tower, lexicon, tmp_path):
    settings = [f"model.image={tower}", f"data.cache={tmp_path / 'cache'}", "model.tower=mel_encoder"]
    config = quick(sounds_and_pictures, pack, tmp_path / "run", *settings, f"data.lexicon={lexicon}")
    with pytest.raises(ConfigError, match=r"data\.lexicon=none"):
        sounds_and_pictures.build(config)
    silent = dataclasses.replace(config, data=dataclasses.replace(config.data, lexicon=None))
    assert set(train(silent, sounds_and_pictures.build).metrics) == {"probe", "zero_shot_picture"}


def test_no_image_tower_is_an_error_that_tells_how_to_get_one(pack, tmp_path):
    config = quick(sounds_and_pictures, pack, tmp_path / "run", f"model.image={tmp_path / 'nothing'}")
    with pytest.raises(ConfigError, match="unibrivl train --recipe photos"):
        sounds_and_pictures.build(config)


def test_words_nobody_can_pronounce_are_named(lexicon):
    small = tokenizer_for(["sea_waves"], str(lexicon))
    assert set(small.lexicon) == {"SEA", "WAVES"} and small.unknown_words("sea waves") == []
    with pytest.raises(ConfigError, match="XYZZYX"):
        tokenizer_for(["dog", "xyzzyx"], str(lexicon))


@needs_pack
def test_the_real_pack_is_divided_as_its_readme_says():
    parts = division(SoundsData(folder=str(REAL)))
    assert (len(parts.esc10_train), len(parts.esc10_held)) == (240, 80)
    assert np.bincount(sounds.numbers_of(parts.esc10_held)).tolist() == [8] * 10
    assert set(ESC10) <= with_both(parts)
    chosen_on = division(SoundsData(folder=str(REAL), validation_fold=3))
    assert (len(chosen_on.esc10_train), len(chosen_on.esc10_held)) == (160, 80)
    assert not {one.group for one in parts.esc10_held} & {one.group for one in parts.train if one.audio}


@needs_pack
@pytest.mark.slow
def test_sixty_steps_on_the_real_pack_beat_chance_by_far(tmp_path):
    """Fold 3, some minutes of a core. A probe on random weights gets 0.56, so the nearest picture says more."""
    fields = [f"data.folder={REAL}", "evaluate_every=0"]
    settings = [*fields, f"output_dir={tmp_path / 'photos'}", "steps=60", "batch_size=64", "primary=none"]
    tower = train(override(photos.config(), settings), photos.build).model
    settings = [*fields, f"output_dir={tmp_path / 'run'}", "steps=60", "batch_size=32", "data.validation_fold=3"]
    settings += [f"model.image={tower}", f"data.cache={tmp_path / 'cache'}", "evaluate_every=60"]
    metrics = train(override(sounds_and_pictures.config(), settings), sounds_and_pictures.build).metrics
    assert metrics["probe"] >= 0.5 and metrics["zero_shot_picture"] >= 0.2  # chance is 0.1
