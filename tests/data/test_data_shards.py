"""Shards: what goes in comes out, whoever wrote them; kills leave whole ones; a stranger's tar cannot harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_datasets import picture, sound

from unibrivl import data
from unibrivl.audio import load_audio
from unibrivl.data import DatasetError, Listing, Sample
from unibrivl.data import shards as shards_module
from unibrivl.data.shards import Shards, braces, write_shards
from unibrivl.metrics.events import Event


def listing_of(folder: Path, count: int = 10) -> Listing:
    samples = [
        Sample(
            f"dog/{number}.x",
            audio=str(sound(folder / f"{number}.wav", number)),
            image=str(picture(folder / f"{number}.png", number)) if number % 2 else None,
            labels=("dog", f"of {number % 3}"),
            texts=("a dog",),
            split="train",
            fold=number % 3,
            events=(Event(0.0, 0.1, "bark"),),
        )
        for number in range(count)
    ]
    return Listing("dogs", tuple(samples))


def write_tar(path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_what_goes_in_comes_out(tmp_path):
    listing = listing_of(tmp_path)
    found = write_shards(listing, tmp_path / "out", shard_mb=0.02)
    assert len(found.paths) > 2
    assert all(os.path.getsize(path) <= 20_000 + 10_240 for path in found.paths)  # tar rounds up to 10 KiB
    assert len(found) == len(listing)
    for one, sample in zip(found, listing, strict=True):
        assert one.audio == Path(sample.audio).read_bytes()
        assert one.image == (Path(sample.image).read_bytes() if sample.image else None)
        assert one.sample == replace(sample, audio=None, image=None, events=())
        assert one.about["events"] == [[0.0, 0.1, "bark"]]
        assert load_audio(one.audio).rate_hz == 16_000
    assert found.num_skipped == 0


def test_python_tarfile_and_webdataset_names_agree(tmp_path):
    write_shards(listing_of(tmp_path, 3), tmp_path / "out", name="dogs")
    with tarfile.open(tmp_path / "out/dogs-000000.tar") as tar:
        names = tar.getnames()
        stems = [name.split(".", 1) for name in names]
        assert [suffix for _, suffix in stems] == ["wav", "json", "wav", "png", "json", "wav", "json"]
        assert len({stem for stem, _ in stems}) == 3
        assert all(member.isreg() and not member.mtime for member in tar)


def test_once_more_does_nothing_and_a_kill_leaves_whole_shards(tmp_path, monkeypatch):
    listing = listing_of(tmp_path)
    whole = write_shards(listing, tmp_path / "whole", shard_mb=0.02)
    out = tmp_path / "out"
    written = []
    write_one = shards_module.write_one

    def dies(path, samples):
        if len(written) == 2:
            path.with_name(f".{path.name}.partial").write_bytes(b"torn")
            raise KeyboardInterrupt
        written.append(path)
        write_one(path, samples)

    monkeypatch.setattr(shards_module, "write_one", dies)
    with pytest.raises(KeyboardInterrupt):
        write_shards(listing, out, shard_mb=0.02)
    with pytest.raises(DatasetError, match="Run write_shards again"):
        Shards(out)
    monkeypatch.setattr(shards_module, "write_one", write_one)
    times = {path: path.stat().st_mtime_ns for path in written}
    again = write_shards(listing, out, shard_mb=0.02)
    assert times == {path: path.stat().st_mtime_ns for path in written}
    for one, other in zip(again.paths, whole.paths, strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()
    before = {path: os.stat(path).st_mtime_ns for path in again.paths}
    assert {path: os.stat(path).st_mtime_ns for path in write_shards(listing, out, shard_mb=0.02).paths} == before

    shorter = write_shards(listing.filter(lambda sample: sample.fold), out, shard_mb=0.02)
    assert [one.sample.id for one in shorter] == [sample.id for sample in listing if sample.fold]
    assert {path.name for path in out.glob("*.tar")} == {os.path.basename(path) for path in shorter.paths}


def test_others_shards_are_read(tmp_path):
    tone = Path(sound(tmp_path / "tone.wav")).read_bytes()
    write_tar(
        tmp_path / "a-00.tar",
        [
            ("./set/one.WAV", tone),
            ("./set/one.seg.png", b"png"),
            ("./set/one.txt", b"a dog\n\nbarks\n"),
            ("./set/one.cls", b"7"),
            ("two.json", json.dumps({"id": 5, "fold": "x", "labels": "cat", "start_s": 1, "more": [1]}).encode()),
            ("two.flac", tone),
            ("two.flac", tone),
        ],
    )
    write_tar(tmp_path / "a-01.tar", [("three.mp4", b"video"), ("three.json", b"[1]")])
    found = Shards(str(tmp_path / "a-{00..01}.tar"))
    one, two, again, three = found
    assert found.keys == ["set/one", "two", "two", "three"]
    assert one.sample == Sample("set/one", texts=("a dog", "barks"), labels=("7",))
    assert one.audio == tone
    assert one.files["seg.png"] == b"png"
    assert two.sample == Sample("two", labels=("cat",), start_s=1.0)
    assert two.about["more"] == [1]
    assert again.audio == tone
    assert three.audio == three.video == b"video"
    assert [sample.sample.id for sample in Shards(tmp_path)] == [sample.sample.id for sample in found]
    assert len(Shards([tmp_path / "a-01.tar", tmp_path / "a-00.tar"])) == 4


def test_hostile_members_are_passed_over(tmp_path):
    link, device = tarfile.TarInfo("link.wav"), tarfile.TarInfo("device.wav")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    folder = tarfile.TarInfo("folder.wav")
    folder.type = tarfile.DIRTYPE
    members = [
        ("../../climb.wav", b"x"),
        ("/root.wav", b"x"),
        ("a/../../b.wav", b"x"),
        ("c\\d.wav", b"x"),
        (link, b""),
        (device, b""),
        (folder, b""),
        ("._good.wav", b"mac"),
        ("nosuffix", b"x"),
        ("big.wav", b"x" * 5000),
        ("good.wav", b"sound"),
    ]
    write_tar(tmp_path / "hostile.tar", members)
    found = Shards(tmp_path / "hostile.tar", max_bytes=1000)
    assert found.keys == ["good"]
    assert found.num_skipped == len(found.skipped) == 8
    assert "climbs out" in found.skipped[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hostile.tar.index.npz", "hostile.tar"]
    write_tar(tmp_path / "none.tar", members[:1])
    with pytest.raises(DatasetError, match="climbs out"):
        Shards(tmp_path / "none.tar")


def test_broken_shards_are_refused(tmp_path):
    write_shards(listing_of(tmp_path, 4), tmp_path / "out")
    whole = (tmp_path / "out/shard-000000.tar").read_bytes()
    middle = len(whole) // 3 // 512 * 512
    for name, content, words in (
        ("empty.tar", b"", "no whole .tar|no sample"),
        ("cut.tar", whole[: len(whole) // 3 + 100], "cut off|no whole"),
        ("garbage.tar", b"garbage" * 1000, "no whole"),
        ("torn.tar", whole[:512] + b"\xff" * 100_000, "cut off|damaged|no whole|no sample"),
        ("middle.tar", whole[:middle] + b"\x55" * 512 + whole[middle + 512 :], "damaged|$"),
    ):
        (tmp_path / name).write_bytes(content)
        try:
            found = Shards(tmp_path / name)
            assert name == "middle.tar"  # what was hit is the content of a file, which only its decoder can tell
            assert len(found) == 4
        except DatasetError as error:
            assert any(word in str(error) for word in words.split("|"))
    write_tar(tmp_path / "packed.tar.gz", [("a.wav", b"x")], "w:gz")
    with pytest.raises(DatasetError, match="decompress"):
        Shards(tmp_path / "packed.tar.gz")
    first = write_tar(tmp_path / "two.tar", [("a.wav", b"x"), ("b.wav", b"y")])
    broken = bytearray(first.read_bytes())
    broken[1024:1536] = b"\x55" * 512  # the header of the second member
    first.write_bytes(broken)
    with pytest.raises(DatasetError, match="damaged"):
        Shards(first)
    with pytest.raises(DatasetError, match="not there"):
        Shards(tmp_path / "nothing.tar")
    with pytest.raises(DatasetError, match="download"):
        Shards("https://example.org/a.tar")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DatasetError, match="holds no shard"):
        Shards(tmp_path / "bare")


def test_the_index_beside_a_shard_is_used_and_never_trusted(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", [("a.wav", b"first"), ("b.wav", b"second")])
    Shards(path)
    with monkeypatch.context() as patched:
        patched.setattr(shards_module, "walk_members", None)
        assert Shards(path)[1].audio == b"second"
    (tmp_path / ".a.tar.index.npz").write_bytes(b"PK torn")
    assert Shards(path)[0].audio == b"first"
    write_tar(path, [("c.wav", b"other, and of another length")])
    assert Shards(path).keys == ["c"]
    os.utime(path, ns=(1, 1))
    assert Shards(path).keys == ["c"]


def test_braces():
    assert list(braces("a-{08..11}.tar")) == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert list(braces("{x,y}/{0..1}")) == ["x/0", "x/1", "y/0", "y/1"]
    assert list(braces("plain.tar")) == ["plain.tar"]
    for wrong in ("{3..1}", "{a}", "{0..99999999}"):
        with pytest.raises(DatasetError):
            list(braces(wrong))


def test_the_order_is_a_shuffle_that_reads_nearly_in_order(tmp_path):
    for shard in range(8):
        write_tar(tmp_path / f"{shard}.tar", [(f"{shard}_{number}.wav", b"x") for number in range(50)])
    found = pickle.loads(pickle.dumps(Shards(tmp_path)))
    order = found.order(seed=3, epoch=1, window=40)
    assert sorted(order) == list(range(400))
    assert np.array_equal(order, found.order(seed=3, epoch=1, window=40))
    assert not np.array_equal(order, found.order(seed=3, epoch=2, window=40))
    assert not np.array_equal(order, found.order(seed=4, epoch=1, window=40))
    for start in range(0, 360):
        assert len(set(found.shard_N[order[start : start + 40]])) <= 3
    straight = found.shard_N[found.order(seed=3, window=1)]
    assert np.count_nonzero(np.diff(straight)) == 7
    with pytest.raises(IndexError):
        found[400]


def test_prepared_folders_and_odd_samples(tmp_path):
    sound(tmp_path / "mine/a.wav")
    picture(tmp_path / "mine/a.jpg")
    assert len(write_shards(data.load(tmp_path / "mine"), tmp_path / "out")) == 1
    with pytest.raises(DatasetError, match="nothing to write"):
        write_shards(Listing("none", ()), tmp_path / "none")
    twin = Sample("a", audio=str(sound(tmp_path / "b.wav")))
    with pytest.raises(DatasetError, match="twice"):
        write_shards(Listing("twins", (twin, twin)), tmp_path / "twins")
    with pytest.raises(DatasetError, match="suffix"):
        write_shards(Listing("odd", (replace(twin, image=twin.audio[:-4] + "_2.wav"),)), tmp_path / "odd")


def test_an_index_of_others_deletes_nothing_elsewhere(tmp_path):
    """What an old index names is removed before shards are written; one from a stranger may name anything."""
    precious, out = tmp_path / "precious.tar", tmp_path / "out"
    precious.write_bytes(b"mine")
    out.mkdir()
    old = {"name": "x", "samples": 1, "shards": [{"file": "../precious.tar", "samples": 1, "digest": ""}]}
    (out / "index.json").write_text(json.dumps(old))
    write_shards(listing_of(tmp_path / "clips", 3), out, progress=False)
    assert precious.read_bytes() == b"mine"


def test_a_torn_index_beside_a_shard_is_made_again(tmp_path):
    shards = write_shards(listing_of(tmp_path / "clips", 3), tmp_path / "out", progress=False)
    (beside,) = (tmp_path / "out").glob(".*.index.npz")
    beside.write_bytes(beside.read_bytes()[:200])
    assert Shards(tmp_path / "out").keys == shards.keys


def test_reading_needs_no_room_on_the_disk(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", [("a.txt", b"one")])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert len(Shards(path)) == 1


def test_a_full_disk_is_said_and_nothing_half_stays(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unibrivl.data.shards.add", full)
    with pytest.raises(OSError, match="the disk is full. Make room"):
        write_shards(listing_of(tmp_path / "clips", 3), tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").glob(".*partial"))
