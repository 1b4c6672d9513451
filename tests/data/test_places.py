"""Shards, tables and URLs: what they hold is found by name and fetched byte for byte, and nothing else is touched."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from unibrivl.data import places
from unibrivl.data.places import fetched, is_url, local_file, spanned, within_reach
from unibrivl.embedder.inputs import find_inputs

SOUND, PICTURE = b"RIFF0000WAVE and so on", b"\x89PNG and so on"


def shard(path: Path, **content: bytes) -> Path:
    """Names with __ for the dot: one__wav."""
    with tarfile.open(path, "w") as tar:
        for name, some in content.items():
            about = tarfile.TarInfo(name.replace("__", "."))
            about.size = len(some)
            tar.addfile(about, io.BytesIO(some))
    return path


def table(path: Path, **columns) -> Path:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path, row_group_size=2)
    return path


@pytest.fixture
def store():
    import fsspec

    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def content_of(inputs) -> dict[str, bytes]:
    """Everything, as it can be read through the files that stand in for it."""
    found = {}
    for portion, broken in within_reach(inputs):
        assert not broken
        for one in portion:
            assert one.kind == ("image" if one.path.endswith(".png") else "audio")
            found[one.id] = Path(one.path).read_bytes()
    return found


def test_a_shard_stands_for_what_is_in_it(tmp_path, monkeypatch):
    path = shard(tmp_path / "a.tar", one__wav=SOUND, one__json=b"{}", two__png=PICTURE, three__wav=SOUND * 9)
    monkeypatch.chdir(tmp_path)
    for given, before in (("a.tar", "a.tar"), (tmp_path, str(path))):
        inputs = find_inputs([given])
        assert [one.kind for one in inputs] == ["audio", "image", "audio"]
        assert content_of(inputs) == {
            f"{before}!/one.wav": SOUND, f"{before}!/two.png": PICTURE, f"{before}!/three.wav": SOUND * 9,
        }  # fmt: skip
    assert [one.id for one in find_inputs(["a.tar"], kind="image", root=tmp_path.parent)] == [
        f"{tmp_path.name}/a.tar!/two.png"
    ]


def test_names_inside_a_shard_never_become_paths(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, of in (
            ("../../out.wav", tarfile.REGTYPE),
            ("/etc/x.wav", tarfile.REGTYPE),
            ("l.wav", tarfile.SYMTYPE),
        ):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = of, "/etc/passwd"
            about.size = len(SOUND) if of == tarfile.REGTYPE else 0
            tar.addfile(about, io.BytesIO(SOUND))
    inputs = find_inputs([path])
    assert len(inputs) == 2
    ((portion, _),) = within_reach(inputs)
    with fetched([one.source for one in inputs]) as found:
        assert {one.parent for one in found} == {found[0].parent}
        assert [one.name for one in found] == ["0.wav", "1.wav"]
    assert not any(one.exists() for one in found)


def test_rows_of_a_table(tmp_path):
    sounds = [{"bytes": SOUND + bytes([number]), "path": f"x/{number}.wav"} for number in range(5)]
    path = table(tmp_path / "a.parquet", audio=sounds, label=list("abcde"))
    assert content_of(find_inputs([path])) == {f"{path}!/{number}": SOUND + bytes([number]) for number in range(5)}
    table(path, audio=[{"bytes": PICTURE, "path": "x.png"}])  # written again, and not remembered as it was
    os.utime(path, ns=(1, 1))
    assert content_of(find_inputs([path])) == {f"{path}!/0": PICTURE}
    path = table(tmp_path / "b.parquet", raw=[SOUND, None, SOUND], image=[{"bytes": PICTURE, "path": None}] * 3)
    inputs = find_inputs([path])
    assert [one.id.removeprefix(f"{path}!/") for one in inputs] == [
        "raw/0", "raw/1", "raw/2", "image/0", "image/1", "image/2",
    ]  # fmt: skip
    assert [bool(one.error) for one in inputs] == [False, True, False, False, False, False]
    assert set(content_of([one for one in inputs if one.kind == "image"]).values()) == {PICTURE}
    assert find_inputs([tmp_path]) == []  # a table is taken if it is named: vectors are written to tables, too
    (one,) = find_inputs([table(tmp_path / "c.parquet", label=["a"])])
    assert "no column of sounds or pictures" in one.error and "label" in one.error


def test_urls(store, tmp_path):
    store.pipe({"/b/x/one.wav": SOUND, "/b/x/deep/two.png": PICTURE, "/b/x/readme.txt": b"no"})
    assert content_of(find_inputs(["memory://b/x"])) == {
        "memory:///b/x/one.wav": SOUND, "memory:///b/x/deep/two.png": PICTURE,
    }  # fmt: skip
    assert content_of(find_inputs(["memory://b/x/*.wav"])) == {"memory:///b/x/one.wav": SOUND}
    store.pipe("/b/s-00.tar", shard(tmp_path / "s.tar", one__wav=SOUND).read_bytes())
    store.pipe("/b/s-01.tar", (tmp_path / "s.tar").read_bytes())
    assert content_of(find_inputs(["memory://b/s-{00..01}.tar"])) == {
        "memory://b/s-00.tar!/one.wav": SOUND, "memory://b/s-01.tar!/one.wav": SOUND,
    }  # fmt: skip
    (before,) = find_inputs(["memory:///b/x/one.wav"])
    store.pipe("/b/x/one.wav", SOUND * 2)
    (after,) = find_inputs(["memory:///b/x/one.wav"])
    assert (before.size_bytes, after.size_bytes) == (len(SOUND), 2 * len(SOUND)) and before.mtime_ns < after.mtime_ns
    with pytest.raises(ValueError, match="holds a password"):
        find_inputs(["https://me:secret@example.org/a.wav"])
    with pytest.raises(ValueError, match=r"cannot be listed"):
        find_inputs(["memory://b/nowhere.wav"])


def test_what_is_broken_stops_nothing_else(tmp_path, store, monkeypatch):
    whole = shard(tmp_path / "a.tar", one__wav=SOUND * 100, two__wav=SOUND * 100)
    (tmp_path / "b.tar").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "c.tar").write_bytes(b"no shard at all" * 99)
    inputs = find_inputs([tmp_path])
    assert [bool(one.error) for one in inputs][:2] == [False, False]
    assert "c.tar is no plain tar file" in inputs[-1].error
    inputs = [one for one in inputs if not one.error]
    whole.write_bytes(whole.read_bytes()[:1500])  # since it was listed
    store.pipe("/one.wav", SOUND)
    inputs += find_inputs(["memory:///one.wav"])
    monkeypatch.setattr(places, "AT_ONCE", 2)
    found = list(within_reach(inputs))
    assert [str(error) for _, broken in found for _, error in broken][0].endswith("ends within one.wav")
    assert [one.id for portion, _ in found for one in portion] == [f"{tmp_path}/b.tar!/one.wav", "memory:///one.wav"]


def test_a_name_that_was_kept_finds_the_thing_again(tmp_path, store):
    store.pipe("/b/one.wav", SOUND)
    paths = [shard(tmp_path / "a.tar", one__wav=SOUND, two__png=PICTURE), "memory:///b/one.wav",
             table(tmp_path / "a.parquet", audio=[{"bytes": SOUND, "path": "x.wav"}])]  # fmt: skip
    inputs = find_inputs(paths)
    assert len(inputs) == 4
    for one in inputs:
        with local_file(one.source.place) as path:
            assert Path(path).read_bytes() == (PICTURE if one.kind == "image" else SOUND)
    with local_file(str(paths[0])) as path:
        assert path == str(paths[0])
    with pytest.raises(ValueError, match="is not there"), local_file(f"{paths[0]}!/three.wav"):
        pass


def test_spans():
    assert spanned("a-{08..11}-{1..2}.tar")[:3] == ["a-08-1.tar", "a-08-2.tar", "a-09-1.tar"]
    assert spanned("plain{x}.tar") == ["plain{x}.tar"]
    with pytest.raises(ValueError, match="names"):
        spanned("a-{0..99999999}.tar")
    assert is_url("s3://b/x") and not is_url("c:/x") and not is_url(os.fspath(Path("a/b")))
