"""Embeddings: rows keep their ids, files come back as they were, and what is damaged or foreign is refused."""

from __future__ import annotations

import numpy as np
import pytest

from unibrivl.embedder import Embeddings, Failure, FingerprintMismatch


def some(number: int = 4, fingerprint: str = "f" * 64, **fields) -> Embeddings:
    vectors = np.random.default_rng(0).standard_normal((number, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    given = {
        "ids": tuple(f"{row}.wav" for row in range(number)),
        "kind": "audio",
        "fingerprint": fingerprint,
        **fields,
    }
    return Embeddings(vectors, **given)


def test_rows():
    rows = some(times=((0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 3.5)))
    assert rows[1].ids == ("1.wav",)
    assert rows[-1].times == ((3.0, 3.5),)
    assert rows[1:3].ids == ("1.wav", "2.wav")
    assert rows[[3, 0]].ids == ("3.wav", "0.wav")
    assert rows[np.array([True, False, False, True])].ids == ("0.wav", "3.wav")
    assert np.array_equal(rows["2.wav"].vectors, rows.vectors[2:3])
    assert len(rows[[]]) == 0
    with pytest.raises(KeyError):
        rows["nobody"]
    with pytest.raises(IndexError):
        rows[4]
    assert [name for name, _ in rows] == list(rows.ids)
    assert np.asarray(rows).shape == (4, 5)


def test_similarity_is_the_cosine():
    rows = some()
    assert np.allclose(np.diag(rows.similarity(rows)), 1, atol=1e-6)
    with pytest.raises(FingerprintMismatch, match="cannot be compared"):
        rows.similarity(some(fingerprint="e" * 64))


def test_join():
    rows = some(failures=(Failure("x", "broken"),))
    both = Embeddings.join([rows[:1], rows[1:], some()])
    assert both.ids == rows.ids * 2
    assert np.array_equal(both.vectors[:4], rows.vectors)
    with pytest.raises(FingerprintMismatch):
        Embeddings.join([rows, some(fingerprint="e" * 64)])
    with pytest.raises(ValueError, match="cannot be joined"):
        Embeddings.join([rows, some(kind="image")])
    with pytest.raises(ValueError, match="nothing to join"):
        Embeddings.join([])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="3 ids for 4"):
        some(ids=("a", "b", "c"))
    with pytest.raises(ValueError, match="kind must be"):
        some(kind="smell")
    with pytest.raises(ValueError, match="float32"):
        Embeddings(np.zeros((1, 2)), ("a",), "audio", "f")


def test_save_and_load(tmp_path):
    rows = some(times=((0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 3.5)), failures=(Failure("x", "broken"),))
    rows.save(tmp_path / "a.safetensors")
    again = Embeddings.load(tmp_path / "a.safetensors")
    assert np.array_equal(again.vectors, rows.vectors)
    for name in ("ids", "kind", "fingerprint", "times", "failures"):
        assert getattr(again, name) == getattr(rows, name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_an_interrupted_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    some().save(path)
    before = path.read_bytes()

    def interrupted(tensors, partial, metadata):
        partial.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.numpy.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        some(5).save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a.safetensors"]


def test_damaged_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "a.safetensors"
    some().save(path)
    whole = path.read_bytes()
    for content in (b"", whole[:40], whole[:-8], b"junk" * 20):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            Embeddings.load(path)
    for metadata in (None, {"unibrivl": "["}, {"unibrivl": "[]"}, {"unibrivl": "{}"}):
        save_file({"vectors": np.zeros((1, 2), np.float32)}, path, metadata=metadata)
        with pytest.raises(ValueError, match="damaged"):
            Embeddings.load(path)
    with pytest.raises(FileNotFoundError):
        Embeddings.load(tmp_path / "nowhere.safetensors")
