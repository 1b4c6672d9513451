"""The recipe that tells a CAV-MAE classes: mixtures written out, what masks and noise leave, and a run of it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny_datasets
import torch

from unibrivl.modeling import CAVMAEForAudioVisualClassification
from unibrivl.training.augment_sound import FeatureMasking
from unibrivl.training.config import ConfigError, override
from unibrivl.training.loop import train
from unibrivl.training.recipes import cavmae, cavmae_classes
from unibrivl.training.recipes.cavmae_classes import CAVMAEClassesData, MixedCollate, MixedPairs
from unibrivl.training.sampler import Draw

QUICK = ("steps=2", "batch_size=4", "warmup=1", "save_every=2", "log_every=1", "evaluate_every=2", "data.seconds=0.5")
NO_MASKS = FeatureMasking(num_times=0, num_bands=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("vggsound")
    rows = []
    for number in range(9):
        name = f"clip{number:07d}"
        rows.append((name, 10, f"label {number % 3}", "train" if number < 6 else "test"))
        tiny_datasets.sound(root / f"clips/{name}_000010.wav", number, 0.6)
        tiny_datasets.picture(root / f"frames/{name}_000010.jpg", number)
    tiny_datasets.table(root / "vggsound.csv", None, rows)
    return root


def configured(folder, out, *more):
    given = [f"data.folder={folder}", f"output_dir={out}", "model.start=tiny", *QUICK, *more]
    return override(cavmae_classes.config(), given)


def test_it_trains_from_a_pretrained_model_and_names_its_classes(folder, tmp_path):
    cavmae.model_for(cavmae.CAVMAERecipeModel("tiny")).save_pretrained(tmp_path / "cavmae")
    done = train(configured(folder, tmp_path, f"model.start={tmp_path / 'cavmae'}"), cavmae_classes.build)
    assert 0 <= done.metrics["accuracy"] <= 1 and all(math.isfinite(value) for value in done.metrics.values())
    model = CAVMAEForAudioVisualClassification.from_pretrained(done.model)
    assert list(model.config.id2label.values()) == ["label 0", "label 1", "label 2"]


def test_a_mixture_is_the_sum_of_two_by_their_shares(folder, tmp_path):
    parts = cavmae_classes.build(configured(folder, tmp_path))
    pairs = parts.data.pairs
    pairs.random_parts = False
    still = replace(parts.data.settings, masks=NO_MASKS, noise=False)
    always = MixedPairs(pairs, replace(still, mixup_rate=1.0), parts.data.numbers)
    never = MixedPairs(pairs, replace(still, mixup_rate=0.0), parts.data.numbers)
    one = always[Draw(2, 0, 7)]
    assert one["shares"][0] + one["shares"][1] == pytest.approx(1) and 0 < one["shares"][0] < 1
    alone = [never[Draw(index, 0, 7)] for index in range(6)]
    own, other = one["shares"]
    sums = [own * alone[2]["audio"] + other * alone[index]["audio"] for index in range(6)]
    partner = next(index for index in range(6) if np.allclose(one["audio"], sums[index], atol=1e-6))
    assert one["classes"] == [2, partner % 3]
    collate = MixedCollate(parts.processor, still, 3)
    mixed, first, second = collate([one]), collate([alone[2]]), collate([alone[partner]])
    for name in ("pixel_values", "label"):
        torch.testing.assert_close(mixed[name], own * first[name] + other * second[name], atol=1e-5, rtol=0)
    assert first["label"].tolist() == [[0.0, 0.0, 1.0]]
    changed = MixedCollate(parts.processor, replace(still, augment_pictures=True), 3)([alone[2]])
    assert not torch.equal(changed["pixel_values"], first["pixel_values"])
    again = always[Draw(2, 0, 7)]
    assert np.array_equal(again["audio"], one["audio"]) and again["shares"] == one["shares"]


def test_half_of_the_examples_are_mixed_by_weights_about_a_half(folder, tmp_path):
    mixed = cavmae_classes.build(configured(folder, tmp_path)).data
    found = [mixed[Draw(0, 0, seed)]["shares"] for seed in range(200)]
    weights = [shares[0] for shares in found if len(shares) == 2]
    assert 70 < len(weights) < 130
    assert abs(np.mean(weights) - 0.5) < 0.03 and 0.08 < np.std(weights) < 0.14  # Beta(10, 10): 0.109


def test_masks_are_as_silence_and_noise_turns_round(folder, tmp_path):
    parts = cavmae_classes.build(configured(folder, tmp_path, "data.mixup_rate=0"))
    examples = [parts.data[Draw(0, 0, seed)] for seed in range(4)]
    silence = 5.081 / 4.4849
    masks = CAVMAEClassesData(masks=FeatureMasking(1, 30, 1.0, 1, 20), noise=False)
    plain = MixedCollate(parts.processor, replace(masks, masks=NO_MASKS), 3)(examples)["input_values"]
    masked = MixedCollate(parts.processor, masks, 3)(examples)["input_values"]
    changed = masked != plain
    assert changed.any() and torch.allclose(masked[changed], torch.tensor(silence))
    torch.manual_seed(0)
    noisy = MixedCollate(parts.processor, replace(masks, masks=NO_MASKS, noise=True), 3)(examples)["input_values"]
    assert abs(float(noisy.mean() - plain.mean())) < 0.1 and noisy.shape == plain.shape
    for row in range(4):
        gaps = [(noisy[row] - plain[row].roll(turn, 0)) for turn in range(plain.shape[1])]
        assert any(gap.min() >= -1e-6 and gap.max() <= 0.1 for gap in gaps)


def test_what_cannot_be_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="set batch_size=6 or less"):
        cavmae_classes.build(configured(folder, tmp_path, "batch_size=7"))
    with pytest.raises(ConfigError, match="mixup_rate is a share"):
        cavmae_classes.build(configured(folder, tmp_path, "data.mixup_rate=2"))
