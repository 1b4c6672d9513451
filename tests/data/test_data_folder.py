"""A folder or a table of one's own: by row, by stem, by label, and what is said about a slip."""

from __future__ import annotations

import json

import pytest
import tiny_datasets
from tiny_datasets import picture, sound, table, text

from unibrivl import data


@pytest.fixture
def media(tmp_path):
    """Two sounds and two pictures that tables name."""
    for number in (1, 2):
        sound(tmp_path / f"wavs/{number}.wav", number)
        picture(tmp_path / f"jpgs/{number}.jpg", number)
    return tmp_path


ROWS = [
    ("wavs/1.wav", "jpgs/1.jpg", "a dog, barking", "dog", "train", 1),
    ("wavs/2.wav", "jpgs/2.jpg", "a cat", "cat", "test", 2),
]
HEADER = ("audio", "image", "text", "label", "split", "fold")


def as_csv(root):
    return table(root / "pairs.csv", HEADER, ROWS)


def as_tsv(root):
    return table(root / "pairs.tsv", HEADER, ROWS, tabs=True)


def as_jsonl(root):
    return text(root / "pairs.jsonl", [json.dumps(dict(zip(HEADER, row, strict=True))) for row in ROWS])


def as_parquet(root):
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    columns = {name: [row[at] for row in ROWS] for at, name in enumerate(HEADER)}
    pyarrow.parquet.write_table(pyarrow.table(columns), root / "pairs.parquet")
    return root / "pairs.parquet"


@pytest.mark.parametrize("write", [as_csv, as_tsv, as_jsonl, as_parquet])
def test_all_tables_say_the_same(write, media):
    path = write(media)
    listing = data.load(path)
    assert listing == data.load(media).filter(lambda sample: True)
    first = listing[0]
    assert (first.id, first.label, first.split, first.fold) == ("wavs/1", "dog", "train", 1)
    assert first.texts == ("a dog, barking",)
    assert first.audio == str(media / "wavs/1.wav")
    assert first.image == str(media / "jpgs/1.jpg")
    assert listing.fold(2)[0].label == "cat"


def test_parquet_cells_may_hold_several_captions(media):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    rows = pyarrow.table({"audio": ["wavs/1.wav"], "text": [["one", "two"]], "label": [["dog", "cat"]]})
    parquet.write_table(rows, media / "some.parquet")
    (sample,) = data.load(media / "some.parquet")
    assert (sample.texts, sample.labels) == (("one", "two"), ("dog", "cat"))


def test_gaps_in_columns_of_numbers_are_gaps(media):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    gaps = [1.0, float("nan")]
    columns = {"audio": ["wavs/1.wav", "wavs/2.wav"], "fold": gaps, "start_s": gaps, "label": ["dog", None]}
    parquet.write_table(pyarrow.table(columns), media / "some.parquet")
    first, second = data.load(media / "some.parquet")
    assert (first.fold, first.start_s, first.label) == (1, 1.0, "dog")
    assert (second.fold, second.start_s, second.label) == (None, None, None)
    with pytest.raises(data.DatasetError, match="fold is '1.5' and must be a number"):
        data.load(table(media / "t.csv", ("audio", "fold"), [("wavs/1.wav", 1.5)]))


def test_a_damaged_parquet_file_is_told(media):
    pytest.importorskip("pyarrow")
    (media / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(data.DatasetError, match="not a parquet file"):
        data.load(media / "bad.parquet")


@pytest.mark.parametrize(
    ("header", "near"),
    [
        ("albel", "label"),
        ("labels", "label"),
        ("Text", "text"),
        ("folds", "fold"),
        ("caption", "text"),
        ("class", "label"),
        ("star_s", "start_s"),
    ],
)
def test_a_column_that_is_nearly_ours_is_asked_about(header, near, media):
    path = table(media / "t.csv", ("audio", header), [("wavs/1.wav", "1")])
    with pytest.raises(data.DatasetError, match=f"a column '{header}' and no '{near}'"):
        data.load(path)
    assert data.load(path, columns={near: header}).found == 1
    assert data.load(path, columns={near: None}).found == 1


def test_other_columns_are_passed_over(media):
    path = table(media / "t.csv", ("audio", "folder", "licence", "duration"), [("wavs/1.wav", "x", "CC0", 0.1)])
    assert data.load(path).found == 1


def test_a_table_without_sound_or_picture_is_refused(media):
    with pytest.raises(data.DatasetError, match="no column audio, image or file_name: it has where, label"):
        data.load(table(media / "t.csv", ("where", "label"), [("wavs/1.wav", "x")]))
    with pytest.raises(data.DatasetError, match="a column 'adio' and no 'audio'"):
        data.load(table(media / "t.csv", ("adio", "label"), [("wavs/1.wav", "x")]))


def test_a_table_of_wav_and_image_is_not_read_as_pictures_alone(media):
    path = table(media / "t.csv", ("wav", "image"), [("wavs/1.wav", "jpgs/1.jpg")])
    with pytest.raises(data.DatasetError, match="'wav' and no 'audio'"):
        data.load(path)
    assert data.load(path, columns={"audio": None})[0].audio is None


def test_columns_that_are_not_there_are_named_with_the_nearest(media):
    path = table(media / "t.csv", ("wav_file", "category"), [("wavs/1.wav", "dog")])
    sample = data.load(path, columns={"audio": "wav_file", "label": "category"})[0]
    assert sample.label == "dog"
    with pytest.raises(data.DatasetError, match="Is it 'category'"):
        data.load(path, columns={"audio": "wav_file", "label": "Category"})
    with pytest.raises(data.DatasetError, match="Is it 'label'"):
        data.load(path, columns={"audio": "wav_file", "labels": "category"})


def test_rows_whose_files_are_gone_are_missing(media, caplog):
    path = table(media / "t.csv", ("audio", "image"), [("wavs/1.wav", "jpgs/1.jpg"), ("wavs/2.wav", "jpgs/9.jpg")])
    listing = data.load(path)
    assert listing.summary() == "t.csv: found 1 of 2"
    assert listing.missing[0].id == "wavs/2"
    assert "found 1 of 2" in caplog.text
    nowhere = table(media / "n.csv", ("audio",), [("else/1.wav",)])
    with pytest.raises(data.DatasetError, match=r"none of the 1 rows .*else/1.wav. Paths are relative"):
        data.load(nowhere)


def test_several_rows_of_one_file_are_several_samples(media):
    rows = [("wavs/1.wav", 0, 0.05), ("wavs/1.wav", 0.05, 0.1)]
    listing = data.load(table(media / "t.csv", ("audio", "start_s", "end_s"), rows))
    assert [(one.id, one.start_s, one.end_s) for one in listing] == [("wavs/1", 0, 0.05), ("wavs/1#2", 0.05, 0.1)]
    with pytest.raises(data.DatasetError, match="'a' twice"):
        data.load(table(media / "u.csv", ("id", "audio"), [("a", "wavs/1.wav"), ("a", "wavs/2.wav")]))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"fold": "first"}, "row 1: fold is 'first' and must be a number"),
        ({"start_s": "2", "end_s": "1"}, "start_s must be before end_s"),
        ({"audio": ""}, "names neither a sound nor a picture"),
    ],
)
def test_a_cell_that_cannot_be_is_told_with_its_row(cells, said, media):
    row = {"audio": "wavs/1.wav"} | cells
    with pytest.raises(data.DatasetError, match=said):
        data.load(table(media / "t.csv", list(row), [list(row.values())]))


def test_broken_tables_are_told(media):
    with pytest.raises(data.DatasetError, match="line 2: 1 more values"):
        data.load(table(media / "t.csv", ("audio",), [("wavs/1.wav", "extra")]))
    with pytest.raises(data.DatasetError, match="has no rows"):
        data.load(table(media / "t.csv", ("audio",), []))
    (media / "l.csv").write_bytes("audio,text\nwavs/1.wav,caf\xe9\n".encode("latin-1"))
    with pytest.raises(data.DatasetError, match="is not UTF-8"):
        data.load(media / "l.csv")
    with pytest.raises(data.DatasetError, match="line 1: .* one JSON object"):
        data.load(text(media / "j.jsonl", ["{audio: 1}"]))
    with pytest.raises(data.DatasetError, match="is no table"):
        data.load(text(media / "j.txt", ["wavs/1.wav"]))


def test_metadata_of_an_audio_folder_names_sounds_and_pictures(media):
    table(media / "metadata.csv", ("file_name", "label"), [("wavs/1.wav", "dog"), ("jpgs/1.jpg", "dog")])
    table(media / "other.csv", ("a",), [])
    first, second = data.load(media)
    assert (first.image, second.audio) == (None, None)
    assert first.label == second.label == "dog"


def test_two_tables_are_one_too_many(media):
    as_csv(media)
    as_tsv(media)
    with pytest.raises(data.DatasetError, match="the tables pairs.csv, pairs.tsv. Give the path"):
        data.load(media)


def test_stems_pair_sounds_and_pictures(tmp_path):
    listing = data.load(tiny_datasets.make_folder(tmp_path))
    assert [one.id for one in listing] == ["dog_1", "dog_2"]
    assert listing[0].texts == ("a dog",)
    assert all(one.audio and one.image for one in listing)


def test_stems_pair_across_folders_named_after_kinds(tmp_path):
    sound(tmp_path / "train/audio/a.wav")
    picture(tmp_path / "train/images/a.png")
    sound(tmp_path / "train/audio/b.wav")
    listing = data.load(tmp_path / "train")
    assert (listing.found, listing.missing[0].id) == (1, "b")
    (sample,) = data.load(tmp_path, how="stems")
    assert (sample.id, sample.split) == ("train/a", "train")


def test_sounds_alone_are_a_dataset(tmp_path):
    sound(tmp_path / "a.wav")
    text(tmp_path / "README.txt", ["not a caption: there is no sound of this name"])
    (sample,) = data.load(tmp_path)
    assert (sample.image, sample.texts) == (None, ())


def test_stems_that_never_meet_are_refused(tmp_path):
    sound(tmp_path / "a.wav")
    picture(tmp_path / "b.jpg")
    with pytest.raises(data.DatasetError, match="no two of one name.*how='labels'"):
        data.load(tmp_path)
    sound(tmp_path / "b.wav")
    sound(tmp_path / "b.flac")
    with pytest.raises(data.DatasetError, match="both the audio of 'b'"):
        data.load(tmp_path)


def test_one_folder_a_class(tmp_path):
    for label in ("dog", "cat"):
        sound(tmp_path / label / "1.wav")
        picture(tmp_path / label / "1.jpg")
        picture(tmp_path / label / "2.jpg")
    listing = data.load(tmp_path)
    assert listing.labels == ("cat", "dog")
    assert [one.id for one in listing] == ["cat/1", "cat/2", "dog/1", "dog/2"]
    assert listing[0].audio and listing[0].image and not listing[1].audio


def test_linked_folders_are_followed_once(tmp_path):
    sound(tmp_path / "elsewhere/deep/1.wav")
    (tmp_path / "set/dog").mkdir(parents=True)
    (tmp_path / "set/dog/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere/deep/back").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert [one.id for one in data.load(tmp_path / "set")] == ["dog/linked/deep/1"]


def test_class_folders_without_media_are_refused(tmp_path):
    (tmp_path / "dog").mkdir()
    with pytest.raises(data.DatasetError, match="holds nothing of .* one folder a class; there is dog/"):
        data.load(tmp_path)


def test_splits_above_classes(tmp_path):
    for split in ("train", "test"):
        sound(tmp_path / split / "dog" / "1.wav")
    listing = data.load(tmp_path)
    assert [(one.id, one.split, one.label) for one in listing] == [
        ("test/dog/1", "test", "dog"),
        ("train/dog/1", "train", "dog"),
    ]
    sound(tmp_path / "cat" / "1.wav")
    with pytest.raises(data.DatasetError, match="splits or classes"):
        data.load(tmp_path)


def test_loose_files_beside_classes_are_refused(tmp_path):
    sound(tmp_path / "dog/1.wav")
    sound(tmp_path / "loose.wav")
    with pytest.raises(data.DatasetError, match="loose.wav lies beside"):
        data.load(tmp_path, how="labels")


def test_options_that_do_not_fit_are_refused(tmp_path):
    tiny_datasets.make_folder(tmp_path)
    with pytest.raises(ValueError, match="must be 'rows'"):
        data.load(tmp_path, how="row")
    with pytest.raises(ValueError, match="columns are for tables"):
        data.load(tmp_path, columns={"audio": "wav"})
    with pytest.raises(data.DatasetError, match="holds 0 tables"):
        data.load(tmp_path, how="rows")
    with pytest.raises(data.DatasetError, match="nothing at all"):
        (tmp_path / "empty").mkdir()
        data.load(tmp_path / "empty")
