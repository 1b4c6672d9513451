"""Mean and spread of log-mel frames over a folder: against numpy on all frames at once, and from the command line."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import soundfile

from unibrivl import load_audio
from unibrivl.audio import AudioError
from unibrivl.cli import main
from unibrivl.modeling import CAVMAEFeatureExtractor
from unibrivl.training import frame_statistics as measured
from unibrivl.training.frame_statistics import frame_statistics


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips of several lengths, rates and channels, a loud one and a quiet one, and one below 25 ms."""
    root, chance = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for name, rate_hz, seconds, channels, gain in (
        ("long.wav", 16000, 3.3, 1, 0.3),
        ("stereo.flac", 44100, 0.7, 2, 0.01),
        ("quiet.wav", 8000, 0.4, 1, 1e-4),
        ("click.wav", 16000, 0.02, 1, 0.5),
    ):
        noise = gain * chance.standard_normal((round(seconds * rate_hz), channels))
        soundfile.write(root / name, noise.clip(-1, 1), rate_hz, subtype="PCM_16")
    return root


@pytest.mark.parametrize("fields", [{}, {"window": "povey", "scale": 32768.0}, {"num_mel_bins": 32}])
def test_they_are_numpys_over_all_frames_at_once(folder, fields, monkeypatch):
    monkeypatch.setattr(measured, "BLOCK", 100)  # so that the long one is measured in parts
    paths, seen = sorted(map(str, folder.iterdir())), []
    extractor = CAVMAEFeatureExtractor(**fields)
    clips = [load_audio(path, rate_hz=16000).samples for path in paths]
    frames_TM = np.concatenate([extractor.log_mel(clip).numpy() for clip in clips if len(clip) >= 400])

    def progress(items, number):
        assert number == len(paths)
        for one in items:
            seen.append(one)
            yield one

    found = frame_statistics(paths, progress=progress, **fields)
    assert seen == paths and (found.sounds, found.frames) == (4, len(frames_TM))
    assert found.mean == pytest.approx(frames_TM.mean(dtype=np.float64), rel=1e-6)
    assert found.std == pytest.approx(frames_TM.std(dtype=np.float64), rel=1e-6)
    again = frame_statistics(paths[::-1], **fields)
    assert (again.mean, again.std) == pytest.approx((found.mean, found.std), rel=1e-12)


def test_what_was_measured_normalises(folder):
    paths = [str(folder / "long.wav")]
    found = frame_statistics(paths)
    extractor = CAVMAEFeatureExtractor(mean=found.mean, std=found.std, pad_to_multiple_of=1)
    frames = extractor(load_audio(paths[0], rate_hz=16000), padding=False)["input_values"][0]
    assert abs(frames.mean()) < 1e-4 and abs(frames.std() - 1) < 1e-4


def test_nothing_to_measure(folder):
    with pytest.raises(ValueError, match="no frame of 25 ms in 1 sounds"):
        frame_statistics([str(folder / "click.wav")])


def test_doctor_tells_them_of_what_can_be_heard(folder, tmp_path, capsys):
    names = [shutil.copy(one, tmp_path) for one in folder.iterdir()]
    (tmp_path / "broken.wav").write_bytes(b"RIFF of nothing")
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(AudioError):
        frame_statistics([str(tmp_path / "nan.wav")])
    assert main(["doctor", str(tmp_path), "--frames"]) == 1
    told = capsys.readouterr().out
    found = frame_statistics(names)
    line = next(line for line in told.splitlines() if line.startswith("frames:"))
    assert f"mean {found.mean:.4f}, std {found.std:.4f}" in line and f"of {found.frames} frames" in line
    main(["doctor", str(tmp_path), "--frames", "--json"])
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["frames"] == pytest.approx(dataclasses.asdict(found), rel=1e-12)
    main(["doctor", str(tmp_path), "--json"])
    assert "frames" not in json.loads(capsys.readouterr().out)["summary"]
