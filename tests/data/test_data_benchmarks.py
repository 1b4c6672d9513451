"""Every loader on a tiny copy of its dataset: the rows, how many are expected, and what a wrong folder is told."""

from __future__ import annotations

import shutil

import pytest
import tiny_datasets

from unibrivl import data
from unibrivl.audio import load_audio
from unibrivl.data import esc50, vegas

# loader -> found and expected in the tiny copy; where lists or names give the number, missing ones are named as well
COUNTS = {
    "audioset": (4, 5, 1),
    "captions": (1, 2475, 0),
    "clotho": (6, 5929, 0),
    "desed": (4, 2501, 0),
    "esc50": (10, 2000, 0),
    "flickr8k_audio": (5, 40_000, 1),
    "folder": (2, 2, 0),
    "localized_narratives": (3, 142_845, 0),
    "ravdess": (6, 1440, 1434),
    "sounds_and_pictures": (3, 7700, 0),
    "speech_emotion": (2, 746, 0),
    "spoken_coco": (6, 6, 0),
    "spoken_digits": (2, 3000, 0),
    "urbansound8k": (10, 8732, 0),
    "vegas": (3, 28_109, 0),
    "vggsound": (3, 4, 1),
}


@pytest.fixture
def tiny(tmp_path):
    def make(name):
        return tiny_datasets.MAKERS[name](tmp_path)

    return make


def test_every_loader_has_a_tiny_copy_and_a_count():
    assert set(tiny_datasets.MAKERS) == set(data.LOADERS) == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_found_and_expected(name, tiny):
    listing = data.load(tiny(name), name)
    assert (listing.found, listing.expected, len(listing.missing)) == COUNTS[name]
    assert listing.summary().endswith(f": found {COUNTS[name][0]} of {COUNTS[name][1]}")
    ids = [sample.id for sample in (*listing.samples, *listing.missing)]
    assert len(set(ids)) == len(ids)
    assert all(sample.audio is None and sample.image is None for sample in listing.missing)


@pytest.mark.parametrize("name", COUNTS)
def test_its_sounds_can_be_read(name, tiny):
    for sample in data.load(tiny(name), name):
        if sample.audio and not sample.audio.endswith(".mp4"):
            assert load_audio(sample.audio).samples.size


@pytest.mark.parametrize("name", COUNTS)
def test_the_order_does_not_depend_on_the_disk(name, tiny, tmp_path):
    first = data.load(tiny(name), name)
    moved = tmp_path.parent / "moved"
    shutil.rmtree(moved, ignore_errors=True)
    shutil.copytree(tmp_path, moved)
    assert [one.id for one in data.load(moved, name)] == [one.id for one in first]
    shutil.rmtree(moved)


@pytest.mark.parametrize("name", sorted(set(COUNTS) - {"folder"}))
def test_a_wrong_folder_is_refused_with_what_was_looked_for(name, tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "notes.md").write_text("nothing of this", encoding="utf-8")
    with pytest.raises(data.DatasetError) as refused:
        data.load(tmp_path, name)
    assert "looked " in str(refused.value)
    assert "holiday" in str(refused.value)
    assert "notes.md" in str(refused.value)


@pytest.mark.parametrize("name", sorted(set(COUNTS) - {"captions", "ravdess", "vegas", "folder"}))
def test_lists_without_their_files_are_refused(name, tiny, tmp_path):
    tiny(name)
    for path in tmp_path.rglob("*"):
        if path.suffix in {".wav", ".ogg", ".flac", ".mp4", ".jpg", ".png"}:
            path.unlink()
    with pytest.raises(data.DatasetError, match="none of the .* files they name: looked for "):
        data.load(tmp_path, name)


def test_a_folder_that_does_not_exist_and_a_name_that_is_nearly_one(tmp_path):
    with pytest.raises(data.DatasetError, match="does not exist"):
        data.load(tmp_path / "gone", "esc50")
    with pytest.raises(ValueError, match="Is it 'vggsound'"):
        data.load(tmp_path, "vgg-sound")


def test_esc50_has_folds_and_its_easy_subset(tiny):
    root = tiny("esc50")
    listing = data.load(root, "esc50")
    assert listing.labels == ("clapping", "dog")
    assert listing.folds == (1, 2, 3, 4, 5)
    assert listing.fold(3).summary() == "ESC-50 fold 3: found 2 of 400"
    assert {one.group for one in listing.fold(3)} == {"1003"}
    easy = esc50.load(root, esc10=True)
    assert (easy.labels, easy.expected, easy.fold(1).expected) == (("dog",), 400, 80)


def test_esc50_is_found_inside_what_the_archive_unpacks_to(tmp_path):
    tiny_datasets.make_esc50(tmp_path / "ESC-50-master")
    assert data.load(tmp_path, "esc50").found == 10


def test_a_clip_that_is_gone_is_named(tiny):
    root = tiny("esc50")
    (root / "audio/2-1002-A-0.wav").unlink()
    listing = data.load(root, "esc50")
    assert [one.id for one in listing.missing] == ["2-1002-A-0"]
    assert listing.missing[0].label == "dog"
    assert listing.fold(2).found == 1


def test_urbansound8k_keeps_its_folds(tiny):
    listing = data.load(tiny("urbansound8k"), "urbansound8k")
    assert [listing.fold(fold).expected for fold in (1, 4, 10)] == [873, 990, 837]
    assert listing[3].group == "400"
    assert listing[3].start_s is None


def test_vggsound_takes_each_clip_as_it_is_named(tiny):
    listing = data.load(tiny("vggsound"), "vggsound")
    first, second, third = listing
    assert first.audio.endswith("-aZ09_bcdef_000030.wav")
    assert first.image.endswith("-aZ09_bcdef_000030.jpg")
    assert second.label == "bird chirping, tweeting"
    assert second.audio == second.video
    assert third.id == "ccccccccccc_000140"
    assert listing.missing[0].label == "playing banjo"
    assert listing.labels == ("bird chirping, tweeting", "dog barking", "playing banjo")
    assert listing.split("test").summary() == "VGGSound test: found 2 of 15446"
    assert data.load(tiny("vggsound"), "vggsound", split="test").summary() == "VGGSound test: found 2 of 15446"


def test_of_two_sounds_of_one_clip_the_uncompressed_one_counts(tiny):
    root = tiny("vggsound")
    (root / "clips/-aZ09_bcdef_000030.mp3").write_bytes(b"not opened")
    assert data.load(root, "vggsound")[0].audio.endswith(".wav")


def test_vggsound_says_which_line_is_broken(tiny):
    root = tiny("vggsound")
    with (root / "vggsound.csv").open("a", encoding="utf-8") as file:
        file.write("eeeeeeeeeee,3,bird chirping, tweeting,train\n")
    with pytest.raises(data.DatasetError, match="line 5: 5 columns .* Quote labels"):
        data.load(root, "vggsound")


def test_audioset_reads_how_many_there_are_from_its_lists(tiny):
    root = tiny("audioset")
    listing = data.load(root, "audioset")
    assert listing[0].labels == ("Speech", "Gush")
    with pytest.raises(ValueError, match="use .labels"):
        _ = listing[0].label
    assert listing[0].id == "aaaaaaaaaaa_30"
    assert listing.split("eval").summary() == "AudioSet eval: found 1 of 2"
    assert data.load(root, "audioset", splits=("eval",)).expected == 2
    with pytest.raises(data.DatasetError, match="unbalanced_train_segments.csv"):
        data.load(root, "audioset", splits=("unbalanced_train",))
    (root / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/09x0r,Speech\n", encoding="utf-8")
    with pytest.raises(data.DatasetError, match="no label /t/dd00088"):
        data.load(root, "audioset")


def test_an_audioset_list_that_was_cut_short_shows(tiny):
    root = tiny("audioset")
    lines = (root / "eval_segments.csv").read_text(encoding="utf-8").splitlines()
    tiny_datasets.text(root / "eval_segments.csv", lines[:-1])
    assert data.load(root, "audioset", splits=("eval",)).summary() == "AudioSet: found 1 of 2"


def test_desed_groups_its_rows_by_clip(tiny):
    listing = data.load(tiny("desed"), "desed").split("synthetic21_validation")
    assert listing.summary() == "DESED synthetic21_validation: found 3 of 2500"
    assert listing[0].events == ((0.5, 1.25, "Dog"), (1.0, 2.0, "Speech"))
    assert listing[0].events[0].onset == 0.5
    assert listing[2].labels == listing[2].events == ()


def test_desed_weak_labels_are_parted(tiny):
    weak = data.load(tiny("desed"), "desed").split("weak")
    assert weak[0].labels == ("Cat", "Speech")
    assert weak.expected == 1


def test_clotho_has_five_captions_and_odd_names(tiny):
    listing = data.load(tiny("clotho"), "clotho")
    assert listing.name == "Clotho 2.1"
    evaluation = listing.split("evaluation")
    assert evaluation.expected == 1045
    assert [one.group for one in evaluation] == ["1234", None]
    assert evaluation[1].texts[4] == "evaluation caption 5, of five"


def test_clotho_without_a_validation_split_is_the_first_version(tiny):
    root = tiny("clotho")
    (root / "clotho_captions_validation.csv").unlink()
    assert data.load(root, "clotho").summary() == "Clotho 1: found 4 of 3938"


def test_clotho_names_the_column_that_is_not_there(tiny):
    path = tiny("clotho") / "clotho_captions_development.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("caption_3", "captoin_3"), encoding="utf-8")
    with pytest.raises(data.DatasetError, match="no column 'caption_3'.*Rename 'captoin_3'"):
        data.load(path.parent, "clotho")


def test_vegas_takes_folders_however_they_are_spelled(tiny, caplog):
    root = tiny("vegas")
    listing = data.load(root, "vegas", classes=vegas.FIVE_CLASSES)
    assert [(one.id, one.label, one.split) for one in listing] == [
        ("baby_cry/v1", "baby_cry", "test"),
        ("dog/d1", "dog", "train"),
        ("dog/d2", "dog", None),
    ]
    assert listing[0].image.endswith("v1.jpg")
    assert listing.expected == 3
    assert "no folder fireworks, rail_transport, water_flowing" in caplog.text
    with pytest.raises(ValueError, match="no class of VEGAS"):
        vegas.load(root, classes=("violin",))


def test_flickr8k_audio_joins_sounds_pictures_and_captions(tiny):
    listing = data.load(tiny("flickr8k_audio"), "flickr8k_audio")
    assert listing.split("test").summary() == "Flickr8k Audio test: found 1 of 5000"
    assert listing[1].texts == ("A dog runs , train 1 .",)
    assert listing[0].image == listing[1].image
    assert listing[1].group == "1"
    assert listing.missing[0].id == "200_ab_1"


def test_flickr8k_audio_needs_no_pictures_but_then_all_of_them(tiny):
    root = tiny("flickr8k_audio")
    (root / "Flicker8k_Dataset/000_ab.jpg").unlink()
    assert data.load(root, "flickr8k_audio").found == 3
    shutil.rmtree(root / "Flicker8k_Dataset")
    assert data.load(root, "flickr8k_audio").found == 5


def test_spoken_coco_prefers_the_karpathy_split(tiny, tmp_path):
    root = tiny("spoken_coco")
    listing = data.load(root, "spoken_coco")
    assert listing.name == "SpokenCOCO (karpathy)"
    assert listing.splits == ("test", "train", "val")
    assert listing[0].texts == ("words 0_0",)
    assert listing[0].image.endswith("COCO_val2014_000000000000.jpg")
    with pytest.raises(data.DatasetError, match="SpokenCOCO_train.json"):
        data.load(root, "spoken_coco", lists="original")
    (root / "SpokenCOCO_val.json").write_text('{"data": [{"image": "x.jpg"}]}', encoding="utf-8")
    with pytest.raises(data.DatasetError, match="entry 0 of data: no 'captions'"):
        data.load(root, "spoken_coco", lists="original")


def test_localized_narratives_reads_shards_and_pads_image_names(tiny):
    listing = data.load(tiny("localized_narratives"), "localized_narratives")
    assert listing.split("val").summary() == "Localized Narratives (COCO) val: found 2 of 8573"
    assert listing.split("val")[0].image.endswith("000000000139.jpg")
    assert [one.group for one in listing] == ["1", "12", "7"]


def test_ravdess_reads_what_a_file_name_says(tiny):
    listing = data.load(tiny("ravdess"), "ravdess")
    assert len(listing.labels) == 8
    assert listing[0].texts == ("Dogs are sitting by the door",)
    assert [(one.label, one.group) for one in listing][:2] == [("neutral", "01"), ("angry", "01")]
    assert listing.found + len(listing.missing) == 1440


def test_a_pack_has_sounds_and_pictures_of_one_label(tiny):
    listing = data.load(tiny("sounds_and_pictures"), "sounds_and_pictures")
    sounds = listing.filter(lambda one: one.audio is not None)
    pictures = listing.filter(lambda one: one.image is not None)
    assert (len(sounds), len(pictures)) == (1, 2)
    assert {one.label for one in listing} == {"train"}
    assert sounds[0].texts == ("a train",)
    assert (sounds[0].fold, sounds[0].group, sounds[0].id) == (4, "1", "audio/railway/4-1-A-45")
