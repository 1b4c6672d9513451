"""A part of a sound is the piece of the whole, whether a file is entered in the middle or read from its beginning."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unibrivl.audio import AudioError, decode, duration_s, load_audio, load_part

SECONDS = 3.0


def write(path: Path, rate_hz: int = 44_100, channels: int = 1, subtype: str | None = None) -> Path:
    samples = 0.3 * np.random.default_rng(0).standard_normal((int(SECONDS * rate_hz), channels))
    soundfile.write(path, samples.clip(-1, 1), rate_hz, subtype=subtype)
    return path


@pytest.mark.parametrize(
    ("name", "rate_hz", "channels", "subtype", "enters"),
    [
        ("a.flac", 44_100, 1, None, True),
        ("a.flac", 48_000, 2, "PCM_24", True),
        ("a.wav", 22_050, 2, "PCM_16", True),
        ("a.wav", 16_000, 1, "FLOAT", True),
        ("a.wav", 16_000, 1, "IMA_ADPCM", False),
        ("a.aiff", 8_000, 3, None, True),
        ("a.ogg", 48_000, 2, None, False),
        ("a.mp3", 44_100, 1, None, False),
    ],
)
def test_a_part_is_a_piece_of_the_whole(tmp_path, monkeypatch, name, rate_hz, channels, subtype, enters):
    path = write(tmp_path / name, rate_hz, channels, subtype)
    jumps = []
    jump = decode.FileSound.jump
    monkeypatch.setattr(decode.FileSound, "jump", lambda sound, frame: jumps.append(jump(sound, frame)) or jumps[-1])
    for rate_out in (None, 16_000, 48_000):
        whole = load_audio(path, rate_hz=rate_out)
        rate = whole.rate_hz
        for start_s, end_s in ((0, 1), (1.2345, 1.8), (2.9, None), (1.5, 9), (0.01, 0.0101), (1, None)):
            part = load_part(path, start_s, end_s, rate_hz=rate_out)
            expected = whole.samples[round(start_s * rate) : None if end_s is None else round(end_s * rate)]
            assert part.rate_hz == rate
            assert abs(len(part.samples) - len(expected)) <= (0 if end_s in (1, 1.8) else 1)
            size = min(len(part.samples), len(expected))
            tolerance = 0 if rate == rate_hz else 2e-6
            assert np.abs(part.samples[:size] - expected[:size]).max(initial=0) <= tolerance
    assert any(jumps) is enters
    assert duration_s(path) == pytest.approx(len(load_audio(path).samples) / rate_hz, abs=1e-9)


def test_bytes_arrays_and_channels(tmp_path):
    content = write(tmp_path / "a.flac", 16_000, 2).read_bytes()
    whole = load_audio(content, channel=1)
    for source in (content, io.BytesIO(content)):
        assert np.array_equal(load_part(source, 1, 2, channel=1).samples, whole.samples[16_000:32_000])
    array = np.arange(8000, dtype=np.float32) / 8000
    assert np.array_equal(load_part(array, 0.1, 0.2, source_rate_hz=8000).samples, array[800:1600])


def test_only_the_part_is_decoded(tmp_path):
    path = write(tmp_path / "a.flac")
    whole = bytearray(path.read_bytes())
    place = len(whole) // 2
    whole[place : place + 2000] = b"\x00" * 2000  # what is broken in the middle is not met before or behind
    path.write_bytes(whole)
    good = load_audio(write(tmp_path / "b.flac"))
    for start_s, end_s in ((0.1, 0.9), (2.2, 2.9)):
        part = load_part(path, start_s, end_s)
        assert np.array_equal(part.samples, good.samples[round(start_s * 44_100) : round(end_s * 44_100)])
        assert not part.damage


def test_what_cannot_be_given(tmp_path):
    path = write(tmp_path / "a.flac")
    for start_s, end_s in ((-1, 1), (1, 1), (2, 1), (float("nan"), 1), (0, float("inf"))):
        with pytest.raises(AudioError, match="later one"):
            load_part(path, start_s, end_s)
    for start_s in (3.0, 30.0):
        with pytest.raises(AudioError, match="ends before"):
            load_part(path, start_s, 40)
    with pytest.raises(AudioError, match="max_bytes"):
        load_part(path, 0, 2, max_bytes=1000)
    path.write_bytes(path.read_bytes()[:100_000])  # its header still says three seconds
    whole = load_audio(path)
    assert whole.damage
    part = load_part(path, 0.2, 0.5)
    assert np.array_equal(part.samples, whole.samples[round(0.2 * 44_100) : round(0.5 * 44_100)])
    with pytest.raises(AudioError, match="ends before"):
        load_part(path, 2.5, 2.9)
