"""Probes: they learn, repeat themselves, and never see the test fold before everything is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from unibrivl import metrics
from unibrivl.metrics import probes

SMALL = metrics.MLPProbe(hidden_size=32, batch_size=16, learning_rate=5e-3, max_epochs=8)
pytest.importorskip("sklearn")
PROBES = [SMALL, metrics.LinearProbe(penalties=(0.01, 1.0))]
both = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.protocol)


@pytest.fixture(scope="module")
def clouds():
    """Features in five clouds, far from zero and of unlike scales; their labels, and four folds."""
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 5
    features = 1.5 * generator.standard_normal((5, 12))[labels] + generator.standard_normal((240, 12))
    features = (50 + features * np.logspace(-3, 3, 12)).astype(np.float32)
    return features, labels, generator.permutation(240) % 4 + 1


def test_probe_v1_is_what_the_protocol_says():
    probe = metrics.MLPProbe()
    wanted = {"hidden_size": 512, "dropout": 0.1, "learning_rate": 1e-3, "batch_size": 128, "max_epochs": 100}
    wanted |= {"plateau_factor": 0.5, "plateau_patience": 5, "stop_patience": 10, "seed": 2021}
    assert dataclasses.asdict(probe) == wanted | {"protocol": "probe-v1"}
    kinds = [type(layer).__name__ for layer in probe.build(7, 3)]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert metrics.LinearProbe().penalties == tuple(10.0**power for power in range(-3, 4))


@both
def test_a_probe_reads_what_the_features_hold(clouds, probe):
    features, labels, folds = clouds
    found = metrics.cross_validate(features, labels, folds, probe)
    assert found.metric == "accuracy"
    assert found.mean > 0.8
    assert found.chance == pytest.approx(0.2)
    scores = [one["score"] for one in found.folds]
    assert (found.mean, found.std) == (pytest.approx(np.mean(scores)), pytest.approx(np.std(scores)))
    assert [(one["fold"], one["validation_fold"]) for one in found.folds] == [(1, 2), (2, 3), (3, 4), (4, 1)]
    shuffled = np.random.default_rng(1).permutation(labels)
    assert metrics.cross_validate(features, shuffled, folds, probe).mean < 0.4


@both
def test_the_same_seed_gives_the_same_numbers(clouds, probe):
    """Whatever was drawn before and with however many threads, and without a trace in the caller's random numbers."""
    features, labels, folds = clouds
    torch.manual_seed(7)
    wanted, drawn = metrics.cross_validate(features, labels, folds, probe), torch.rand(1)
    torch.manual_seed(7)
    assert drawn == torch.rand(1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert metrics.cross_validate(features, labels, folds, probe) == wanted
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    if probe is SMALL:
        other = metrics.cross_validate(features, labels, folds, dataclasses.replace(probe, seed=1))
        assert other.folds != wanted.folds


@both
def test_the_test_fold_chooses_nothing(clouds, probe):
    """Its features and labels are spoilt; what is chosen for it and for its scaling stays the same."""
    features, labels, folds = clouds
    wanted = metrics.cross_validate(features, labels, folds, probe).folds[2]
    spoilt, wrong = features.copy(), labels.copy()
    spoilt[folds == 3] *= -1000
    wrong[folds == 3] = (labels[folds == 3] + 1) % 5
    found = metrics.cross_validate(spoilt, wrong, folds, probe).folds[2]
    assert found["chosen"] == wanted["chosen"]
    assert found["score"] < wanted["score"]


@both
def test_names_and_several_labels(clouds, probe):
    features, labels, folds = clouds
    by_number = metrics.cross_validate(features, labels, folds, probe)
    names = np.array(["ant", "bee", "cat", "dog", "elk"])
    by_name = metrics.cross_validate(features, names[labels], folds.astype(str), probe)
    assert (by_name.mean, by_name.classes) == (by_number.mean, names.tolist())
    several = np.stack([labels == 0, labels < 2, labels > 1], 1)
    found = metrics.cross_validate(features, several, folds, probe)
    assert (found.metric, found.classes) == ("mAP", [0, 1, 2])
    assert found.mean > 0.8
    assert found.chance == pytest.approx((0.2 + 0.4 + 0.6) / 3)


def test_the_loss_decides_when_to_stop(clouds):
    """Labels without a pattern: the validation loss rises soon, and ten epochs later training ends."""
    features, labels, _ = clouds
    shuffled = np.random.default_rng(1).permutation(labels)
    train, valid = (probes.Examples(features[i::2], shuffled[i::2]) for i in range(2))
    chosen = metrics.MLPProbe(hidden_size=64).fit(train, valid, 5).chosen
    assert chosen["epochs"] == chosen["epoch"] + 10 < 100


def test_the_weights_kept_are_those_of_the_best_epoch(clouds):
    features, labels, _ = clouds
    shuffled = np.random.default_rng(1).permutation(labels)
    train, valid = (probes.Examples(features[i::2], shuffled[i::2]) for i in range(2))
    fitted = metrics.MLPProbe(hidden_size=64).fit(train, valid, 5)
    logits = torch.from_numpy(fitted.scores(valid.features_ND))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(valid.targets))
    assert float(loss) == pytest.approx(fitted.chosen["validation_loss"], rel=1e-5)


@pytest.mark.parametrize("known", [[3], [1, 3], [0, 1, 3]])
def test_the_linear_probe_never_prefers_a_class_it_has_not_seen(clouds, known):
    features, labels, _ = clouds
    some = np.isin(labels, known)
    examples = probes.Examples(features[some], labels[some])
    fitted = metrics.LinearProbe(penalties=(1.0,)).fit(examples, examples, 5)
    predictions = fitted.scores(features).argmax(1)
    assert set(predictions) == set(known)
    assert (predictions[some] == labels[some]).mean() > 0.9


def test_the_linear_probe_is_scikit_learns(clouds):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, labels, _ = clouds
    examples = probes.Examples(features, labels)
    fitted = metrics.LinearProbe(penalties=(1.0,)).fit(examples, examples, 5)
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    reference = LogisticRegression(max_iter=1000).fit(scaled, labels)
    np.testing.assert_allclose(fitted.scores(features), reference.decision_function(scaled), atol=1e-2)


def test_a_constant_feature_says_nothing(clouds):
    features, labels, folds = clouds
    wanted = metrics.cross_validate(features, labels, folds, PROBES[1])
    more = np.concatenate([features, np.full((240, 1), 0.1, np.float32)], 1)
    more[folds == 1, -1] = 1e9
    found = metrics.cross_validate(more, labels, folds, PROBES[1])
    assert found.folds[0]["score"] == wanted.folds[0]["score"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.ones((6, 2)), [0, 1] * 3, [0, 0, 0, 1, 1, 1]), "there are 2 folds"),
        ((np.ones((6, 2)), [0, 1] * 3, [0, 1, 2]), "3 folds"),
        ((np.full((3, 2), np.nan), [0, 1, 1], [0, 1, 2]), r"features\[0, 0\] is nan"),
        ((np.ones((3, 2)), np.full((3, 2), 2), [0, 1, 2]), "ones and zeros"),
        ((np.ones(3), [0, 1, 1], [0, 1, 2]), "2 dimensions"),
    ],
)
def test_wrong_input_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        metrics.cross_validate(*arguments)
