"""A calibration fitted to sounds with labels, kept beside the model and used by whoever loads it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import soundfile

import unibrivl
from unibrivl.cli import main
from unibrivl.cli.demo_sounds import demo_sound
from unibrivl.embedder import NONE_OF_THESE, Calibration, calibrate

LABELS = ("dog", "rain", "rooster")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sounds in a folder for each label; a copy of the embedded model beside them."""
    root = tmp_path_factory.mktemp("calibrate")
    chance = np.random.default_rng(0)
    for label, name in (("dog", "barking dog"), ("rain", "rain"), ("rooster", "rooster")):
        sound = demo_sound(name)
        for take in range(3):
            path = root / "sounds" / label / f"{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = chance.normal(0, 0.002 * take, len(sound.samples)).astype(np.float32)
            soundfile.write(path, sound.samples + noise, sound.rate_hz)
    shutil.copytree(unibrivl.embedded(), root / "model")
    return root


class Cosines:
    """An embedder whose cosines are given."""

    def __init__(self, cosines, ids):
        self.cosines, self.ids = np.array(cosines), ids

    def encode_audio(self, paths):
        return self

    def encode_text(self, texts):
        self.texts = texts
        return self

    def similarity(self, left, right):
        return self.cosines


def test_own_labels_are_one_heap_and_all_others_another():
    ears = Cosines([[0.8, 0.1, 0.2], [0.0, 0.7, 0.3]], ["a.wav", "b.wav"])
    calibration, pairs = calibrate(ears, {"a.wav": "dog", "b.wav": "rain"} | {"c": "x"}, "the sound of {label}")
    assert ears.texts == ["the sound of dog", "the sound of rain", "the sound of x"]
    assert pairs.matched.tolist() == [0.8, 0.7] and sorted(pairs.unmatched) == [0.0, 0.1, 0.2, 0.3]
    assert 0.3 < calibration.none_logit / calibration.scale < 0.7 and pairs.error == 0
    with pytest.raises(ValueError, match="second one"):
        calibrate(ears, {"a.wav": "dog"})


def test_it_lies_beside_the_model_and_is_of_its_vectors_alone(tmp_path):
    Calibration(12.0, 3.0).save(tmp_path, "abc")
    assert Calibration.read(tmp_path, "abc") == Calibration(12.0, 3.0)
    with pytest.raises(ValueError, match="unibrivl calibrate"):
        Calibration.read(tmp_path, "other")
    (tmp_path / "calibration.json").write_text("{}")
    with pytest.raises(ValueError, match="no calibration"):
        Calibration.read(tmp_path, "abc")
    assert Calibration.read(tmp_path / "gone", "abc") is None


def test_the_command_fits_and_load_uses_it(folder, capsys):
    assert main(["calibrate", "--model", str(folder / "model"), "--data", str(folder / "sounds")]) == 0
    assert "none of these below" in capsys.readouterr().out
    assert (folder / "model" / "calibration.png").stat().st_size > 1000
    model = unibrivl.load(str(folder / "model"))
    assert model.calibration.none_logit is not None
    [answer] = model.classify(str(folder / "sounds" / "dog" / "0.wav"), LABELS)
    assert next(iter(answer)) == "dog" and NONE_OF_THESE in answer and sum(answer.values()) == pytest.approx(1)
    [strange] = model.classify(str(folder / "sounds" / "dog" / "0.wav"), ["sea waves", "rain"])
    assert next(iter(strange)) == NONE_OF_THESE
    assert main(["calibrate", "--model", "embedded", "--data", str(folder / "sounds")]) == 2
    assert "--out" in capsys.readouterr().err
