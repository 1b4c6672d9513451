"""Hostile sounds: each is read rightly, read as far as it goes and said to be damaged, or refused in our own words.

Never NaN, never a foreign library's exception, never memory by a header's claim (see test_audio_memory.py).
"""

from __future__ import annotations

import io
import logging
import struct
import sys

import numpy as np
import pytest

from unibrivl.audio import AudioError, load_audio, read_blocks

RATE_HZ = 16_000


def refused(source, match: str, **arguments) -> str:
    """The message of the AudioError that loading `source` raises, after checking that streaming raises it too."""
    with pytest.raises(AudioError, match=match) as whole:
        load_audio(source, **arguments)
    if not hasattr(source, "read"):
        with pytest.raises(AudioError, match=match):
            list(read_blocks(source, 0.1, **arguments))
    return str(whole.value)


def test_an_empty_file(save):
    assert refused(save("a.wav", b""), "is empty").endswith("a.wav: it is empty (0 bytes)")


def test_empty_bytes():
    refused(b"", "is empty")
    refused(io.BytesIO(), "is empty")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"hello world, this is a text\n" * 100, "text"),
        (b"<!DOCTYPE html><html><body>404", "a web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + bytes(500), "a JPEG picture"),
        (b"RIFF\x00\x01\x00\x00WEBPVP8 " + bytes(500), "a WebP picture"),
        (b"PK\x03\x04" + bytes(500), "a ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
@pytest.mark.parametrize("with_av", [True, False])
def test_something_else_renamed_to_wav(save, monkeypatch, content, what, with_av):
    if not with_av:
        monkeypatch.setitem(sys.modules, "av", None)
    refused(save("a.wav", content), f"it is not a sound but .*{what}")


def test_random_bytes(save):
    refused(save("a.wav", np.random.default_rng(0).bytes(5_000)), "a.wav: it cannot be decoded")


def test_a_header_only_wav(save, wav, wav_size):
    refused(save("a.wav", wav_size(wav[:44], 0)), "it holds no samples")
    refused(save("a.wav", wav[:44]), "it holds no samples")


def test_a_wav_without_data(save, wav):
    refused(save("a.wav", wav[:36]), "cannot be decoded")


@pytest.mark.parametrize(
    ("container", "coding"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("RF64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("FLAC", "PCM_16")]
    + [("OGG", "VORBIS"), ("MP3", None)],
)
def test_a_truncated_file_is_read_as_far_as_it_goes_and_says_so(save, caplog, tone, encode, container, coding):
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * RATE_HZ).astype(np.float32)
    content = encode(noise, RATE_HZ, container, coding)
    whole = load_audio(content)
    assert not whole.damage
    with caplog.at_level(logging.WARNING, logger="unibrivl.audio"):
        cut = load_audio(save("a.bin", content[: len(content) // 2]))
    assert cut.damage and "a.bin: " + cut.damage in caplog.text
    assert 4.0 < cut.duration_s <= 5.1
    steady = len(cut.samples) - 4_000  # a lossy decoder may guess the end
    np.testing.assert_allclose(cut.samples[:steady], whole.samples[:steady], atol=1e-6)


def test_a_flac_broken_in_the_middle_keeps_its_beginning(tone, encode):
    noise = np.random.default_rng(0).normal(0, 0.1, 20 * RATE_HZ).astype(np.float32)
    content = bytearray(encode(noise, RATE_HZ, "FLAC", "PCM_16"))
    at = len(content) // 2
    content[at : at + 300] = bytes(byte ^ 0x5A for byte in content[at : at + 300])
    waveform = load_audio(bytes(content))
    assert "broke off" in waveform.damage
    assert 9.0 < waveform.duration_s < 12.0
    np.testing.assert_allclose(waveform.samples[:140_000], noise[:140_000], atol=1e-4)


def test_a_file_cut_inside_its_header(save, tone, encode):
    for container in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF"):
        content = encode(tone(1.0), RATE_HZ, container)
        for length in (1, 4, 12, 30):
            refused(
                save(f"a.{container}", content[:length]), "cannot be decoded|holds no samples|not a sound but text"
            )


@pytest.mark.parametrize("declared", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_of_unknown_size_is_read_to_its_end(wav, wav_size, declared):
    waveform = load_audio(wav_size(wav, declared))
    assert (waveform.duration_s, waveform.damage) == (1.0, "")


def test_a_wav_whose_size_was_never_filled_in(save, wav, wav_size):
    for source in (wav_size(wav, 0), save("a.wav", wav_size(wav, 0))):
        waveform = load_audio(source)
        np.testing.assert_array_equal(waveform.samples, load_audio(wav).samples)
        assert "never finished" in waveform.damage


@pytest.mark.parametrize(("coding", "num_bytes"), [("PCM_16", 32_000), ("DOUBLE", 128_000)])
@pytest.mark.parametrize("declared", [1_000_000, 1_500_000_000])  # the second is 3.3 hours of float64
def test_a_wav_that_declares_too_much(tone, encode, wav_size, coding, num_bytes, declared):
    waveform = load_audio(wav_size(encode(tone(1.0), RATE_HZ, "WAV", coding), declared))
    assert waveform.duration_s == 1.0
    assert f"declares {declared} bytes of sound and {num_bytes} are there" in waveform.damage


def test_a_wav_that_declares_too_little_is_believed_and_says_so(wav, wav_size):
    waveform = load_audio(wav_size(wav, 1_000))
    assert len(waveform.samples) == 500
    assert "31000 bytes follow the sound its header declares" in waveform.damage


def test_chunks_and_tags_after_the_sound_are_no_damage(wav):
    chunk = b"LIST" + struct.pack("<I", 200) + bytes(200)
    for tail in (chunk, b"ID3\x04" + bytes(300), b"TAG" + bytes(125), bytes(4_096)):
        waveform = load_audio(wav + tail)
        assert (waveform.duration_s, waveform.damage) == (1.0, "")
    before = wav[:36] + chunk + wav[36:]
    assert load_audio(before).duration_s == 1.0


def test_a_small_flac_that_claims_to_last_days(tone, encode, flac_total):
    content = encode(tone(1.0), RATE_HZ, "FLAC")
    refused(flac_total(content, 2**36 - 1), "says it lasts 4294967 s .*Raise max_duration_s", max_duration_s=3_600)
    waveform = load_audio(flac_total(content, 2**36 - 1), max_duration_s=float("inf"))
    assert waveform.duration_s == 1.0 and "cut off" in waveform.damage


def test_a_flac_that_does_not_say_how_long_it_is(tone, encode, flac_total):
    waveform = load_audio(flac_total(encode(tone(1.0), RATE_HZ, "FLAC"), 0))
    assert (waveform.duration_s, waveform.damage) == (1.0, "")


@pytest.mark.parametrize("rate_hz", [0, 1, 100, 2**31 - 1, 4_000_000_000])
def test_absurd_rates_in_the_header(save, wav, rate_hz):
    refused(save("a.wav", wav[:24] + struct.pack("<I", rate_hz) + wav[28:]), "a.wav: .*(rate in its header|decoded)")


@pytest.mark.parametrize("channels", [0, 1_025, 65_535])
def test_absurd_channel_counts_in_the_header(wav, channels):
    refused(wav[:22] + struct.pack("<H", channels) + wav[24:], "cannot be decoded")


def test_a_thousand_channels(wav):
    assert len(load_audio(wav[:22] + struct.pack("<H", 1_000) + wav[24:], channel=999).samples) == 16


@pytest.mark.parametrize("loud_first", [True, False])
def test_an_mp3_that_does_not_count_its_frames_is_heard_to_its_end(save, encode, loud_first):
    """libsndfile guesses the length from the first frames: of loud-then-quiet it would hear a part."""
    loud = np.random.default_rng(0).normal(0, 0.3, 5 * 44_100)
    quiet = 0.01 * np.sin(np.arange(25 * 44_100) * 0.01)
    samples = np.concatenate([loud, quiet] if loud_first else [quiet, loud]).astype(np.float32)
    content = encode(samples, 44_100, "MP3")
    assert b"Xing" in content[:64]
    uncounted = content[content.index(content[:2], 4) :]  # the first frame holds the count and no sound
    for source in (uncounted, save("a.mp3", uncounted), save("tag.mp3", uncounted + b"TAG" + bytes(125))):
        waveform = load_audio(source)
        assert abs(waveform.duration_s - 30.0) < 0.2 and not waveform.damage
    assert load_audio(uncounted[: len(uncounted) * 3 // 4]).duration_s > 5.0
    twice = load_audio(uncounted + uncounted)  # glued together, and heard whole without PyAV
    assert abs(twice.duration_s - 60.0) < 0.4


def test_two_files_glued_together_are_both_heard_or_it_is_said(monkeypatch, tone, encode):
    pytest.importorskip("av")
    first, second = (encode(tone(3.0, 44_100, f), 44_100, "MP3") for f in (300.0, 500.0))
    once_s = load_audio(first).duration_s
    assert load_audio(first + second).duration_s > 1.9 * once_s
    monkeypatch.setitem(sys.modules, "av", None)
    alone = load_audio(first + second)
    assert alone.duration_s == once_s and "may be sound too" in alone.damage


def test_two_oggs_one_after_the_other_are_both_heard_or_it_is_said(monkeypatch, tone, encode):
    pytest.importorskip("av")
    content = encode(tone(2.0), RATE_HZ, "OGG") + encode(tone(3.0, frequency_hz=500.0), RATE_HZ, "OGG")
    assert abs(load_audio(content).duration_s - 5.0) < 0.1
    monkeypatch.setitem(sys.modules, "av", None)
    alone = load_audio(content)
    assert abs(alone.duration_s - 2.0) < 0.1 and "only the first is heard" in alone.damage


def test_a_sound_longer_than_the_limit_names_the_argument(wav):
    refused(wav, "says it lasts 1 s .*max_duration_s is 0.5. Raise max_duration_s", max_duration_s=0.5)
    assert load_audio(wav, max_duration_s=1.0).duration_s == 1.0


def test_a_flac_bomb_stops_at_the_limit(tone, encode, flac_total):
    bomb = flac_total(encode(np.zeros(20_000_000, np.float32), 1_000, "FLAC"), 0)
    assert len(bomb) < 200_000  # 5.5 hours
    refused(bomb, "lasts more than 3600 s, .*Raise max_duration_s", max_duration_s=3_600)


def test_more_decoded_samples_than_allowed_name_the_argument(wav):
    with pytest.raises(AudioError, match="more than max_bytes=10000. Raise max_bytes"):
        load_audio(wav, max_bytes=10_000)
    with pytest.raises(AudioError, match="one window of 5 s needs more than max_bytes"):
        list(read_blocks(wav, 5.0, max_bytes=10_000))


@pytest.mark.parametrize("limit", [0, -1, float("nan"), "1", None, True])
def test_impossible_limits(wav, limit):
    with pytest.raises(AudioError, match="max_duration_s must be a number above 0"):
        load_audio(wav, max_duration_s=limit)
    with pytest.raises(AudioError, match="max_bytes must be a number above 0"):
        load_audio(wav, max_bytes=limit)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e38])
def test_impossible_values_in_files_and_arrays(save, tone, encode, value):
    samples = tone(1.0)
    samples[8_000:8_003] = value
    match = "(NaN or infinite values|values beyond any recording's scale.*): 3 of the .*at 0.5000 s in channel 0"
    refused(save("a.wav", encode(samples, RATE_HZ, "WAV", "FLOAT")), "a.wav: " + match)
    refused(samples, match, source_rate_hz=RATE_HZ)
    refused(samples.astype(np.float64), match, source_rate_hz=RATE_HZ)


def test_float64_that_does_not_fit_in_float32(encode):
    samples = np.zeros(100)
    samples[50] = 1e300
    refused(samples, "beyond any recording's scale", source_rate_hz=RATE_HZ)
    refused(encode(samples, RATE_HZ, "WAV", "DOUBLE"), "NaN or infinite|beyond any")


def test_huge_values_in_all_channels_do_not_overflow(encode):
    huge_CS = np.full((64, 100), 2.0**31, np.float32)
    waveform = load_audio(huge_CS, source_rate_hz=RATE_HZ, rate_hz=8_000)
    assert np.isfinite(waveform.samples).all()


def test_silence_clipping_and_dc_are_sounds(tone, encode):
    for samples in (np.zeros(1_600), np.clip(tone(0.1, level=3.0), -1, 1), tone(0.1) + 0.4):
        waveform = load_audio(encode(samples.astype(np.float32), RATE_HZ, "WAV", "FLOAT"))
        np.testing.assert_array_equal(waveform.samples, samples.astype(np.float32))


@pytest.mark.parametrize("num_samples", [1, 2, 800])
@pytest.mark.parametrize("rate_hz", [None, 1_000, 16_000, 48_000])
def test_one_sample_and_a_twentieth_of_a_second(encode, num_samples, rate_hz):
    samples = np.full(num_samples, 0.25, np.float32)
    for source, arguments in ((samples, {"source_rate_hz": RATE_HZ}), (encode(samples, RATE_HZ, "WAV", "FLOAT"), {})):
        waveform = load_audio(source, rate_hz=rate_hz, **arguments)
        assert len(waveform.samples) >= 1
        assert np.isfinite(waveform.samples).all()
        blocks = list(read_blocks(source, 0.01, rate_hz=rate_hz, **arguments))
        np.testing.assert_array_equal(np.concatenate([block.samples for block in blocks]), waveform.samples)


def test_zero_samples(encode):
    refused(np.zeros(0, np.float32), "holds no samples", source_rate_hz=RATE_HZ)
    for container in ("WAV", "AIFF"):
        refused(encode(np.zeros(0, np.float32), RATE_HZ, container), "holds no samples")


@pytest.mark.parametrize(
    ("container", "coding", "tolerance"),
    [
        ("WAV", "PCM_U8", 1 / 100),
        ("WAV", "PCM_16", 1 / 30_000),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("WAV", "ULAW", 0.03),
        ("WAV", "ALAW", 0.03),
        ("WAV", "IMA_ADPCM", 0.03),
        ("WAV", "MS_ADPCM", 0.05),
        ("AIFF", "PCM_16", 1 / 30_000),
        ("CAF", "ALAC_16", 1 / 30_000),
        ("AU", "PCM_24", 1e-6),
        ("W64", "PCM_16", 1 / 30_000),
        ("FLAC", "PCM_24", 1e-6),
        ("OGG", "VORBIS", 0.05),
        ("OGG", "OPUS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_every_coding_sounds_the_same(tone, encode, container, coding, tolerance):
    samples = tone(1.0, 48_000)
    waveform = load_audio(encode(samples, 48_000, container, coding))
    assert abs(len(waveform.samples) - 48_000) < 2_100  # block codings pad
    assert not waveform.damage
    np.testing.assert_allclose(waveform.samples[2_400:45_600], samples[2_400:45_600], atol=tolerance, rtol=0)
