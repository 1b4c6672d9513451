"""Bulk embedding: whatever stops a run, the same call goes on, and ends in the file an undisturbed run would write."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_towers import unibrivl_config
from transformers import CLIPImageProcessorPil

from unibrivl.embedder import (
    Embedder,
    Embeddings,
    FingerprintMismatch,
    embed_files,
    load,
    read_vectors,
    sounds,
    vector_file,
)
from unibrivl.embedder import parts as parts_file
from unibrivl.embedder.bulk import Stopped
from unibrivl.embedder.inputs import find_inputs
from unibrivl.modeling import SpeechLMFeatureExtractor, SpeechLMPhoneTokenizer, UniBriVLModel, UniBriVLProcessor

pq = pytest.importorskip("pyarrow.parquet")
RATE = 16000
LEXICON = {"DOG": ["D", "AO1", "G"], "RAIN": ["R", "EY1", "N"]}


def make(seed: int = 0, **settings) -> Embedder:
    torch.manual_seed(seed)
    processor = UniBriVLProcessor(
        feature_extractor=SpeechLMFeatureExtractor(),
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        unit_tokenizer=SpeechLMPhoneTokenizer(lexicon=LEXICON),
    )
    model = UniBriVLModel(unibrivl_config("speechlm", "clip")).eval()
    return load(model, processor, **{"window_s": 0.4, "batch_size": 4, **settings})


def write_sound(path: Path, seed: int, seconds: float | None = None) -> str:
    import soundfile

    generator = np.random.default_rng(seed)
    seconds = generator.uniform(0.05, 0.9) if seconds is None else seconds
    soundfile.write(path, 0.1 * generator.standard_normal(round(seconds * RATE)), RATE)
    return str(path)


def write_picture(path: Path, seed: int) -> str:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 50, 3), np.uint8)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def ours() -> Embedder:
    return make()


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Twelve sounds, in no order."""
    (tmp_path / "s").mkdir()
    order = np.random.default_rng(0).permutation(12)
    return [write_sound(tmp_path / "s" / f"{number:02}.wav", number) for number in order]


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "vectors.parquet"


@pytest.fixture
def small_groups(monkeypatch):
    """Groups of about two sounds, a part after each."""
    monkeypatch.setattr(sounds, "FIRST_GROUP_SECONDS", 1.0)
    monkeypatch.setattr(sounds, "GROUP_SECONDS", 1.0)
    monkeypatch.setattr(parts_file, "PART_S", 0.0)


@pytest.fixture
def heard(monkeypatch) -> list[str]:
    """The names of the files that are decoded."""
    names, load_audio = [], sounds.load_audio

    def counted(source, **options):
        names.append(Path(source).name)
        return load_audio(source, **options)

    monkeypatch.setattr(sounds, "load_audio", counted)
    return names


def nothing_else_beside(out: Path, *names: str) -> bool:
    return {path.name for path in out.parent.iterdir()} - {"s"} == {out.name, *names}


def test_sounds_pictures_and_texts_in_the_order_given(ours, files, out, tmp_path):
    pictures = [write_picture(tmp_path / "s" / f"{number}.png", number) for number in range(2)]
    paths = [pictures[1], *files[:3], pictures[0]]
    report = embed_files(ours, paths, out, texts=["dog", "  ", "rain", "dog"])
    assert (report.rows, report.embedded, report.unchanged, report.failures) == (7, 7, 0, ())
    rows = pq.read_table(out)
    assert rows["id"].to_pylist() == [*paths, "dog", "rain"]
    assert rows["kind"].to_pylist() == ["image", "audio", "audio", "audio", "image", "text", "text"]
    assert rows["begin_s"].null_count == rows["end_s"].null_count == 7
    assert rows["size_bytes"].to_pylist()[:2] == [os.path.getsize(path) for path in paths[:2]]
    assert rows["mtime_ns"].to_pylist()[5] is None
    assert str(rows.schema.field("vector").type) == "fixed_size_list<element: float not null>[44]"
    wanted = {"audio": ours.encode_audio(files[:3]), "image": ours.encode_image([pictures[1], pictures[0]]),
              "text": ours.encode_text(["dog", "rain"])}  # fmt: skip
    for kind, expected in wanted.items():
        found = read_vectors(out, kind)
        assert found.ids == expected.ids
        assert found.fingerprint == ours.fingerprint
        assert found.times is None
        assert np.abs(found.vectors - expected.vectors).max() <= 1e-5
        assert np.abs(found.similarity(expected).diagonal() - 1).max() < 1e-5
    about = vector_file.read_about(out)
    assert about["settings"] == {"windows": False, "window_s": 0.4, "hop_s": 0.4, **ours.matcher.settings}
    assert about["versions"]["torch"] == torch.__version__
    assert nothing_else_beside(out)


def test_a_shard_gives_the_vectors_of_its_files(ours, files, out, tmp_path, heard):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for path in files:
            tar.add(path, Path(path).name)
        (tmp_path / "bad.wav").write_bytes(b"RIFF but no more")
        tar.add(tmp_path / "bad.wav", "bad.wav")
    report = embed_files(ours, [tmp_path / "s.tar"], out)
    assert (report.rows, report.embedded) == (12, 12)
    (failure,) = report.failures
    assert failure.id.endswith("s.tar!/bad.wav") and "unibrivl-" not in failure.error
    found, wanted = read_vectors(out), ours.encode_audio(files)
    assert [name.rpartition("/")[2] for name in found.ids] == [Path(path).name for path in files]
    assert np.abs(found.vectors - wanted.vectors).max() <= 1e-5
    heard.clear()
    report = embed_files(ours, [tmp_path / "s.tar"], out)
    assert (report.embedded, report.unchanged, len(heard)) == (0, 12, 1)  # what failed is tried again


def test_windows(ours, files, out):
    embed_files(ours, files, out, windows=True)
    wanted = ours.encode_audio(files, timestamps=True)
    found = read_vectors(out)
    assert (found.ids, found.times) == (wanted.ids, wanted.times)
    assert len(set(found.ids)) < len(found)
    assert np.abs(found.vectors - wanted.vectors).max() <= 1e-5


@pytest.mark.parametrize("calls", [0, 1, 3, 6])
def test_a_run_that_is_stopped_goes_on(calls, ours, files, out, small_groups, heard, monkeypatch, tmp_path):
    whole = tmp_path / "s" / "whole.parquet"
    embed_files(ours, files, whole)
    encode, made = ours.matcher.encode_audio, []

    def interrupted(clips):
        made.append(1)
        if len(made) > calls:
            raise KeyboardInterrupt
        return encode(clips)

    monkeypatch.setattr(ours.matcher, "encode_audio", interrupted)
    with pytest.raises(Stopped, match="the same command goes on from there|before anything") as stopped:
        embed_files(ours, files, out)
    assert not out.exists()
    kept = vector_file.scan(sorted((tmp_path / "vectors.parquet.parts").glob("*.parquet")))
    assert bool(kept) == ("goes on" in str(stopped.value))
    heard.clear()
    monkeypatch.setattr(ours.matcher, "encode_audio", encode)
    report = embed_files(ours, files, out)
    assert report.embedded == len(files) - len(kept)
    assert sorted(heard) == sorted({Path(path).name for path in files} - {Path(name).name for _, name in kept})
    assert np.abs(read_vectors(out).vectors - read_vectors(whole).vectors).max() <= 1e-5
    assert pq.read_table(out).drop_columns("vector") == pq.read_table(whole).drop_columns("vector")
    assert nothing_else_beside(out)


def test_stopped_inside_a_group_the_sounds_that_are_whole_are_kept(ours, files, out, monkeypatch):
    encode, made = ours.matcher.encode_audio, []

    def interrupted(clips):
        made.append(1)
        if len(made) > 5:
            raise KeyboardInterrupt
        return encode(clips)

    monkeypatch.setattr(ours.matcher, "encode_audio", interrupted)
    with pytest.raises(Stopped):
        embed_files(ours, files, out)
    monkeypatch.setattr(ours.matcher, "encode_audio", encode)
    assert 0 < embed_files(ours, files, out).unchanged < len(files)


def test_stopped_at_any_write_nothing_is_lost(ours, files, out, small_groups, heard, monkeypatch, tmp_path):
    """Each write in turn is interrupted, that of the output too; every call comes further than the one before."""
    replace, countdown = os.replace, [0]

    def interrupted(source, target):
        countdown[0] -= 1
        if countdown[0] < 0:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    for call in range(20):
        countdown[0] = 1 + call % 2
        try:
            embed_files(ours, files, out)
            break
        except Stopped:
            assert not out.exists()
            assert not list(tmp_path.rglob(".*.partial"))
    assert call > 2
    assert read_vectors(out).ids == tuple(files)
    assert np.abs(read_vectors(out).vectors - ours.encode_audio(files).vectors).max() <= 1e-5
    assert nothing_else_beside(out)


def test_what_a_killed_process_leaves_does_no_harm(ours, files, out, small_groups, monkeypatch, tmp_path):
    """Half-written files, and parts that were not yet removed when the output was in its place."""
    folder, kept = tmp_path / "vectors.parquet.parts", tmp_path / "s" / "kept"
    merge = vector_file.merge

    def copied(*args):
        shutil.copytree(folder, kept)
        return merge(*args)

    monkeypatch.setattr(vector_file, "merge", copied)
    embed_files(ours, files, out)
    monkeypatch.setattr(vector_file, "merge", merge)
    wanted = read_vectors(out)
    for leftovers in ("*", "part-00000[13]*"):  # all parts, and what was left of them when their removal was cut off
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in kept.glob(leftovers):
            shutil.copy(path, folder)
        for path in (folder / "scratch", folder / ".part-000001.parquet.partial", tmp_path / f".{out.name}.partial"):
            path.write_bytes(b"half")
        report = embed_files(ours, files, out)
        assert (report.embedded, report.unchanged, report.rows) == (0, len(files), len(files))
        assert np.array_equal(read_vectors(out).vectors, wanted.vectors)
        assert nothing_else_beside(out)


def test_only_what_is_new_or_changed_is_embedded(ours, files, out, heard, tmp_path):
    embed_files(ours, files[:6], out)
    before = out.stat().st_mtime_ns
    heard.clear()
    report = embed_files(ours, files[:6], out)
    assert (report.embedded, report.unchanged, report.rows, heard) == (0, 6, 6, [])
    assert out.stat().st_mtime_ns == before
    report = embed_files(ours, [files[8], *files[:6][::-1], files[7]], out)
    assert (report.embedded, report.unchanged, sorted(heard)) == (2, 6, sorted(Path(files[n]).name for n in (7, 8)))
    assert read_vectors(out).ids == (files[8], *files[:6][::-1], files[7])
    heard.clear()
    write_sound(Path(files[2]), 100, 0.3)
    report = embed_files(ours, files[1:4], out)
    assert (report.embedded, report.unchanged, report.others, heard) == (1, 2, 5, [Path(files[2]).name])
    found = read_vectors(out)
    assert found.ids == (files[8], files[5], files[4], files[0], files[7], *files[1:4])  # the others stay, in front
    assert np.abs(found.vectors - ours.encode_audio(list(found.ids)).vectors).max() <= 1e-5


def test_what_cannot_be_embedded_is_listed_and_tried_again(ours, files, out, tmp_path):
    broken, notes = tmp_path / "s" / "broken.wav", tmp_path / "s" / "notes.txt"
    picture = tmp_path / "s" / "broken.png"
    for path in (broken, notes, picture):
        path.write_bytes(b"junk")
    missing = str(tmp_path / "s" / "nowhere.wav")
    wrong = [str(path) for path in (broken, missing, notes, picture)]
    report = embed_files(ours, [files[0], *wrong, files[1]], out)
    assert (report.rows, report.embedded) == (2, 2)
    assert {failure.id for failure in report.failures} == set(wrong)
    listed = [json.loads(line) for line in report.errors_path.read_text().splitlines()]
    assert {row["id"]: row["kind"] for row in listed} == dict(zip(wrong, ["audio"] * 3 + ["image"], strict=True))
    assert all(row["error"] for row in listed)
    assert read_vectors(out).ids == (files[0], files[1])
    write_sound(broken, 5)
    report = embed_files(ours, [files[0], str(broken), files[1]], out)
    assert (report.rows, report.embedded, report.failures) == (3, 1, ())
    assert nothing_else_beside(out)
    os.remove(files[0])
    Path(files[1]).write_bytes(b"no longer a sound")
    report = embed_files(ours, [files[0], str(broken), files[1]], out)
    assert (report.rows, report.embedded, len(report.failures)) == (1, 0, 2)
    assert read_vectors(out).ids == (str(broken),)


def test_where_nothing_can_be_embedded_no_file_is_written(ours, out, tmp_path):
    report = embed_files(ours, [tmp_path / "nowhere.wav"], out)
    assert (report.rows, len(report.failures)) == (0, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"vectors.parquet.errors.jsonl"}
    with pytest.raises(ValueError, match="nothing to embed"):
        embed_files(ours, [tmp_path], out)


def test_a_text_that_the_model_refuses_does_not_stop_the_others(ours, out, monkeypatch):
    encode = ours.matcher.encode_text

    def refusing(texts, **options):
        if "fog" in texts:
            raise ValueError("no sound for fog")
        return encode(texts, **options)

    monkeypatch.setattr(ours.matcher, "encode_text", refusing)
    report = embed_files(ours, [], out, texts=["dog", "fog", "rain"])
    assert [(failure.id, failure.error) for failure in report.failures] == [("fog", "no sound for fog")]
    assert read_vectors(out).ids == ("dog", "rain")


def test_another_model_or_other_settings_are_refused(ours, files, out, small_groups, monkeypatch):
    embed_files(ours, files[:3], out)
    before = out.read_bytes()
    others = {"window_s was 0.4 and is 0.5": make(window_s=0.5), "under the same name": make(seed=1)}
    for message, other in others.items():
        with pytest.raises(ValueError, match=f"{message}.*--restart"):
            embed_files(other, files[:3], out)
    with pytest.raises(ValueError, match="windows was False and is True"):
        embed_files(ours, files[:3], out, windows=True)
    assert out.read_bytes() == before
    assert nothing_else_beside(out)
    # a restart that is stopped leaves the old file, and goes on without --restart
    other = make(seed=1)
    encode = other.matcher.encode_audio

    def interrupted(clips):
        if list(out.parent.glob("*.parts/part*")):
            raise KeyboardInterrupt
        return encode(clips)

    monkeypatch.setattr(other.matcher, "encode_audio", interrupted)
    with pytest.raises(Stopped, match="the same command without --restart"):
        embed_files(other, files[3:9], out, restart=True)
    assert out.read_bytes() == before
    with pytest.raises(ValueError, match="part-000001"):
        embed_files(ours, files[:3], out)
    monkeypatch.setattr(other.matcher, "encode_audio", encode)
    report = embed_files(other, files[3:9], out)
    assert report.unchanged > 0
    found = read_vectors(out)
    assert found.ids == tuple(files[3:9])
    with pytest.raises(FingerprintMismatch):
        found.similarity(ours.encode_text("dog"))
    assert nothing_else_beside(out)


def test_a_restart_that_comes_to_nothing_takes_nothing_away(ours, files, out, monkeypatch):
    embed_files(ours, files[:3], out)

    def interrupted(clips):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ours.matcher, "encode_audio", interrupted)
        with pytest.raises(Stopped, match="before anything"):
            embed_files(ours, files[:3], out, restart=True)
    report = embed_files(ours, files[3:4], out)
    assert (report.embedded, report.others, report.rows) == (1, 3, 4)


def test_duplicates_roots_and_names_that_are_no_unicode(ours, files, out, tmp_path):
    (tmp_path / "s" / "again").symlink_to(tmp_path / "s")
    twice = [files[0], os.path.join(tmp_path, "s", ".", Path(files[0]).name), Path(files[0]), files[1]]
    embed_files(ours, twice, out, root=tmp_path)
    assert read_vectors(out).ids == tuple(f"s/{Path(path).name}" for path in files[:2])
    if sys.platform == "linux":
        strange = os.fsencode(tmp_path) + b"/s/caf\xe9.wav"
        os.rename(files[2], strange)
        report = embed_files(ours, [strange], out, restart=True)
        assert (report.rows, report.failures) == (1, ())
        assert read_vectors(out).ids[0].endswith("caf\\udce9.wav")
        assert embed_files(ours, [strange], out).unchanged == 1


def test_what_is_found_in_folders(tmp_path):
    for name in ("b.wav", "a/x.FLAC", "a/y.png", "a/notes.txt", "film.mp4", ".hidden/z.wav", "c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*names, **options):
        inputs = find_inputs([tmp_path / name for name in names], root=tmp_path, **options)
        return [(one.id, one.kind, bool(one.error)) for one in inputs]

    sounds_only = [("b.wav", "audio", False), (os.path.join("a", "x.FLAC"), "audio", False)]
    pictures_only = [("c.jpg", "image", False), (os.path.join("a", "y.png"), "image", False)]
    assert found("") == [sounds_only[0], pictures_only[0], sounds_only[1], pictures_only[1]]
    assert found("", kind="audio") == sounds_only
    assert found("", kind="image") == pictures_only
    assert found("film.mp4", "a/notes.txt") == [("film.mp4", "audio", False),
                                                (os.path.join("a", "notes.txt"), "audio", True)]  # fmt: skip
    assert found("a/notes.txt", kind="image") == [(os.path.join("a", "notes.txt"), "image", False)]
    with pytest.raises(ValueError, match="kind must be"):
        found("", kind="smell")


def test_a_model_that_hears_nothing_says_so(ours, files, out, monkeypatch):
    monkeypatch.setattr(ours.matcher, "kinds", ("image", "text"))
    with pytest.raises(ValueError, match="embeds image and text, and .* is audio"):
        embed_files(ours, files, out)


def test_merging_holds_a_block_at_a_time(tmp_path, monkeypatch):
    """32 MB in nine files into an order of no kind: the peak is a few blocks, and the rows are right."""
    monkeypatch.setattr(vector_file, "BLOCK_ROWS", 64)
    width, count, generator = 2048, 4000, np.random.default_rng(0)
    about = {"fingerprint": "f", "settings": {}}
    names = [("audio", f"{number}.wav") for number in range(count)]
    paths = [tmp_path / f"{number}.parquet" for number in range(9)]

    def blocks(chosen):
        for start in range(0, len(chosen), 64):
            numbers = chosen[start : start + 64]
            records = np.zeros(len(numbers), vector_file.record_type(width))
            records["vector"] = numbers[:, None]
            records["begin_s"] = records["end_s"] = np.nan
            yield [names[number] for number in numbers], records

    for number, path in enumerate(paths):
        vector_file.write_rows(path, width, about, blocks(np.arange(number, count, 9)))
    state = vector_file.scan(paths)
    order = generator.permutation(count)
    tracemalloc.start()
    rows = vector_file.merge(
        paths, state, [names[n] for n in order], width, about, tmp_path / "o.parquet", tmp_path / "x"
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == count
    assert peak < 8e6
    file = pq.ParquetFile(tmp_path / "o.parquet")
    assert max(file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)) == 64
    found = read_vectors(tmp_path / "o.parquet")
    assert found.ids == tuple(f"{number}.wav" for number in order)
    assert np.array_equal(found.vectors[:, 5], order.astype(np.float32))
    assert not (tmp_path / "x").exists()


def test_two_processes_do_not_write_one_file(ours, files, out, tmp_path):
    folder = tmp_path / "vectors.parquet.parts"
    folder.mkdir()
    with parts_file.locked(folder), pytest.raises(ValueError, match="another process"):
        embed_files(ours, files[:1], out)
    assert embed_files(ours, files[:1], out).rows == 1
    assert nothing_else_beside(out)


def test_outputs_that_cannot_be_written_are_refused_at_once(ours, files, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder.parquet").mkdir()
    for name, error in (("v.npz", "does not end in .parquet"), ("folder.parquet", "is a folder"),
                        ("file/v.parquet", "file")):  # fmt: skip
        with pytest.raises((ValueError, OSError), match=error):
            embed_files(ours, files, tmp_path / name)
    assert embed_files(ours, files[:1], tmp_path / "new" / "deep" / "v.parquet").rows == 1
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(ValueError, match="cannot be written to"):
            embed_files(ours, files, tmp_path / "v.parquet")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ImportError, match=r'pip install "unibrivl\[parquet\]"'):
            embed_files(ours, files, tmp_path / "v.parquet")


def test_files_that_are_not_ours_are_refused(ours, files, out, tmp_path):
    import pyarrow

    embed_files(ours, files[:2], out, texts=["dog"])
    with pytest.raises(ValueError, match="audio and text vectors: say which with kind="):
        read_vectors(out)
    with pytest.raises(ValueError, match="holds no image vectors, but audio and text"):
        read_vectors(out, "image")
    whole = out.read_bytes()
    for content in (b"", whole[:100], whole[:-6], b"junk" * 50):
        out.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            read_vectors(out)
        with pytest.raises(ValueError, match="damaged.*--restart"):
            embed_files(ours, files[:2], out)
        assert out.read_bytes() == content
    pq.write_table(pyarrow.table({"id": ["x"]}), out)
    with pytest.raises(ValueError, match="no vectors of ours"):
        Embeddings.load(out)
    with pytest.raises(FileNotFoundError):
        read_vectors(tmp_path / "nowhere.parquet")
    assert embed_files(ours, files[:2], out, restart=True).rows == 2
    assert Embeddings.load(out).ids == tuple(files[:2])
