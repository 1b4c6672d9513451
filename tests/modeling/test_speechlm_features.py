"""SpeechLM's feature extractor: one batch from any clips, and refusals that say what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, Wav2Vec2FeatureExtractor

from unibrivl.audio import Waveform
from unibrivl.modeling import SpeechLMConfig, SpeechLMFeatureExtractor


def clip(seed, length, scale=0.1):
    return (scale * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def test_normalises_as_the_original_does():
    """Zero mean and unit variance with eps 1e-5, as torch's layer_norm over the clip, at any loudness."""
    extractor = SpeechLMFeatureExtractor(do_normalize=True)
    for scale in (0.3, 0.03, 0.003, 0.0):
        sound = clip(1, 5000, scale) + 0.01
        ours = extractor(sound, sampling_rate=16000, return_tensors="pt").input_values[0]
        wanted = torch.nn.functional.layer_norm(torch.from_numpy(sound), (5000,))
        torch.testing.assert_close(ours, wanted, atol=2e-6 if scale else 1e-4, rtol=0)
    quiet = clip(1, 5000, 0.002)
    theirs = Wav2Vec2FeatureExtractor()(quiet, sampling_rate=16000).input_values[0]
    assert np.abs(theirs - extractor(quiet, sampling_rate=16000).input_values[0]).max() > 0.1, "the eps matters"


def test_base_hears_samples_as_they_are():
    sound = clip(2, 4000)
    assert np.array_equal(SpeechLMFeatureExtractor()(sound, sampling_rate=16000).input_values[0], sound)


def test_a_clip_in_a_batch_equals_the_clip_alone():
    extractor = SpeechLMFeatureExtractor(do_normalize=True)
    sounds = [clip(3, 3000), clip(4, 5000), clip(5, 400)]
    batch = extractor(sounds, sampling_rate=16000, return_tensors="pt")
    assert batch.input_values.shape == batch.attention_mask.shape == (3, 5000)
    assert batch.attention_mask.sum(1).tolist() == [3000, 5000, 400]
    for row, sound in enumerate(sounds):
        alone = extractor(sound, sampling_rate=16000, return_tensors="pt").input_values[0]
        assert torch.equal(batch.input_values[row, : len(sound)], alone)
        assert not batch.input_values[row, len(sound) :].any()


def test_kinds_of_clips_give_the_same():
    extractor, sound = SpeechLMFeatureExtractor(), clip(6, 1000)
    wanted = extractor(sound, sampling_rate=16000, return_tensors="pt").input_values
    kinds = [torch.from_numpy(sound), sound.tolist(), [sound], [torch.from_numpy(sound)], Waveform(sound, 16000)]
    for kind in [*kinds, [Waveform(sound, 16000)], sound.astype(np.float64)]:
        assert torch.equal(extractor(kind, sampling_rate=16000, return_tensors="pt").input_values, wanted)


def test_a_waveform_needs_no_rate_and_is_checked():
    extractor = SpeechLMFeatureExtractor()
    assert extractor(Waveform(clip(7, 800), 16000)).input_values[0].shape == (800,)
    with pytest.raises(ValueError, match=r"hears 16000 Hz and got 44100 Hz.*load_audio"):
        extractor([Waveform(clip(7, 800), 16000), Waveform(clip(7, 800), 44100)])


@pytest.mark.parametrize("length", [1, 100, 399])
def test_clips_shorter_than_a_frame_become_one_frame(length):
    batch = SpeechLMFeatureExtractor()([clip(8, length), clip(9, 900)], sampling_rate=16000, return_tensors="pt")
    assert batch.attention_mask.sum(1).tolist() == [400, 900]


@pytest.mark.parametrize(
    "sound, message",
    [
        (np.zeros((2, 800), np.float32), "stereo"),
        (np.zeros(0, np.float32), "empty"),
        ([], "at least one clip"),
        ([clip(1, 500), np.array([])], "clip 1 is empty"),
        (np.array([0.0, np.nan] * 400, np.float32), "NaN"),
        (np.array([0.0, np.inf] * 400, np.float32), "infinite"),
        ([np.zeros((2, 800), np.float32)], "one channel"),
    ],
)
def test_what_is_refused(sound, message):
    with pytest.raises(ValueError, match=message):
        SpeechLMFeatureExtractor()(sound, sampling_rate=16000)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_a_wrong_rate_is_refused_with_the_fix(rate):
    with pytest.raises(ValueError, match=rf"got {rate} Hz. Call unibrivl.load_audio\(source, rate_hz=16000\)"):
        SpeechLMFeatureExtractor()(clip(1, 800), sampling_rate=rate)


def test_padding_choices_and_truncation():
    extractor, sounds = SpeechLMFeatureExtractor(), [clip(1, 800), clip(2, 1200)]
    fixed = extractor(
        sounds, sampling_rate=16000, padding="max_length", max_length=1000, truncation=True, return_tensors="np"
    )
    assert fixed.input_values.shape == (2, 1000)
    multiple = extractor(sounds, sampling_rate=16000, pad_to_multiple_of=320, return_tensors="np")
    assert multiple.input_values.shape == (2, 1280)
    assert "attention_mask" not in extractor(sounds, sampling_rate=16000, return_attention_mask=False)


def test_save_and_load(tmp_path):
    extractor = SpeechLMFeatureExtractor(do_normalize=True)
    extractor.save_pretrained(tmp_path)
    SpeechLMConfig().save_pretrained(tmp_path)
    for again in (SpeechLMFeatureExtractor.from_pretrained(tmp_path), AutoFeatureExtractor.from_pretrained(tmp_path)):
        assert type(again) is SpeechLMFeatureExtractor and again.to_dict() == extractor.to_dict()
