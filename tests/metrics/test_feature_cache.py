"""Cached features: computed once, believed only for their ids and fingerprint, never left half written."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from unibrivl import metrics


class Compute:
    """Features that say which id they are of, and a count of the calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, ids):
        self.calls += 1
        return np.array([[float(name), self.calls] for name in ids], np.float32)


def test_features_are_computed_once(tmp_path):
    compute, path = Compute(), tmp_path / "deep" / "esc50.npz"
    first = metrics.cached_features(path, ["1", "2"], "model@3", compute)
    second = metrics.cached_features(str(path), ["1", "2"], "model@3", compute, on_mismatch="raise")
    np.testing.assert_array_equal(first, second)
    assert (compute.calls, second.dtype, second.tolist()) == (1, np.float32, [[1, 1], [2, 1]])
    assert [one.name for one in path.parent.iterdir()] == ["esc50.npz"]


@pytest.mark.parametrize(
    ("ids", "fingerprint", "words"),
    [
        (["1", "2"], "model@4", "'model@3' and not 'model@4'"),
        (["2", "1"], "model@3", "in their order"),
        (["1"], "model@3", "holds 2 ids"),
        (["1", "2", "3"], "model@3", "3 asked for"),
    ],
)
def test_another_fingerprint_or_other_ids_are_noticed(tmp_path, caplog, ids, fingerprint, words):
    compute, path = Compute(), tmp_path / "f.npz"
    metrics.cached_features(path, ["1", "2"], "model@3", compute)
    with pytest.raises(ValueError, match=words):
        metrics.cached_features(path, ids, fingerprint, compute, on_mismatch="raise")
    with caplog.at_level(logging.WARNING):
        found = metrics.cached_features(path, ids, fingerprint, compute)
    assert found[:, 0].tolist() == [float(name) for name in ids]
    assert words.split("'")[-1] in caplog.text
    metrics.cached_features(path, ids, fingerprint, compute, on_mismatch="raise")
    assert compute.calls == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"features", "half", "pickle", "other"])
def test_a_damaged_file_is_computed_anew(tmp_path, damage):
    compute, path = Compute(), tmp_path / "f.npz"
    metrics.cached_features(path, ["1", "2"], "x", compute)
    if damage == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "pickle":
        np.savez(path, features=np.array([{}, {}]), ids=np.array(["1", "2"]), fingerprint=np.array("x"))
    elif damage == "other":
        np.savez(path, a=np.zeros(2))
    else:
        path.write_bytes(damage)
    with pytest.raises(ValueError, match="is no file of features"):
        metrics.cached_features(path, ["1", "2"], "x", compute, on_mismatch="raise")
    assert metrics.cached_features(path, ["1", "2"], "x", compute).tolist() == [[1, 2], [2, 2]]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    compute, path = Compute(), tmp_path / "f.npz"
    metrics.cached_features(path, ["1"], "x", compute)

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        metrics.cached_features(path, ["2"], "x", compute)
    monkeypatch.undo()
    assert [one.name for one in tmp_path.iterdir()] == ["f.npz"]
    assert metrics.cached_features(path, ["1"], "x", compute, on_mismatch="raise").tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda path: metrics.cached_features(path, ["1", "1"], "x", Compute()), "twice"),
        (lambda path: metrics.cached_features(path, ["1"], "x", lambda ids: np.ones((2, 3))), r"\(2, 3\) for 1 ids"),
        (lambda path: metrics.cached_features(path, ["1"], "x", lambda ids: [[np.nan]]), r"features\[0, 0\] is nan"),
        (lambda path: metrics.cached_features(path, ["1"], "x", Compute(), on_mismatch="guess"), "'guess'"),
    ],
)
def test_wrong_input_is_refused(tmp_path, call, words):
    with pytest.raises(ValueError, match=words):
        call(tmp_path / "f.npz")
    assert list(tmp_path.iterdir()) == []
