"""`unibrivl demo`: a sound in, its picture and its vector out, and the truth about the model."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unibrivl.audio import Waveform
from unibrivl.audio.picture import RAMP, draw_sound, spectrogram_db
from unibrivl.cli import main
from unibrivl.cli.demo import two_bells


def test_demo_makes_a_sound_draws_and_embeds_it(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert "UNTRAINED" in capsys.readouterr().out
    assert Image.open(tmp_path / "two_bells.png").size == (900, 480)
    vector = np.load(tmp_path / "two_bells.npy")
    assert vector.shape == (256,) and abs(np.linalg.norm(vector) - 1) < 1e-5
    assert main(["demo", "--out", str(tmp_path / "again")]) == 0
    assert np.array_equal(vector, np.load(tmp_path / "again" / "two_bells.npy"))


def test_demo_takes_a_file_of_any_rate(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "bells.flac", two_bells(44100).samples, 44100)
    assert main(["demo", str(tmp_path / "bells.flac"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "bells.png").exists()


def test_demo_of_a_missing_file_is_one_line(tmp_path, capsys):
    assert main(["demo", str(tmp_path / "nothing.wav"), "--out", str(tmp_path / "out")]) == 2
    assert "nothing.wav" in capsys.readouterr().err and not (tmp_path / "out").exists()


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
