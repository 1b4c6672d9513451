"""Every second is heard: windows cover all samples, and streams give exactly what the whole file gives."""

from __future__ import annotations

import numpy as np
import pytest

from unibrivl.audio import AudioError, Waveform, load_audio, read_blocks, read_windows, split_windows

RATE_HZ = 16_000


def make_waveform(num_samples: int, rate_hz: int = RATE_HZ) -> Waveform:
    return Waveform(np.random.default_rng(0).uniform(-0.5, 0.5, num_samples).astype(np.float32), rate_hz)


@pytest.mark.parametrize(
    ("num_samples", "window_s", "hop_s", "spans"),
    [
        (16_000, 1.0, None, [(0, 1)]),
        (32_000, 1.0, None, [(0, 1), (1, 2)]),
        (40_000, 1.0, None, [(0, 1), (1, 2), (2, 2.5)]),  # the rest is a window of its own
        (32_001, 1.0, None, [(0, 1), (1, 2), (2, 2 + 1 / 16_000)]),  # even a single sample
        (32_000, 1.0, 0.5, [(0, 1), (0.5, 1.5), (1, 2)]),
        (28_000, 1.0, 0.5, [(0, 1), (0.5, 1.5), (1, 1.75)]),
        (24_000, 1.0, 0.5, [(0, 1), (0.5, 1.5)]),  # the end is reached: no third window inside the second
        (8_000, 1.0, 0.5, [(0, 0.5)]),  # shorter than a window: all of it
        (1, 1.0, None, [(0, 1 / 16_000)]),
    ],
)
def test_the_rule_for_the_tail(num_samples, window_s, hop_s, spans):
    windows = split_windows(make_waveform(num_samples), window_s, hop_s)
    assert [(window.start_s, window.end_s) for window in windows] == spans


@pytest.mark.parametrize("num_samples", [1, 99, 16_000, 16_001, 47_999, 50_000])
@pytest.mark.parametrize(("window_s", "hop_s"), [(1.0, None), (1.0, 0.3), (0.37, 0.37), (0.01, 0.00701)])
def test_every_sample_is_covered_and_nothing_is_random(num_samples, window_s, hop_s):
    waveform = make_waveform(num_samples)
    covered = np.zeros(num_samples, int)
    windows = split_windows(waveform, window_s, hop_s)
    for window in windows:
        assert np.shares_memory(window.samples, waveform.samples)
        np.testing.assert_array_equal(
            window.samples, waveform.samples[window.start : window.start + len(window.samples)]
        )
        covered[window.start : window.start + len(window.samples)] += 1
    assert covered.all()
    again = split_windows(waveform, window_s, hop_s)
    assert [(w.start, len(w.samples)) for w in windows] == [(w.start, len(w.samples)) for w in again]
    if hop_s is None:
        assert all(a.end_s == b.start_s for a, b in zip(windows, windows[1:], strict=False))


@pytest.mark.parametrize(
    ("window_s", "hop_s"),
    [(0, None), (-1, None), (float("nan"), None), (float("inf"), None), ("1", None), (1, 0), (1, 2)],
)
def test_impossible_windows(window_s, hop_s):
    with pytest.raises(AudioError, match="window_s|hop_s"):
        split_windows(make_waveform(100), window_s, hop_s)
    with pytest.raises(AudioError, match="window_s|hop_s"):
        read_windows("never opened.wav", window_s, hop_s)


def test_a_file_name_is_not_a_waveform():
    with pytest.raises(AudioError, match="call load_audio first"):
        split_windows("a.wav", 1.0)


@pytest.mark.parametrize(
    ("container", "coding"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None)]
)
@pytest.mark.parametrize("rate_hz", [None, 16_000, 48_000])
@pytest.mark.parametrize("block_s", [0.05, 1.0, 1000.0])
def test_blocks_one_after_the_other_are_the_whole_file(tmp_path, encode, container, coding, rate_hz, block_s):
    frames = np.random.default_rng(1).uniform(-0.5, 0.5, (150_001, 2)).astype(np.float32)
    file = tmp_path / "noise"
    file.write_bytes(encode(frames, 44_100, container, coding))
    whole = load_audio(file, rate_hz=rate_hz)
    blocks = list(read_blocks(file, block_s, rate_hz=rate_hz))
    np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), whole.samples)
    size = round(block_s * whole.rate_hz)
    assert [len(block.samples) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert [block.start for block in blocks] == [k * size for k in range(len(blocks))]


@pytest.mark.parametrize("num_samples", [1, 7_999, 8_000, 8_001, 100_000])
@pytest.mark.parametrize(("window_s", "hop_s"), [(0.5, None), (0.5, 0.25), (0.5, 0.07), (0.3, 0.3), (20.0, 1.0)])
@pytest.mark.parametrize("rate_hz", [None, 22_050])
def test_streamed_windows_equal_split_windows(num_samples, window_s, hop_s, rate_hz):
    waveform = make_waveform(num_samples)
    expected = split_windows(load_audio(waveform, rate_hz=rate_hz), window_s, hop_s)
    streamed = list(read_windows(waveform, window_s, hop_s, rate_hz=rate_hz))
    assert [(w.start_s, w.end_s, w.rate_hz) for w in streamed] == [(w.start_s, w.end_s, w.rate_hz) for w in expected]
    for ours, theirs in zip(streamed, expected, strict=True):
        np.testing.assert_array_equal(ours.samples, theirs.samples)


def test_blocks_of_arrays_bytes_and_file_objects(tmp_path, tone, encode):
    samples = tone(1.0)
    content = encode(samples, RATE_HZ, "WAV", "FLOAT")
    (tmp_path / "a.wav").write_bytes(content)
    with (tmp_path / "a.wav").open("rb") as file:
        for source in (content, file):
            np.testing.assert_array_equal(np.concatenate([b.samples for b in read_blocks(source, 0.3)]), samples)
    blocks = read_blocks(samples, 0.3, source_rate_hz=RATE_HZ)
    np.testing.assert_array_equal(np.concatenate([b.samples for b in blocks]), samples)


def test_the_windows_of_a_stream_are_the_callers_to_keep(tone):
    first, second = list(read_windows(tone(1.0), 0.75, 0.25, source_rate_hz=RATE_HZ))
    assert not np.shares_memory(first.samples, second.samples)


def test_a_stream_that_is_given_up_closes_its_file(tmp_path, tone, encode):
    file = tmp_path / "a.wav"
    file.write_bytes(encode(tone(2.0), RATE_HZ))
    blocks = read_blocks(file, 0.1)
    next(blocks)
    blocks.close()
    with pytest.raises(StopIteration):
        next(blocks)


def test_cancelling_channels_raise_at_the_end_of_a_stream(tone):
    mirror = np.stack([tone(1.0), -tone(1.0)])
    with pytest.raises(AudioError, match="Pass channel=0"):
        list(read_blocks(mirror, 0.1, source_rate_hz=RATE_HZ))


def test_damage_travels_on_the_last_window(tmp_path, tone, encode):
    file = tmp_path / "cut.wav"
    file.write_bytes(encode(tone(2.0), RATE_HZ)[:40_000])
    waveform = load_audio(file)
    assert "cut off" in waveform.damage
    for windows in (split_windows(waveform, 0.5), list(read_windows(file, 0.5))):
        assert len(windows) > 1
        assert [bool(window.damage) for window in windows] == [False] * (len(windows) - 1) + [True]
