"""The index: files come, change, move and go, processes are killed, and it always holds what there is, once."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_search import ByBytes, bring_up, of_bytes

from unibrivl.search import Index, Query, encoded, remove


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """A kill is no power cut: nothing here needs to wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda number: None)
    monkeypatch.setattr("unibrivl.search.catalogue.SYNCHRONOUS", "off")


@pytest.fixture
def files(tmp_path) -> Path:
    folder = tmp_path / "files"
    (folder / "deep").mkdir(parents=True)
    for number in range(9):
        (folder / f"{number}.wav").write_bytes(f"sound {number} and it goes on"[: 8 + 3 * number].encode())
        (folder / "deep" / f"{number}.png").write_bytes(f"picture {number}".encode())
    return folder


def check(folder: Path, out: Path) -> None:
    """Every file is there once, with the vectors of its bytes, and nothing else is."""
    there = sorted(path for path in folder.rglob("*.*") if path.read_bytes() != b"broken")
    with Index.open(out) as index:
        entries = list(index.catalogue.entries())
        assert sorted(Path(entry.path) for entry in entries) == there
        assert index.catalogue.leftovers() == []
        for kind in ("audio", "image"):
            mine = [entry for entry in entries if entry.kind == kind]
            assert len(index.store(kind)) == len(index.engine(kind)) == sum(entry.windows for entry in mine)
            for entry in mine:
                content = Path(entry.path).read_bytes()
                parts = [content[begin : begin + 10] for begin in range(0, len(content), 10)]
                wanted = np.stack([of_bytes(part) for part in (parts if kind == "audio" else [content])])
                assert np.array_equal(index.store(kind).vectors(entry.ids), wanted)
                best = index.search(wanted[-1], kind=kind, top=1)[0]
                assert best.score == pytest.approx(1, abs=1e-5)
                if best.path == entry.path and kind == "audio":  # the same ten bytes may stand in another sound too
                    assert best.begin_s == len(parts) - 1


@pytest.mark.parametrize("engine", ["exact", "faiss"])
def test_only_what_is_new_is_embedded_and_the_rest_is_noticed(engine, files, tmp_path):
    if engine == "faiss":
        pytest.importorskip("faiss")
    out, embedder = tmp_path / "index", ByBytes()
    report = bring_up(files, out, embedder, engine=engine)
    assert (report.entries, report.embedded, report.failures) == (18, 18, ())
    check(files, out)

    embedder.seen.clear()
    report = bring_up(files, out, embedder)
    assert (report.unchanged, report.embedded, embedder.seen) == (18, 0, [])

    os.rename(files / "1.wav", files / "deep" / "renamed.wav")  # moved
    (files / "2.wav").write_bytes(b"other words than before")  # changed
    (files / "3.wav").unlink()  # gone
    os.utime(files / "4.wav", ns=(1, 1))  # touched
    (files / "9.wav").write_bytes(b"new")
    (files / "copy.png").write_bytes((files / "deep" / "0.png").read_bytes())  # a copy is a file of its own
    (files / "5.wav").write_bytes(b"broken")
    report = bring_up(files, out, embedder)
    assert sorted(embedder.seen) == ["2.wav", "5.wav", "9.wav", "copy.png"]
    assert (report.embedded, report.moved, report.removed, report.unchanged) == (3, 1, 1, 14)
    assert [(Path(path).name, kind, error) for path, kind, error in report.failures] == [
        ("5.wav", "audio", "it is broken")
    ]
    with open(out / "errors.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["path", "kind", "error"], [*report.failures[0]]]
    check(files, out)

    (files / "5.wav").write_bytes(b"whole again")
    (files / "6.wav").unlink()
    assert bring_up(files, out, embedder, keep_missing=True).removed == 0
    assert not (out / "errors.csv").exists()
    assert bring_up(files / "deep", out, embedder).removed == 0  # nobody looked where it was
    assert bring_up(files, out, embedder).removed == 1
    check(files, out)


def test_a_place_taken_over_by_another_file_is_noticed(files, tmp_path):
    out, embedder = tmp_path / "index", ByBytes()
    bring_up(files, out)
    os.replace(files / "7.wav", files / "8.wav")
    report = bring_up(files, out, embedder)
    assert (report.moved, report.embedded, embedder.seen) == (1, 0, [])
    check(files, out)


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tiny_search import ByBytes, bring_up
bring_up(Path(sys.argv[2]), Path(sys.argv[3]), ByBytes(wait_s=0.02), engine=sys.argv[4], commit_s=0.0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_killed_again_and_again_nothing_is_lost_or_doubled(tmp_path):
    files, out = tmp_path / "files", tmp_path / "index"
    files.mkdir()
    for number in range(60):
        (files / f"{number:02}.wav").write_bytes(f"{number} is the number of this sound, {'and ' * number}".encode())
    words = [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1]), str(files), str(out), "exact"]
    counts = [0]
    for segments in (1, 2):  # killed when another batch was written
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            until = time.monotonic() + 120
            while len(list((out / "vectors" / "audio").glob("*.safetensors"))) < segments:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        with Index.open(out) as index:
            counts.append(len(index))
    assert 0 <= counts[1] <= counts[2] < 60
    embedder = ByBytes()
    report = bring_up(files, out, embedder)
    assert (report.entries, report.unchanged, report.embedded) == (60, counts[2], 60 - counts[2])
    assert len(embedder.seen) == 60 - counts[2]
    assert not list(out.rglob(".*.partial"))
    check_sounds = {path.name for path in files.iterdir()}
    with Index.open(out) as index:
        assert {Path(entry.path).name for entry in index.catalogue.entries()} == check_sounds
        assert len(index.store("audio")) == sum(entry.windows for entry in index.catalogue.entries())


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("engine", ["exact", "faiss"])
def test_stopped_between_any_two_steps_the_next_writer_puts_it_right(step, engine, files, tmp_path, monkeypatch):
    """The order of catalogue, vectors and engine, cut at each place."""
    if engine == "faiss":
        pytest.importorskip("faiss")
    out = tmp_path / "index"
    bring_up(files, out, engine=engine)
    (files / "2.wav").write_bytes(b"other words than before, and more of them")
    (files / "3.wav").unlink()
    (files / "new.wav").write_bytes(b"new")
    place = [
        "unibrivl.search.catalogue.Catalogue.begin",
        "unibrivl.search.exact.ExactEngine.flush",
        "unibrivl.search.catalogue.Catalogue.know",
        "unibrivl.search.catalogue.Catalogue.forget",
        "unibrivl.search.index.Index._feed",
        "unibrivl.search.catalogue.Catalogue.told",
    ][step]

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, killed)
    with pytest.raises(KeyboardInterrupt):
        bring_up(files, out)
    monkeypatch.undo()
    with Index.open(out) as index:  # a reader never sees half of it
        for hit in index.search(of_bytes(b"sound 2 an"), kind="audio", top=20):
            assert index.catalogue.at(hit.path, "audio")
    bring_up(files, out)
    check(files, out)


def test_one_writes_and_others_read(files, tmp_path):
    out = tmp_path / "index"
    bring_up(files, out)
    with Index.open(out, write=True), pytest.raises(ValueError, match="another process is writing"):
        Index.open(out, write=True)
    with Index.open(out) as reader, pytest.raises(ValueError, match="opened to be read"):
        reader.delete([str(files / "1.wav")])
    (out / "lock").write_text("left by a dead process")
    with Index.open(out, write=True) as index:
        assert index.delete([str(files / "1.wav"), "nowhere"]) == 1
        assert len(index) == 17
    with Index.open(out) as index:
        assert len(index.store("audio")) < sum(1 for _ in range(100))
        assert all("1.wav" not in hit.path for hit in index.search(of_bytes(b"x"), top=20, kind="audio"))


def test_vectors_of_another_model_are_refused_with_the_command_that_makes_it_anew(files, tmp_path):
    out, other = tmp_path / "index", ByBytes()
    bring_up(files, out)
    other.fingerprint = "a" * 64
    remake = rf"unibrivl index {files} --out {out} --model 'by bytes' --restart"
    with pytest.raises(ValueError, match=remake):
        bring_up(files, out, other)
    with Index.open(out, write=True) as index:
        with pytest.raises(ValueError, match=remake):
            index.search(other.encode_text(["a"], against="image"))
        with pytest.raises(ValueError, match=remake):
            index.add(other.encode_text(["a"]))
    check(files, out)


def test_vectors_under_names(tmp_path):
    embedder = ByBytes()
    with Index.create(tmp_path / "a", fingerprint=embedder.fingerprint, dtype="float16") as index:
        assert index.search(of_bytes(b"a")) == []
        index.add(embedder.encode_text(["dog", "rain", "sea"]))
        index.add(embedder.encode_text(["dog"], against="image"))
        assert len(index) == 3
        assert index.search(of_bytes(b"rainaudio"))[0].path == "rain"
    with Index.open(tmp_path / "a") as index:
        (hit,) = index.search(embedder.encode_text(["dog"], against="image"), kind="text", top=1)[:1]
        assert (hit.path, hit.begin_s) == ("dog", None)
        assert hit.score == pytest.approx(1, abs=2e-3)
        assert len(index.store("text")) == 3
    for wrong in ({"engine": "none"}, {}):
        with pytest.raises(ValueError, match="no engine|an index already"):
            Index.create(tmp_path / "a", fingerprint="f", **wrong)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="not empty"):
        Index.create(tmp_path / "b", fingerprint="f")
    with pytest.raises(ValueError, match="holds no index"):
        remove(tmp_path / "b")
    remove(tmp_path / "a")
    with pytest.raises(ValueError, match="`unibrivl index PATH"):
        Index.open(tmp_path / "a")


def test_mixtures(files, tmp_path):
    out, embedder = tmp_path / "index", ByBytes()
    bring_up(files, out)
    one, two = (str(files / "deep" / f"{number}.png") for number in (1, 2))
    with Index.open(out) as index:
        query = encoded(embedder, index.kinds(), image=[(one, 1.0), (two, 0.5)], text=[("at night", 0.25)])
        hits = index.search(query, kind="image")
        first, second, words = of_bytes(b"picture 1"), of_bytes(b"picture 2"), of_bytes(b"at nightimage")
        wanted = first + 0.5 * second + 0.25 * words
        assert hits[0].path == one
        assert hits[0].score == pytest.approx(float(wanted @ first / np.linalg.norm(wanted)), abs=1e-5)
        names, cosines = zip(*hits[0].parts, strict=True)
        assert names == (f"image {one}", f"image {two}", "text 'at night'")
        assert cosines == pytest.approx((1, float(first @ second), float(first @ words)), abs=1e-5)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        away = index.search(Query.mix([(first, 1.0), (second, -1.0)]), kind="image", top=9)
        assert (away[0].path, away[-1].path) == (one, two)
        assert len(index.search(first, top=100)) == 18
    with pytest.raises(ValueError, match="cancel each other"):
        Query.mix([(first, 1.0), (first, -1.0)]).vector("image")
    with pytest.raises(ValueError, match="nothing is asked for"):
        encoded(embedder, ["image"])
    with pytest.raises(ValueError, match="one vector"):
        Query.of(embedder.encode_text(["a", "b"]))
    with pytest.raises(ValueError, match="compared? with image and not with audio|comparison with image"):
        Query.of(embedder.encode_text(["a"], against="image")).vector("audio")


def test_an_engine_that_is_behind_is_not_asked(files, tmp_path, caplog):
    pytest.importorskip("faiss")
    out = tmp_path / "index"
    bring_up(files, out, engine="faiss")
    for path in (out / "engines").glob("*.json"):
        path.unlink()
    with Index.open(out) as index:
        assert index.search(of_bytes(b"picture 3"), top=1)[0].path == str(files / "deep" / "3.png")
        assert index.engine("image") is index.store("image")
    assert "is behind its vectors" in caplog.text
    bring_up(files, out)
    with Index.open(out) as index:
        assert index.engine("image").name == "faiss"
    check(files, out)


def test_what_lies_in_shards_is_searched_by_its_name_there(tmp_path):
    folder, out = tmp_path / "shards", tmp_path / "index"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for number in range(5):
            (tmp_path / "x").write_bytes(f"sound {number} and it goes on".encode())
            tar.add(tmp_path / "x", f"{number}.wav")
    embedder = ByBytes()
    report = bring_up(folder, out, embedder)
    assert (report.entries, report.embedded, report.failures) == (5, 5, ())
    with Index.open(out) as index:
        hit = index.search(of_bytes(b"sound 3 an"), top=1)[0]
    assert (hit.path, hit.begin_s) == (f"{folder}/a.tar!/3.wav", 0.0) and hit.score == pytest.approx(1, abs=1e-5)
    embedder.seen.clear()
    report = bring_up(folder, out, embedder)
    assert (report.unchanged, report.embedded, embedder.seen) == (5, 0, [])
    (folder / "a.tar").rename(folder / "b.tar")  # what is in a shard has no content of its own: it is embedded again
    report = bring_up(folder, out, embedder)
    assert (report.entries, report.embedded, report.removed) == (5, 5, 5)


def test_a_reader_of_an_engine_makes_no_map_of_all_ids(files, tmp_path):
    pytest.importorskip("faiss")
    bring_up(files, tmp_path / "index", engine="faiss")
    with Index.open(tmp_path / "index") as index:
        assert index.search(of_bytes(b"picture 3"), kind="image", top=1)[0].score == pytest.approx(1, abs=1e-5)
        assert index.engine("image") is not index.store("image") and index.store("image")._rows is None
