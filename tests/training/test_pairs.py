"""Sounds with pictures: which belong together, which part is heard, what is held out, and what broken files do."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import tiny_pairs
from tiny_datasets import make_sounds_and_pictures

from unibrivl import data
from unibrivl.audio import load_audio, load_part
from unibrivl.data import DatasetError, Listing, Sample
from unibrivl.training import pairs as pairs_module
from unibrivl.training.augment_sound import SoundAugmentation
from unibrivl.training.pairs import Pairs, check_files, divided, part_of, without
from unibrivl.training.sampler import Draw

RATE_HZ = tiny_pairs.RATE_HZ


def test_samples_that_have_both_are_pairs(tmp_path):
    listing = data.load(tiny_pairs.by_stem(tmp_path / "mine", 5))
    pairs = Pairs(listing, RATE_HZ)
    assert len(pairs) == 5 and not pairs.by_label and not pairs.labelled
    example = pairs[Draw(3, 0, 1)]
    assert example["sample_id"] == 3 and "label" not in example
    assert np.array_equal(example["audio"], load_audio(listing[3].audio, rate_hz=RATE_HZ).samples)
    assert example["image"].size == (40, 40) and example["image"].mode == "RGB"


def test_what_shares_a_label_is_a_pair_and_the_draw_decides_which(tmp_path):
    listing = data.load(tiny_pairs.by_label(tmp_path / "mine"))
    pairs = Pairs(listing, RATE_HZ)
    assert len(pairs) == 12 and pairs.by_label and len(pairs.picture_paths()) == 15
    seen = set()
    for epoch in range(12):
        example = pairs[Draw(5, epoch, 100 + epoch)]
        assert example["label"] == 1
        picture = pairs.pictures[example["sample_id"]]
        assert picture.labels == ("class_1",)
        seen.add(picture.id)
    assert len(seen) > 2
    assert pairs[Draw(5, 0, 7)]["sample_id"] == pairs[Draw(5, 0, 7)]["sample_id"]


def test_classes_without_a_picture_are_passed_over(tmp_path):
    folder = tiny_pairs.by_label(tmp_path / "mine", labels=2)
    tiny_pairs.tone(folder / "only_heard" / "a.wav", 400)
    tiny_pairs.picture(folder / "only_seen" / "a.png", (1, 2, 3))
    pairs = Pairs(data.load(folder), RATE_HZ)
    assert len(pairs) == 8 and sorted(pairs.pictures_of) == ["class_0", "class_1"]
    assert pairs.summary() == "8 sounds and 10 pictures of 2 labels"


def test_one_picture_of_several_sounds_is_one_sample(tmp_path):
    """Spoken captions: rows that share a picture must not repel each other."""
    tiny_pairs.picture(tmp_path / "a.png", (1, 2, 3))
    tiny_pairs.picture(tmp_path / "b.png", (3, 2, 1))
    for place in range(3):
        tiny_pairs.tone(tmp_path / f"{place}.wav", 300)
    (tmp_path / "pairs.csv").write_text("audio,image\n0.wav,a.png\n1.wav,b.png\n2.wav,a.png\n")
    pairs = Pairs(data.load(tmp_path / "pairs.csv"), RATE_HZ)
    assert [pairs[Draw(place, 0, 0)]["sample_id"] for place in range(3)] == [0, 1, 0]


def test_the_part_that_is_meant_is_heard(tmp_path):
    chance = np.random.default_rng(0)
    whole = chance.uniform(-0.5, 0.5, 3 * RATE_HZ).astype(np.float32)
    path = str(tmp_path / "long.wav")
    soundfile.write(path, whole, RATE_HZ, subtype="FLOAT")
    sample = Sample("a", audio=path)
    assert np.array_equal(part_of(sample, RATE_HZ, 10), whole)
    assert np.array_equal(part_of(sample, RATE_HZ, 0.5), whole[: RATE_HZ // 2])
    middle = replace(sample, start_s=1.0, end_s=2.5)
    assert np.array_equal(part_of(middle, RATE_HZ, 10), whole[RATE_HZ : RATE_HZ * 5 // 2])
    assert np.array_equal(part_of(replace(sample, start_s=2.0), RATE_HZ, 10), whole[2 * RATE_HZ :])
    begins = set()
    for seed in range(8):
        part = part_of(middle, RATE_HZ, 0.5, np.random.default_rng(seed))
        (begin,) = [at for at in range(RATE_HZ, 2 * RATE_HZ + 1) if whole[at] == part[0]]
        assert np.array_equal(part, whole[begin : begin + RATE_HZ // 2])
        begins.add(begin)
    assert len(begins) == 8
    with pytest.raises(DatasetError, match=r"ends before 5\.0 s.*leave_out=a"):
        part_of(replace(sample, start_s=5.0), RATE_HZ, 10)


def test_a_file_at_another_rate_is_heard_as_load_audio_hears_it(tmp_path):
    tiny_pairs.tone(tmp_path / "a.wav", 440, 2.0, 44_100)
    path = str(tmp_path / "a.wav")
    whole = load_audio(path, rate_hz=RATE_HZ).samples
    assert np.array_equal(part_of(Sample("a", audio=path), RATE_HZ, 1.3), whole[: round(1.3 * RATE_HZ)])


def test_an_example_follows_from_its_draw(tmp_path):
    listing = data.load(tiny_pairs.by_stem(tmp_path / "mine", 4))
    pairs = Pairs(listing, RATE_HZ, 0.25, True, SoundAugmentation())
    first, again, other = pairs[Draw(2, 0, 5)], pairs[Draw(2, 0, 5)], pairs[Draw(2, 1, 6)]
    assert np.array_equal(first["audio"], again["audio"]) and first["image_seed"] == again["image_seed"]
    assert not np.array_equal(first["audio"], other["audio"]) and first["image_seed"] != other["image_seed"]
    assert len(first["audio"]) == RATE_HZ // 4


def test_what_is_missing_is_said(tmp_path):
    for place in range(2):
        tiny_pairs.tone(tmp_path / "sounds" / f"{place}.wav", 300)
    with pytest.raises(DatasetError, match="holds both"):
        Pairs(data.load(tmp_path / "sounds"), RATE_HZ)
    apart = Listing("apart", (Sample("a", audio="a.wav", labels=("x",)), Sample("b", image="b.png", labels=("y",))))
    with pytest.raises(DatasetError, match=r"no label.*dog_1\.wav"):
        Pairs(apart, RATE_HZ)
    film = Listing("film", (Sample("a", audio="a.mp4", video="a.mp4"),))
    with pytest.raises(DatasetError, match="unibrivl prepare"):
        Pairs(film, RATE_HZ)


def test_broken_sounds_are_all_named_before_the_first_step(tmp_path):
    folder = tiny_pairs.by_stem(tmp_path / "mine", 6)
    for place in (1, 4):
        (folder / f"thing_{place:02}.wav").write_bytes(b"RIFF no sound")
    listing = data.load(folder)
    with pytest.raises(DatasetError, match="2 of 12 files.*--set data.leave_out=thing_01,thing_04") as caught:
        Pairs(listing, RATE_HZ).check()
    assert "thing_01.wav" in str(caught.value) and "thing_04.wav" in str(caught.value)
    rest = without(listing, ("thing_01", "thing_04"))
    Pairs(rest, RATE_HZ).check()
    assert len(rest) == 4
    with pytest.raises(ValueError, match="no sample of that id"):
        without(listing, ("thing_99",))


def test_one_error_names_sounds_and_pictures_of_both_parts_and_the_setting(tmp_path):
    """Not one kind, or one part, at each start; the setting can be pasted."""
    folder = tiny_pairs.by_stem(tmp_path / "mine", 6)
    (folder / "thing_00.wav").write_bytes(b"RIFF no sound")
    (folder / "thing_05.png").write_bytes(b"no picture")
    (folder / "thing_02.wav").rename(folder / "two dogs (1).wav")
    (folder / "thing_02.png").unlink()
    (folder / "two dogs (1).png").write_bytes(b"")
    listing = data.load(folder)
    train, valid = (listing.filter(lambda one, at=at: (one.id > "thing_03") == at) for at in (False, True))
    with pytest.raises(DatasetError) as caught:
        check_files(Pairs(train, RATE_HZ), Pairs(valid, RATE_HZ))
    assert "3 of 12 files" in str(caught.value)
    assert "--set 'data.leave_out=thing_00,thing_05,two dogs (1)'" in str(caught.value)
    late = replace(listing[1], start_s=9.0)
    with pytest.raises(DatasetError, match=r"it ends at 0\.4 s, before a sample that begins at 9 s"):
        Pairs(replace(listing, samples=(late,)), RATE_HZ).check()


def test_a_random_part_of_a_long_file_reads_only_that(tmp_path, monkeypatch):
    rate_hz, asked = RATE_HZ, []
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 60 * rate_hz).astype(np.float32)
    for suffix in ("wav", "flac"):
        path = str(tmp_path / f"long.{suffix}")
        soundfile.write(path, noise, rate_hz, subtype="PCM_16")
        whole = load_audio(path).samples
        with monkeypatch.context() as patch:
            patch.setattr(pairs_module, "load_audio", lambda *args, **kwargs: pytest.fail("all of it was read"))
            patch.setattr(
                pairs_module, "load_part", lambda path, *at, **more: asked.append(at) or load_part(path, *at, **more)
            )
            part = part_of(Sample("a", audio=path), rate_hz, 2.0, np.random.default_rng(4))
        begin = int(np.random.default_rng(4).integers(len(whole) - 2 * rate_hz + 1))  # as it was drawn from the whole
        assert np.array_equal(part, whole[begin : begin + 2 * rate_hz])
    assert all(end - start == pytest.approx(2.0) for start, end in asked) and len(asked) == 2


def test_a_file_that_is_shorter_than_it_says_still_gives_a_part(tmp_path):
    path = tmp_path / "cut.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * RATE_HZ).astype(np.float32)
    soundfile.write(path, noise, RATE_HZ)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    there = load_audio(str(path)).samples
    for seed in range(6):
        part = part_of(Sample("a", audio=str(path)), RATE_HZ, 1.0, np.random.default_rng(seed))
        assert 0 < len(part) <= RATE_HZ
        assert any(np.array_equal(part, there[at : at + len(part)]) for at in np.flatnonzero(there == part[0]))


# ---- what is held out -----------------------------------------------------------------------------------------------


def ids(listing):
    return {one.id for one in listing}


def test_a_share_is_held_out_by_the_seed(tmp_path):
    listing = data.load(tiny_pairs.by_stem(tmp_path / "mine", 20))
    train, valid = divided(listing, 0.2, seed=3)
    assert len(valid) == 4 and not ids(train) & ids(valid) and len(train) == 16
    assert ids(divided(listing, 0.2, seed=3)[1]) == ids(valid) != ids(divided(listing, 0.2, seed=4)[1])
    assert len(divided(listing, 0.01, seed=0)[1]) == 2  # among one nothing can be looked for
    with pytest.raises(ValueError, match="between 0 and 1"):
        divided(listing, 0.0, 0)


def test_by_label_every_class_keeps_sounds_and_pictures_on_both_sides(tmp_path):
    listing = data.load(tiny_pairs.by_label(tmp_path / "mine"))
    train, valid = divided(listing, 0.1, seed=0)
    for part, (label, kind) in itertools.product(
        (train, valid), itertools.product(listing.labels, ("audio", "image"))
    ):
        assert any(getattr(one, kind) and one.labels == (label,) for one in part)


def test_groups_and_pictures_are_not_torn_apart():
    samples = [Sample(f"{group}/{place}", audio="a", image=f"{group}.png") for group in range(9) for place in range(3)]
    samples += [Sample(f"g{place}", audio="a", image=f"g{place}.png", group="one") for place in range(3)]
    train, valid = divided(Listing("torn", tuple(samples)), 0.3, seed=1)
    assert len(valid) == 9
    assert not {one.group or one.image for one in train} & {one.group or one.image for one in valid}


def test_splits_that_are_there_are_taken():
    def listing(*splits):
        return Listing("l", tuple(Sample(f"{n}", audio="a", image=f"{n}", split=one) for n, one in enumerate(splits)))

    train, valid = divided(listing("train", "test", "valid", None, "extra"), 0.1, 0)
    assert ids(train) == {"0", "3"} and ids(valid) == {"2"}
    train, valid = divided(listing("Train", "TEST"), 0.1, 0)
    assert ids(train) == {"0"} and ids(valid) == {"1"}
    train, valid = divided(listing("a", "b", "b"), 0.1, 0, valid="b")
    assert ids(train) == {"0"} and ids(valid) == {"1", "2"}
    train, valid = divided(listing("train", "train", "train", "rest"), 0.4, 0)
    assert ids(train) | ids(valid) == {"0", "1", "2"} and len(valid) == 2
    train, valid = divided(listing("test", "test", "test"), 0.4, 0)
    assert len(train) == 1 and len(valid) == 2
    with pytest.raises(ValueError, match="no split 'c'"):
        divided(listing("a"), 0.1, 0, valid="c")


def test_the_pack_is_paired_by_label(tmp_path):
    listing = data.load(make_sounds_and_pictures(tmp_path), "sounds_and_pictures")
    pairs = Pairs(listing, RATE_HZ)
    assert len(pairs) == 1 and len(pairs.pictures_of["train"]) == 2
