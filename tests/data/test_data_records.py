"""Listings count, split and become tables of `datasets`; importing the loaders loads no library of an extra."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
import tiny_datasets

from unibrivl import data
from unibrivl.audio import load_audio
from unibrivl.data import Listing, Sample


def listing():
    found = (Sample("a", "a.wav", labels=("x",), split="test", fold=1), Sample("b", "b.wav", labels=("y",), fold=2))
    missing = (Sample("c", labels=("z",), split="test", fold=1),)
    return Listing("Some", found, missing, official=5, parts={"test": 3})


def test_parts_keep_count_of_what_is_missing():
    whole = listing()
    assert whole.summary() == "Some: found 2 of 5"
    assert whole.split("test").summary() == "Some test: found 1 of 3"
    assert whole.fold(1).summary() == "Some fold 1: found 1 of 2"  # no official number: found and missing
    assert whole.filter(lambda one: one.label == "y", "y only").summary() == "y only: found 1 of 1"


def test_labels_include_those_that_are_missing():
    assert listing().labels == ("x", "y", "z")
    assert listing().fold(1).labels == ("x", "z")


def test_a_split_or_fold_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no split 'train': it has test"):
        listing().split("train")
    with pytest.raises(ValueError, match="no fold 7: it has 1, 2"):
        listing().fold(7)
    with pytest.raises(ValueError, match="it has none"):
        Listing("None", (Sample("a"),)).split("train")


def test_samples_travel_to_other_processes():
    assert pickle.loads(pickle.dumps(listing())) == listing()


def test_rows_are_plain(tmp_path):
    rows = data.load(tiny_datasets.make_desed(tmp_path), "desed").to_rows()
    assert json.loads(json.dumps(rows)) == rows
    assert rows[1]["events"] == [[0.5, 1.25, "Dog"], [1.0, 2.0, "Speech"]]


@pytest.mark.parametrize("name", ["desed", "flickr8k_audio", "sounds_and_pictures"])
def test_a_dataset_has_the_same_rows_and_opens_nothing(name, tmp_path):
    datasets = pytest.importorskip("datasets")
    samples = data.load(tiny_datasets.MAKERS[name](tmp_path), name)
    table = samples.to_dataset()
    assert isinstance(table.features["audio"], datasets.Audio)
    assert isinstance(table.features["image"], datasets.Image)
    assert len(table) == samples.found
    for row, sample in zip(table, samples, strict=True):
        for field in ("audio", "image"):
            path = getattr(sample, field)
            assert row[field] == (None if path is None else {"bytes": None, "path": path})
        assert (row["id"], row["split"], row["fold"]) == (sample.id, sample.split, sample.fold)
        assert (tuple(row["labels"]), tuple(row["texts"])) == (sample.labels, sample.texts)
        assert [(one["onset"], one["offset"], one["label"]) for one in row["events"]] == list(sample.events)
    heard = next(row for row in table if row["audio"])
    assert load_audio(heard["audio"]["path"]).samples.size


def test_importing_it_loads_neither_torch_nor_datasets():
    code = "import sys, unibrivl.data; print([m for m in ('torch', 'datasets', 'pyarrow', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_the_message_names_it(monkeypatch, tmp_path):
    for module in ("datasets", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"unibrivl\[train\]"):
        listing().to_dataset()
    (tmp_path / "t.parquet").write_bytes(b"")
    with pytest.raises(ImportError, match=r"unibrivl\[parquet\]"):
        data.load(tmp_path / "t.parquet")
