"""The filterbank and CAV-MAE's feature extractor: against Kaldi's numbers (goldens), transformers, and themselves."""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from unibrivl.audio import Waveform
from unibrivl.modeling.fbank_cavmae import FBANK_PRESETS, kaldi_fbank, mel_bank, num_fbank_frames
from unibrivl.modeling.feature_extraction_cavmae import CAVMAEFeatureExtractor

GOLDEN = Path(__file__).parents[1] / "golden" / "cavmae"
# spec/aai.md section B: raw CAV-MAE frames, the normalised input, BEATs' frames in either precision
RAW, INPUT, BEATS = 1e-3, 3e-4, {torch.float32: 1e-3, torch.float64: 3e-3}
PRECISIONS = [torch.float32, torch.float64]


@cache
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "fbank_golden.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


@cache
def wave(tag: str = "aai.waveform", num_samples: int = 160_000) -> np.ndarray:
    """The goldens' recipe: a rising tone, a steady one and noise that swell, half a second of silence, an offset."""
    times = np.arange(num_samples) / 16000
    noise = np.random.Generator(np.random.PCG64(zlib.crc32(tag.encode()))).standard_normal(num_samples)
    samples = 0.25 * np.sin(2 * np.pi * (200 * times + 150 * times**2)) + 0.1 * np.sin(2 * np.pi * 3000 * times)
    samples = (samples + 0.05 * noise) * 0.5 * (1 - np.cos(2 * np.pi * times / 2.5))
    samples[64000:72000] = 0
    return (samples + 0.01).astype(np.float32)


def farthest(ours, other) -> float:
    return float((torch.as_tensor(ours).double() - torch.as_tensor(other).double()).abs().max())


def extract(clips, **kwargs) -> torch.Tensor:
    return CAVMAEFeatureExtractor()(clips, sampling_rate=16000, return_tensors="pt", **kwargs).input_values


# ---- the filterbank -------------------------------------------------------------------------------------------------


def test_the_wave_is_the_goldens():
    samples, stored = wave(), golden()
    assert farthest(samples[:64], stored["wav_head"]) == 0
    sums = [samples.astype(np.float64).sum(), np.square(samples.astype(np.float64)).sum()]
    np.testing.assert_allclose(sums, stored["wav_sum"], rtol=1e-6)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_frames_are_kaldis(dtype):
    frames = kaldi_fbank(torch.from_numpy(wave()).to(dtype))
    assert frames.shape == (998, 128) and frames.dtype == dtype
    stored = golden()
    rows = [0, 1, 399, 400, 410, 500, 996, 997]
    assert farthest(frames[::13, ::5], stored["fbank_slice"]) < RAW
    for name in ("fbank_rows", "knf_rows", "numpy64_rows"):
        assert farthest(frames[rows], stored[name]) < RAW, name
    if dtype == torch.float64:
        assert farthest(frames[rows], stored["numpy64_rows"]) < 2e-6
    short = kaldi_fbank(torch.from_numpy(wave("aai.waveform.2s", 32000)).to(dtype))
    assert short.shape == (198, 128)
    assert farthest(short[::7, ::5], stored["fbank_2s_slice"]) < RAW


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_frames_of_beats(dtype):
    frames = kaldi_fbank(torch.from_numpy(wave()).to(dtype), "povey", scale=FBANK_PRESETS["beats"]["scale"])
    assert farthest(frames[::31, ::8], golden()["beats_slice"]) < BEATS[dtype]


def test_statistics_of_the_whole():
    summary = json.loads((GOLDEN / "fbank_golden.json").read_text())["summary"]
    frames = kaldi_fbank(torch.from_numpy(wave()).double())
    found = {"mean": frames.mean(), "std": frames.std(correction=0), "min": frames.min(), "max": frames.max()}
    for name, value in found.items():
        assert float(value) == pytest.approx(summary[f"fbank_{name}"], abs=1e-5), name


@pytest.mark.filterwarnings("ignore:At least one mel filter")  # bin 3, here too
def test_transformers_gives_the_same():
    bank = mel_filter_bank(257, 128, 20, 8000, 16000, mel_scale="kaldi", triangularize_in_mel_space=True)
    theirs = spectrogram(
        wave().astype(np.float64), window_function(400, "hann", periodic=False), 400, 160, 512, power=2.0,
        center=False, preemphasis=0.97, mel_filters=bank, log_mel="log", mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    )  # fmt: skip
    assert farthest(kaldi_fbank(torch.from_numpy(wave()).double()), theirs.T) < 2e-6


def test_mel_bins_are_kaldis():
    bank = mel_bank(128, torch.float64, torch.device("cpu"))[::2]
    assert not bank[-1].any()  # half the rate counts for nothing
    for index, first, last, total in golden()["mel_banks_nonzero"].tolist():
        heard = bank[:, int(index)].nonzero()[:, 0].tolist()
        assert (heard[0], heard[-1]) == (first, last) if heard else (first, last) == (-1, -1)
        assert float(bank[:, int(index)].sum()) == pytest.approx(total, abs=1e-4)
    assert [column for column in range(128) if not bank[:, column].any()] == [3]


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_batch_is_its_clips_and_a_frame_knows_nothing_of_what_follows(dtype):
    clips = torch.randn(2, 3, 30_000, generator=torch.Generator().manual_seed(0)).to(dtype)
    together = kaldi_fbank(clips)
    assert together.shape == (2, 3, num_fbank_frames(30_000), 128)
    torch.testing.assert_close(together[1, 2], kaldi_fbank(clips[1, 2]), atol=1e-5, rtol=0)
    assert torch.equal(kaldi_fbank(clips[0, 0, :9000]), kaldi_fbank(clips[0, 0])[: num_fbank_frames(9000)])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_with_and_without_gradients_it_is_the_same(dtype):
    samples = torch.from_numpy(wave()).to(dtype)
    for window, scale in (("hann", 1.0), ("povey", 32768.0)):
        plain = kaldi_fbank(samples, window, scale=scale)
        learned = kaldi_fbank(samples.clone().requires_grad_(), window, scale=scale)
        assert learned.requires_grad and not plain.requires_grad
        torch.testing.assert_close(learned.detach(), plain, atol=1e-3 if dtype == torch.float32 else 1e-9, rtol=0)


def test_gradients_are_those_of_finite_differences():
    samples = torch.randn(2, 560, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    with torch.inference_mode():
        kaldi_fbank(samples.detach())  # what is kept of this call must serve training
    weights = torch.randn(2, 2, 128, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: (kaldi_fbank(x) * weights).sum(), samples, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize(
    "samples, window, message",
    [
        (torch.zeros(399), "hann", "no frame"),
        (torch.zeros(400, dtype=torch.float16), "hann", "float32"),
        (torch.zeros(400, dtype=torch.int16), "hann", "float32"),
        (torch.zeros(400), "hamming", "povey"),
    ],
)
def test_what_the_filterbank_refuses(samples, window, message):
    with pytest.raises(ValueError, match=message):
        kaldi_fbank(samples, window)


# ---- the feature extractor ------------------------------------------------------------------------------------------


def test_the_models_input_is_the_originals():
    found = extract(wave())
    assert found.shape == (1, 1024, 128) and found.dtype == torch.float32
    assert farthest(found[0, ::16, ::8], golden()["model_input_slice"]) < INPUT
    summary = json.loads((GOLDEN / "fbank_golden.json").read_text())["summary"]
    assert float(found.mean()) == pytest.approx(summary["model_input_mean"], abs=1e-4)
    assert farthest(found[0, 998:], torch.full((26, 128), summary["pad_value_after_norm"])) < 1e-6
    assert float(found[0, :998, 3].max()) == pytest.approx(-2.4218, abs=1e-4)  # the empty bin


def test_lengths():
    """Whole patches: filled up to the model's length, to the longest of the batch, or each for itself."""
    long, short = wave(), wave()[:20_000]
    batch = extract([long, short])
    assert batch.shape == (2, 1024, 128)
    assert torch.equal(batch[1], extract(short)[0])
    assert extract([long, short], padding="longest").shape == (2, 1008, 128)
    own = CAVMAEFeatureExtractor()([long, short], sampling_rate=16000, padding=False).input_values
    assert [frames.shape for frames in own] == [(1008, 128), (128, 128)]
    assert torch.equal(extract(short, padding=True)[0], batch[1, :128])
    assert extract(short, max_length=160).shape == (1, 160, 128)
    assert extract(long[:5], padding=True).shape == (1, 16, 128)  # less than a frame: silence follows


def test_what_is_too_long_is_cut_on_demand_only():
    long = np.tile(wave(), 2)[:200_000]
    with pytest.raises(ValueError, match=r"clip 0 has 1248 frames and the model hears 1024, 10.26 s.*split_windows"):
        extract(long)
    assert torch.equal(extract(long, truncation=True), extract(long[: 1024 * 160 + 240]))
    assert extract(long, padding="longest").shape == (1, 1248, 128)


def test_kinds_of_clips():
    samples = wave()[:16000]
    wanted = extract(samples)
    for clip in (torch.from_numpy(samples), samples.tolist(), [samples], samples[:, None].copy()[:, 0]):
        assert torch.equal(extract(clip), wanted)
    waveform = Waveform(samples, 16000)
    assert torch.equal(CAVMAEFeatureExtractor()(waveform, return_tensors="pt").input_values, wanted)


@pytest.mark.parametrize(
    "clip, rate, message",
    [
        (np.zeros(16000, np.float32), 44100, "hears 16000 Hz and got 44100"),
        (Waveform(np.zeros(8000, np.float32), 8000), None, "got 8000 Hz"),
        (np.zeros(16000, np.float32), None, "nothing tells the clips. rate"),
        (np.zeros((2, 16000), np.float32), 16000, "stereo"),
        (np.full(16000, np.nan, np.float32), 16000, "NaN"),
        (np.zeros(0, np.float32), 16000, "empty"),
        ([], 16000, "no sound"),
    ],
)
def test_clips_that_are_refused(clip, rate, message):
    with pytest.raises(ValueError, match=message):
        CAVMAEFeatureExtractor()(clip, sampling_rate=rate)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"sampling_rate": 44100}, "16000"),
        ({"max_length": 1000}, "multiple"),
        ({"std": 0.0}, "std"),
    ],
)
def test_settings_that_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CAVMAEFeatureExtractor(**fields)


def test_the_front_end_of_beats():
    extractor = CAVMAEFeatureExtractor.beats()
    found = extractor(wave(), sampling_rate=16000, padding=False).input_values[0]
    assert found.shape == (998, 128)
    assert farthest(found[::31, ::8] * (2 * 6.55582) + 15.41663, golden()["beats_slice"]) < BEATS[torch.float64]


def test_saved_and_loaded(tmp_path):
    ours = CAVMAEFeatureExtractor(max_length=512, mean=-4.0)
    ours.save_pretrained(tmp_path)
    again = CAVMAEFeatureExtractor.from_pretrained(tmp_path)
    assert again.to_dict() == ours.to_dict()
    samples = wave()[:16000]
    assert np.array_equal(again(samples, 16000).input_values, ours(samples, 16000).input_values)
