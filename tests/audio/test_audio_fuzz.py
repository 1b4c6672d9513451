"""Property: whatever the bytes, load_audio gives finite samples or an AudioError, and nothing else."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unibrivl.audio import AudioError, load_audio, read_blocks

bounded = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

# 16-bit mono at 16 kHz, declaring a second
WAV_HEADER = b"RIFF" + struct.pack(
    "<I4s4sIHHIIHH4sI", 32_036, b"WAVE", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16, b"data", 32_000
)


def make_seeds() -> dict[str, bytes]:
    samples = (0.5 * np.sin(np.arange(2_000) * 0.1)).astype(np.float32)
    seeds = {}
    for container in ("WAV", "AIFF", "AU", "CAF", "W64", "RF64", "FLAC", "OGG", "MP3"):
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, 16_000, format=container)
        seeds[container] = buffer.getvalue()
    return seeds


SEEDS = make_seeds()


def hear(content: bytes) -> None:
    try:
        waveform = load_audio(content)
    except AudioError as error:
        assert str(error)
        with pytest.raises(AudioError):
            list(read_blocks(content, 0.1, max_duration_s=3_600))
        return
    assert np.isfinite(waveform.samples).all() and waveform.samples.size
    blocks = [block.samples for block in read_blocks(content, 0.1)]
    np.testing.assert_array_equal(np.concatenate(blocks), waveform.samples)


@bounded
@given(st.binary(max_size=2_000))
def test_random_bytes(content):
    hear(content)


@bounded
@given(st.binary(max_size=2_000))
def test_random_bytes_behind_a_wav_header(content):
    hear(WAV_HEADER + content)


@bounded
@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6),
    st.integers(0, 3_000) | st.none(),
)
def test_mutated_files(container, changes, length):
    content = bytearray(SEEDS[container][:length])
    for at, value in changes:
        if at < len(content):
            content[at] = value
    hear(bytes(content))


@bounded
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=200),
    st.sampled_from([8_000, 16_000, 44_100]),
    st.sampled_from(["float32", "float64"]),
)
def test_any_floats(values, rate_hz, kind):
    try:
        waveform = load_audio(np.array(values, kind), source_rate_hz=rate_hz, rate_hz=16_000)
        assert np.isfinite(waveform.samples).all()
    except AudioError:
        assert not np.isfinite(values).all() or np.abs(values).max() > 2**31
