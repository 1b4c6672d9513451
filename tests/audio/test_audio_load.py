"""load_audio: every kind of source gives the same Waveform, and none is guessed at."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unibrivl.audio import AudioError, Waveform, Window, load_audio

RATE_HZ = 16_000


@pytest.fixture
def samples(tone):
    return tone(0.5, RATE_HZ)


@pytest.fixture
def path(tmp_path, samples, encode):
    file = tmp_path / "tone.wav"
    file.write_bytes(encode(samples, RATE_HZ, "WAV", "FLOAT"))
    return file


def test_import_is_light_and_knows_neither_torch_nor_av():
    heavy = ["torch", "transformers", "av", "tqdm", "scipy", "datasets", "http.client"]
    code = f"import sys, unibrivl.audio; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_paths_bytes_files_and_arrays_give_the_same_waveform(path, samples):
    content = path.read_bytes()
    with path.open("rb") as file:
        sources = [str(path), path, content, bytearray(content), memoryview(content), io.BytesIO(content), file]
        waveforms = [load_audio(source) for source in sources]
    waveforms.append(load_audio(samples, source_rate_hz=RATE_HZ))
    waveforms.append(load_audio(waveforms[0]))
    for waveform in waveforms:
        assert isinstance(waveform, Waveform)
        assert waveform.rate_hz == RATE_HZ
        assert waveform.samples.dtype == np.float32 and waveform.samples.flags.c_contiguous
        np.testing.assert_array_equal(waveform.samples, samples)


def test_torch_tensors_in_any_state(samples):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(samples)
    for source in (tensor, tensor[None], tensor.double(), tensor.clone().requires_grad_()):
        np.testing.assert_array_equal(load_audio(source, source_rate_hz=RATE_HZ).samples, samples)
    half = load_audio(tensor.bfloat16(), source_rate_hz=RATE_HZ).samples
    np.testing.assert_allclose(half, samples, atol=4e-3)
    with pytest.raises(AudioError, match="cannot be turned into numbers"):
        load_audio(torch.zeros(5, device="meta"), source_rate_hz=RATE_HZ)


def test_the_values_of_datasets(path, samples):
    content = path.read_bytes()
    decoded = {"array": samples, "sampling_rate": RATE_HZ, "path": "tone.wav"}
    for value in (
        decoded,
        {"bytes": content, "path": None},
        {"bytes": content, "path": "gone.wav"},
        {"bytes": None, "path": str(path)},
    ):
        np.testing.assert_array_equal(load_audio(value).samples, samples)
    assert load_audio(decoded, source_rate_hz=RATE_HZ).rate_hz == RATE_HZ
    with pytest.raises(AudioError, match="contradicts"):
        load_audio(decoded, source_rate_hz=8_000)
    with pytest.raises(AudioError, match='without its "sampling_rate"'):
        load_audio({"array": samples})
    with pytest.raises(AudioError, match="not an array"):
        load_audio({"array": [0.0, 1.0], "sampling_rate": RATE_HZ})
    with pytest.raises(AudioError, match="this dict has 'text'"):
        load_audio({"text": "hello"})
    with pytest.raises(AudioError, match="not bytes"):
        load_audio({"bytes": "RIFF", "path": None})


class FakeAudioDecoder:
    """What datasets>=4 and torchcodec hand out: samples on request."""

    def __init__(self, samples_CS, rate_hz):
        self.decoded = type("AudioSamples", (), {"data": samples_CS, "sample_rate": rate_hz})()

    def get_all_samples(self):
        return self.decoded


def test_a_torchcodec_decoder_is_asked_for_its_samples(samples):
    torch = pytest.importorskip("torch")
    decoder = FakeAudioDecoder(torch.from_numpy(np.stack([samples, samples])), RATE_HZ)
    np.testing.assert_array_equal(load_audio(decoder).samples, samples)
    with pytest.raises(AudioError, match="FakeAudioDecoder: it could not decode"):
        load_audio(type("FakeAudioDecoder", (), {"get_all_samples": lambda self: 1 / 0})())


def test_real_datasets_values_without_decoding(path, samples):
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    features = datasets.Features({"audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    rows = datasets.Dataset.from_list([{"audio": {"bytes": path.read_bytes(), "path": "a.wav"}}], features=features)
    rows = rows.cast_column("audio", datasets.Audio(decode=False))
    np.testing.assert_array_equal(load_audio(rows[0]["audio"]).samples, samples)


def test_nothing_else_is_guessed():
    for source in (None, 3, [0.0, 0.1], (0.0,), {1}, object()):
        with pytest.raises(AudioError, match="a sound is a path, bytes"):
            load_audio(source)


def test_an_array_without_its_rate_is_an_error_that_says_what_to_pass(samples):
    with pytest.raises(AudioError, match="pass source_rate_hz="):
        load_audio(samples)
    with pytest.raises(AudioError, match="pass source_rate_hz="):
        load_audio(samples, rate_hz=RATE_HZ)


def test_a_rate_that_contradicts_the_file_is_an_error(path):
    assert load_audio(path, source_rate_hz=RATE_HZ).rate_hz == RATE_HZ
    with pytest.raises(AudioError, match=r"tone.wav: it has 16000 Hz .* To resample, pass rate_hz=8000"):
        load_audio(path, source_rate_hz=8_000)


@pytest.mark.parametrize("rate_hz", [0, -16_000, float("nan"), float("inf"), True, "16000", None, 16_000.5, 1, 4e9])
def test_impossible_array_rates(samples, rate_hz):
    with pytest.raises(AudioError, match="source_rate_hz"):
        load_audio(samples, source_rate_hz=rate_hz)


@pytest.mark.parametrize("rate_hz", [0, -1, float("nan"), False, "16000", 44_100.5, 10**9])
def test_impossible_target_rates(path, rate_hz):
    with pytest.raises(AudioError, match="rate_hz"):
        load_audio(path, rate_hz=rate_hz)


def test_whole_numbers_of_any_type_are_rates(samples):
    for rate_hz in (16_000.0, np.int64(16_000), np.float32(16_000)):
        waveform = load_audio(samples, source_rate_hz=rate_hz)
        assert waveform.rate_hz == 16_000 and type(waveform.rate_hz) is int


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_a_tone_keeps_its_frequency_at_every_rate(tmp_path, tone, encode, rate_hz):
    file = tmp_path / "tone.flac"
    file.write_bytes(encode(tone(1.0, rate_hz, 1_000.0), rate_hz, "FLAC", "PCM_24"))
    waveform = load_audio(file, rate_hz=RATE_HZ)
    assert waveform.rate_hz == RATE_HZ
    assert abs(waveform.duration_s - 1.0) < 1e-3
    spectrum = np.abs(np.fft.rfft(waveform.samples[:RATE_HZ] * np.hanning(len(waveform.samples[:RATE_HZ]))))
    peak_hz = np.fft.rfftfreq(len(waveform.samples[:RATE_HZ]), 1 / RATE_HZ)[spectrum.argmax()]
    assert abs(peak_hz - 1_000.0) <= 1.0
    assert abs(np.abs(waveform.samples[2_000:-2_000]).max() - 0.5) < 0.01


def test_resampling_while_reading_equals_resampling_afterwards(path):
    np.testing.assert_array_equal(load_audio(path, rate_hz=22_050).samples, load_audio(path).resample(22_050).samples)


def test_resampling_takes_the_best_of_the_library(path):
    import soundfile
    import soxr

    samples, rate_hz = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(
        load_audio(path, rate_hz=8_000).samples, soxr.resample(samples, rate_hz, 8_000, "HQ")
    )


def test_channels_are_averaged_or_one_is_taken(tmp_path, tone, encode):
    frames_SC = np.stack([tone(0.1, frequency_hz=100.0 * k, level=0.1 * k) for k in range(1, 7)], axis=1)
    file = tmp_path / "six.wav"
    file.write_bytes(encode(frames_SC, RATE_HZ, "WAV", "FLOAT"))
    np.testing.assert_allclose(load_audio(file).samples, frames_SC.mean(axis=1), atol=1e-7)
    for channel in range(6):
        np.testing.assert_array_equal(load_audio(file, channel=channel).samples, frames_SC[:, channel])
    with pytest.raises(AudioError, match="channel=6 is asked for, and it has channels 0 to 5"):
        load_audio(file, channel=6)


@pytest.mark.parametrize("channel", [-1, "left", 0.0, True, None])
def test_impossible_channels(path, channel):
    with pytest.raises(AudioError, match="channel"):
        load_audio(path, channel=channel)


def test_a_mono_sound_has_only_channel_0(path, samples):
    np.testing.assert_array_equal(load_audio(path, channel=0).samples, samples)
    with pytest.raises(AudioError, match="it has only channel 0"):
        load_audio(path, channel=1)


def test_opposite_phase_stereo_is_not_handed_over_as_silence(tmp_path, samples, encode):
    file = tmp_path / "mirror.wav"
    file.write_bytes(encode(np.stack([samples, -samples], axis=1), RATE_HZ))
    with pytest.raises(AudioError, match=r"mirror.wav: its 2 channels cancel .* Pass channel=0"):
        load_audio(file)
    with pytest.raises(AudioError, match="Pass channel=0"):
        load_audio(file, rate_hz=8_000)
    assert np.abs(load_audio(file, channel=0).samples).max() > 0.4
    silence = load_audio(np.zeros((2, 100), np.float32), source_rate_hz=RATE_HZ)  # silence is not cancellation
    assert not silence.samples.any()


def test_integers_are_scaled_by_their_width():
    extremes = {
        "int8": ([-128, 0, 127], [-1, 0, 127 / 128]),
        "uint8": ([0, 128, 255], [-1, 0, 127 / 128]),
        "int16": ([-32_768, 0, 32_767], [-1, 0, 32_767 / 32_768]),
        "int32": ([-(2**31), 0, 2**31 - 1], [-1, 0, 1 - 2.0**-31]),
        ">i2": ([-32_768, 0, 32_767], [-1, 0, 32_767 / 32_768]),
    }
    for kind, (values, expected) in extremes.items():
        waveform = load_audio(np.array(values, dtype=kind), source_rate_hz=RATE_HZ)
        np.testing.assert_allclose(waveform.samples, expected, rtol=0, atol=1e-9, err_msg=kind)
        assert np.abs(waveform.samples).max() <= 1


@pytest.mark.parametrize(
    "kind", ["int64", "uint16", "uint32", "bool", "complex64", "object", "S4", "U4", "datetime64[s]"]
)
def test_arrays_without_a_known_scale_are_refused(kind):
    with pytest.raises(AudioError, match="an array of"):
        load_audio(np.zeros(100, dtype=kind), source_rate_hz=RATE_HZ)


def test_two_axes_are_channels_and_samples(samples):
    both_CS = np.stack([samples, 0.5 * samples])
    np.testing.assert_allclose(load_audio(both_CS, source_rate_hz=RATE_HZ).samples, 0.75 * samples, atol=1e-7)
    np.testing.assert_array_equal(load_audio(both_CS, source_rate_hz=RATE_HZ, channel=0).samples, samples)
    with pytest.raises(AudioError, match=r"looks like \(samples, channels\).* pass array.T"):
        load_audio(both_CS.T, source_rate_hz=RATE_HZ)
    with pytest.raises(AudioError, match="pass array.T"):
        load_audio(samples[:, None], source_rate_hz=RATE_HZ)


@pytest.mark.parametrize("shape", [(), (2, 3, 100), (1, 1, 100), (0,), (2, 0), (128, 16_000)])
def test_impossible_shapes(shape):
    with pytest.raises(AudioError, match="an array of shape|holds no samples"):
        load_audio(np.zeros(shape, np.float32), source_rate_hz=RATE_HZ)


def test_a_masked_array_is_refused(samples):
    with pytest.raises(AudioError, match="fill its gaps"):
        load_audio(np.ma.masked_less(samples, 0), source_rate_hz=RATE_HZ)


def test_the_waveform_of_an_array_does_not_share_its_memory(samples):
    waveform = load_audio(samples, source_rate_hz=RATE_HZ)
    assert not np.shares_memory(waveform.samples, samples)


def test_integers_that_nobody_scaled_are_mentioned(caplog, samples):
    with caplog.at_level(logging.WARNING, logger="unibrivl.audio"):
        load_audio(samples * 32_768, source_rate_hz=RATE_HZ)
    assert "full scale is 1" in caplog.text


@pytest.mark.parametrize(
    "samples",
    [
        [0.0, 0.1],
        np.zeros(4),
        np.zeros((1, 4), np.float32),
        np.zeros(0, np.float32),
        np.full(4, np.nan, np.float32),
        np.full(4, -np.inf, np.float32),
    ],
)
def test_a_waveform_checks_itself(samples):
    with pytest.raises(AudioError, match="Waveform"):
        Waveform(samples, RATE_HZ)


def test_a_waveform_is_contiguous_frozen_and_short_to_print():
    waveform = Waveform(np.zeros(32_000, np.float32)[::2], 16_000.0)
    assert waveform.samples.flags.c_contiguous
    assert waveform.duration_s == 1.0
    assert repr(waveform) == "Waveform(1.000 s at 16000 Hz)"
    assert repr(Window(waveform.samples, 16_000, start=8_000)) == "Window(0.500 s to 1.500 s at 16000 Hz)"
    with pytest.raises(AttributeError):
        waveform.rate_hz = 8_000
    with pytest.raises(AudioError, match="rate_hz"):
        Waveform(np.zeros(4, np.float32), 0)


def test_resampling_a_waveform_and_a_window(tone):
    waveform = Waveform(tone(1.0, 44_100), 44_100)
    assert waveform.resample(44_100) is waveform
    assert abs(len(waveform.resample(16_000).samples) - 16_000) <= 1
    window = Window(waveform.samples, 44_100, start=44_100, damage="cut off").resample(16_000)
    assert (window.start_s, window.damage) == (1.0, "cut off")


def test_an_error_survives_the_way_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(AudioError("it is empty", "a.wav")))
    assert str(error) == "a.wav: it is empty" and error.reason == "it is empty"


def test_the_public_names_are_at_the_top_as_well():
    import unibrivl

    assert unibrivl.load_audio is load_audio
    assert Path(unibrivl.__file__).parent.name == "unibrivl"
