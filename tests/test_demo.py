"""`unibrivl demo`: sounds become pictures on one page; without weights a picture, a vector and the truth."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from unibrivl.audio import Waveform
from unibrivl.audio.picture import RAMP, draw_sound, spectrogram_db
from unibrivl.cli import main
from unibrivl.cli.demo import two_bells
from unibrivl.embedded import OVERRIDE

BANKS = {"photo": {"a dog": "a photo of a dog", "rain": "a photo of rain"}, "drawing": {"a cat": "a drawing of a cat"}}


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """An installation without weights."""
    monkeypatch.delenv(OVERRIDE, raising=False)
    monkeypatch.setattr(sys.modules["unibrivl.embedded"], "HERE", tmp_path / "nothing")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """An installation with a model, a tiny one."""
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    import tiny_diffusion

    from unibrivl.cli import demo

    tiny_diffusion.pipeline(reads="native", label_banks=BANKS).save_pretrained(tmp_path / "model")
    monkeypatch.setenv(OVERRIDE, str(tmp_path / "model"))
    monkeypatch.setattr(demo, "STEPS", 1)


def test_demo_makes_a_sound_draws_and_embeds_it(bare, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "UNTRAINED" in said and "make embedded VARIANT=open" in said
    assert Image.open(tmp_path / "two_bells.png").size == (900, 480)
    vector = np.load(tmp_path / "two_bells.npy")
    assert vector.shape == (256,) and abs(np.linalg.norm(vector) - 1) < 1e-5
    assert main(["demo", "--out", str(tmp_path / "again")]) == 0
    assert np.array_equal(vector, np.load(tmp_path / "again" / "two_bells.npy"))


def test_demo_takes_a_file_of_any_rate(bare, tmp_path):
    import soundfile

    soundfile.write(tmp_path / "bells.flac", two_bells(44100).samples, 44100)
    assert main(["demo", "--audio", str(tmp_path / "bells.flac"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "bells.png").exists()


def test_demo_of_a_missing_file_is_one_line(bare, tmp_path, capsys):
    assert main(["demo", "--audio", str(tmp_path / "nothing.wav"), "--out", str(tmp_path / "out")]) == 2
    assert "nothing.wav" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_demo_with_a_model_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(OVERRIDE, str(tmp_path))
    assert main(["demo", "--out", str(tmp_path / "out")]) == 2
    assert f"{OVERRIDE} names" in capsys.readouterr().err


def test_demo_draws_a_page_of_its_own_sounds(trained, tmp_path, monkeypatch, capsys):
    from unibrivl.cli import demo_sounds

    some = tuple(one for one in demo_sounds.SOUNDS if one.name in ("rain", "seven"))
    monkeypatch.setattr(demo_sounds, "SOUNDS", some)
    assert main(["demo", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("rain ", "seven "))] == ["rain", "seven"]
    head = next(line for line in lines if line.startswith("sound"))
    assert head.split() == ["sound", "heard", "probability", "photo", "drawing", "seconds"]
    page = Image.open(tmp_path / "demo.png")
    assert page.width > page.height > 400 and len(page.getcolors(1 << 24)) > 1000


def test_demo_draws_a_file_of_yours(trained, tmp_path, capsys):
    import soundfile

    soundfile.write(tmp_path / "bells.flac", two_bells(44100).samples, 44100)
    assert main(["demo", "--audio", str(tmp_path / "bells.flac"), "--out", str(tmp_path / "out")]) == 0
    assert any(line.startswith("bells.flac ") for line in capsys.readouterr().out.splitlines())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["demo.png"]


def test_the_spectrogram_shows_a_tone_where_it_is():
    """1 kHz of 8: an eighth of the way up is the loudest row, and the picture is brightest there."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    level = spectrogram_db(tone)
    assert np.all(level.argmax(axis=0) == round(1000 / 16000 * 512))
    picture = np.asarray(draw_sound(Waveform(tone, 16000)), dtype=int)
    spectrum = picture[200:449, 100:800].sum(-1)
    height = (448 - (200 + spectrum.mean(1).argmax())) / (448 - 179)
    assert abs(height - 1 / 8) < 0.01


def test_pictures_of_odd_sounds():
    """One sample, silence, and a long sound are drawn too; silence is drawn dark."""
    for samples in (np.ones(1), np.zeros(8000), np.random.default_rng(0).standard_normal(16000 * 60)):
        picture = np.asarray(draw_sound(Waveform(samples.astype(np.float32), 16000)))
        assert picture.shape == (480, 900, 3)
        if not samples.any():
            assert (picture[300, 400] == RAMP[0].astype(int)).all()
