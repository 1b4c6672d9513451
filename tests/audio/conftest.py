"""Sounds made on the fly: tones, and their encodings in every container, as bytes."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
import soundfile


def make_tone(duration_s: float = 1.0, rate_hz: int = 16_000, frequency_hz: float = 440.0, level: float = 0.5):
    """A mono float32 sine."""
    times_S = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * frequency_hz * times_S)).astype(np.float32)


def encode_sound(samples, rate_hz: int, container: str = "WAV", coding: str | None = None) -> bytes:
    """The bytes of a sound file; `samples` are (S,) or (S, C). In pieces: one large OGG write breaks libsndfile."""
    buffer = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", rate_hz, channels, format=container, subtype=coding) as file:
        for start in range(0, len(samples), 8_192):
            file.write(samples[start : start + 8_192])
    return buffer.getvalue()


def change_wav_size(content: bytes, declared: int) -> bytes:
    """A WAV whose data chunk declares another size."""
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", declared) + content[at + 4 :]


def change_flac_total(content: bytes, num_frames: int) -> bytes:
    """A FLAC whose header declares another number of frames."""
    fields = int.from_bytes(content[18:26], "big")
    return content[:18] + ((fields >> 36 << 36) | num_frames).to_bytes(8, "big") + content[26:]


@pytest.fixture
def tone():
    return make_tone


@pytest.fixture
def encode():
    return encode_sound


@pytest.fixture
def wav_size():
    return change_wav_size


@pytest.fixture
def flac_total():
    return change_flac_total


@pytest.fixture
def without_av(monkeypatch):
    """As if PyAV were not installed."""
    monkeypatch.setitem(sys.modules, "av", None)


@pytest.fixture
def wav(tone, encode):
    """A second of a tone as 16-bit WAV."""
    return encode(tone(1.0), 16_000)


@pytest.fixture
def save(tmp_path):
    def save_as(name: str, content: bytes):
        file = tmp_path / name
        file.write_bytes(content)
        return file

    return save_as
