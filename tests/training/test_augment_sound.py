"""Augmentation of sounds: each change does what it says and no more, and the generator alone decides it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from unibrivl.training.augment_sound import (
    FeatureMasking,
    SoundAugmentation,
    add_noise,
    cut,
    fast_size,
    mixup,
    remove_bands,
    silence_spans,
)

RATE = 16_000
OFF = SoundAugmentation.off()


def noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return (0.1 * chance.standard_normal(round(seconds * RATE))).astype(np.float32)


def chance(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_off_changes_nothing_and_copies():
    sound = noise()
    same = OFF(sound, RATE, chance())
    assert np.array_equal(same, sound)
    assert not np.may_share_memory(same, sound)


def test_the_generator_alone_decides():
    sound = noise()
    everything = SoundAugmentation(crop_s=0.5, noise_prob=1)
    before = sound.copy()
    first, second = everything(sound, RATE, chance()), everything(sound, RATE, chance())
    assert np.array_equal(first, second)
    assert np.array_equal(sound, before)
    assert first.dtype == np.float32
    assert len(first) == RATE // 2
    assert np.isfinite(first).all()
    assert not np.array_equal(first, everything(sound, RATE, chance(8)))


def test_every_example_takes_as_much_from_the_generator():
    for augmentation in (OFF, SoundAugmentation(), SoundAugmentation(crop_s=0.2, noise_prob=1, num_bands=3)):
        states = []
        for sound in (noise(), noise(0.1), np.zeros(50, np.float32)):
            generator = chance()
            augmentation(sound, RATE, generator)
            states.append(generator.bit_generator.state)
        assert states[0] == states[1] == states[2]


def test_gain_stays_within_its_range_and_reaches_it():
    sound, ratios = noise(0.01), []
    for seed in range(200):
        changed = replace(OFF, gain_db=6)(sound, RATE, chance(seed))
        ratios.append(20 * np.log10(changed[3] / sound[3]))
    assert -6 <= min(ratios) < -5.5
    assert 5.5 < max(ratios) <= 6


def test_polarity_turns_some():
    sound, augmentation = noise(0.01), replace(OFF, polarity_prob=0.5)
    turned = [np.array_equal(augmentation(sound, RATE, chance(seed)), -sound) for seed in range(100)]
    assert 30 < sum(turned) < 70


def test_a_shift_turns_the_sound_round_and_loses_nothing():
    sound = np.arange(1, 101, dtype=np.float32)
    places = set()
    for seed in range(200):
        changed = replace(OFF, shift_s=10 / RATE)(sound, RATE, chance(seed))
        places.add(place := int(changed.argmin()))
        assert np.array_equal(np.roll(changed, -place), sound)
    assert places == {place % 100 for place in range(-10, 11)}


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 20.0])
def test_noise_has_the_ratio_it_is_given(snr_db):
    sound = noise()
    noisy = sound.copy()
    add_noise(noisy, snr_db, chance())
    added = (noisy - sound).astype(np.float64)
    measured = 10 * np.log10(np.mean(sound.astype(np.float64) ** 2) / np.mean(added**2))
    assert measured == pytest.approx(snr_db, abs=1e-3)
    drawn = replace(OFF, noise_prob=1, min_snr_db=5, max_snr_db=15)(sound, RATE, chance()) - sound
    assert 5 <= 10 * np.log10(np.mean(sound**2) / np.mean(drawn**2)) <= 15


def test_silence_gets_no_noise():
    assert not replace(OFF, noise_prob=1)(np.zeros(100, np.float32), RATE, chance()).any()


def test_a_crop_is_a_part_and_each_part_has_its_chance():
    sound = np.arange(10, dtype=np.float32)
    starts = [int(replace(OFF, crop_s=4 / RATE)(sound, RATE, chance(seed))[0]) for seed in range(300)]
    assert set(starts) == set(range(7))
    assert np.array_equal(cut(sound, 4, 0.5), sound[3:7])
    assert np.array_equal(cut(sound, 10, 0.99), sound)
    assert cut(sound, 4, np.nextafter(1, 0))[-1] == 9


def test_a_short_sound_is_filled_as_asked():
    sound = np.array([1, 2, 3], np.float32)
    crop = replace(OFF, crop_s=7 / RATE)
    assert crop(sound, RATE, chance()).tolist() == [1, 2, 3, 0, 0, 0, 0]
    assert replace(crop, fill="repeat")(sound, RATE, chance()).tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert replace(crop, fill="none")(sound, RATE, chance()).tolist() == [1, 2, 3]


def test_a_band_is_removed_and_the_rest_is_not():
    sound = noise(1.024)  # 16,384 samples: transformed without padding
    width, place = 0.5, 0.25  # 500 Hz of 1000, a quarter of the way up to where it fits: 1875 to 2375 Hz
    changed = remove_bands(sound, RATE, np.array([[width, place]]), 1000.0, edge_hz=50.0)
    hz = np.fft.rfftfreq(len(sound), 1 / RATE)
    before, after = np.abs(np.fft.rfft(sound)), np.abs(np.fft.rfft(changed))
    inside, outside = (hz >= 1875) & (hz <= 2375), (hz < 1825) | (hz > 2425)
    assert after[inside].max() < 1e-4 * before[inside].mean()
    assert np.allclose(after[outside], before[outside], atol=1e-4)


def test_transforms_are_long_enough_and_little_longer():
    for size in (1, 2, 7, 8, 9, 79_999, 80_000, 81_921, 160_000):
        assert size <= fast_size(size) <= max(8, 1.34 * size)


def test_spans_are_silent_and_the_rest_is_untouched():
    sound = np.ones(1000, np.float32)
    shares = []
    for seed in range(300):
        changed = sound.copy()
        silence_spans(changed, chance(seed).random((2, 2)), 100)
        silent = np.where(changed == 0)[0]
        assert set(changed.tolist()) <= {0.0, 1.0}
        assert len(silent) <= 200
        shares.append(len(silent) / 1000)
    assert np.mean(shares) == pytest.approx(0.1, abs=0.01)  # two of 50 on average, that seldom meet
    short = np.ones(3, np.float32)
    silence_spans(short, np.array([[0.999, 0.999]]), 1e6)
    assert not short.any()


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (np.zeros(0, np.float32), "empty"),
        (np.array([0, np.nan], np.float32), "NaN"),
        (np.array([0, np.inf], np.float32), "infinite"),
        (np.zeros(4), "float32"),
        (np.zeros((2, 4), np.float32), "float32"),
        ([0.0, 1.0], "float32"),
    ],
)
def test_what_is_no_sound_is_refused(sound, words):
    with pytest.raises(ValueError, match=words):
        SoundAugmentation()(sound, RATE, chance())


@pytest.mark.parametrize(
    "setting",
    [{"crop_s": 0.0}, {"fill": "zero"}, {"shift_s": -1}, {"noise_prob": 1.5}, {"min_snr_db": 50.0}, {"num_spans": -1}],
)
def test_impossible_settings_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        SoundAugmentation(**setting)


def test_feature_masks_keep_to_the_sound():
    features = 1 + torch.rand(64, 200, 80, generator=torch.Generator().manual_seed(0))
    lengths = torch.arange(64) * 3
    masking = FeatureMasking(max_frames=20, max_share=0.5, value=-1.0)
    masked = masking(features, chance(), lengths)
    hidden = masked == -1
    assert torch.equal(masked[~hidden], features[~hidden])
    assert torch.equal(hidden, masking.mask(features, chance(), lengths))
    inside = torch.arange(200)[None] < lengths[:, None]
    assert not hidden[~inside].any()
    for row, length in enumerate(lengths.tolist()):
        if length:
            whole_frames, whole_features = hidden[row, :length].all(1), hidden[row, :length].all(0)
            assert whole_frames.sum() <= min(40, length)
            assert whole_features.sum() <= 54 or whole_frames.all()
            assert torch.equal(hidden[row, :length], whole_frames[:, None] | whole_features[None])
    share = FeatureMasking(num_bands=0)(torch.ones(2000, 400, 8), chance()).eq(0).float().mean()
    assert share == pytest.approx(1 - (1 - 50 / 400) ** 2, abs=0.02)


def test_no_masks_mask_nothing():
    features = torch.rand(2, 5, 4)
    assert torch.equal(FeatureMasking(num_times=0, num_bands=0)(features, chance()), features)


def test_features_that_cannot_be_masked_are_refused():
    masking = FeatureMasking()
    with pytest.raises(ValueError, match="no features"):
        masking(torch.zeros(0, 5, 4), chance())
    with pytest.raises(ValueError, match="NaN"):
        masking(torch.full((1, 2, 3), torch.nan), chance())
    with pytest.raises(ValueError, match="lengths_B"):
        masking(torch.zeros(1, 2, 3), chance(), torch.tensor([3]))
    with pytest.raises(ValueError, match="max_share"):
        FeatureMasking(max_share=2)


def test_mixup_mixes_with_its_partner():
    sounds = torch.rand(16, 2, 30, generator=torch.Generator().manual_seed(0))
    mixed, partner, weight = mixup(sounds, chance())
    assert sorted(partner.tolist()) == list(range(16))
    assert (partner != torch.arange(16)).all()
    for row in range(16):
        expected = weight[row] * sounds[row] + (1 - weight[row]) * sounds[partner[row]]
        assert torch.equal(mixed[row], expected)
    again = mixup(sounds, chance())
    assert all(torch.equal(one, other) for one, other in zip((mixed, partner, weight), again, strict=True))
    alone = mixup(sounds[:1], chance())
    assert torch.allclose(alone.sounds, sounds[:1])
    assert torch.equal(mixup(sounds, chance(), alpha=0).sounds, sounds)


def test_mixup_draws_from_beta_and_always_as_much():
    sounds, generators = torch.rand(4000, 1), [chance(), chance()]
    uniform = mixup(sounds, generators[0], alpha=1.0).weight_B
    assert uniform.mean() == pytest.approx(0.5, abs=0.02)
    assert uniform.std() == pytest.approx(12**-0.5, abs=0.02)
    extreme = mixup(sounds, generators[1], alpha=0.1).weight_B
    assert extreme.std() == pytest.approx((1 / 4.8) ** 0.5, abs=0.02)  # 1 / (4 (2 alpha + 1))
    assert generators[0].bit_generator.state == generators[1].bit_generator.state


def test_batches_that_cannot_be_mixed_are_refused():
    with pytest.raises(ValueError, match="batch of sounds"):
        mixup(torch.zeros(0, 3), chance())
    with pytest.raises(ValueError, match="NaN"):
        mixup(torch.full((2, 3), torch.nan), chance())
    with pytest.raises(ValueError, match="alpha"):
        mixup(torch.zeros(2, 3), chance(), alpha=-1)
