"""FID, KID and the Inception score: the goldens, scipy's square root of a matrix, definitions written out."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from unibrivl import metrics

scipy_linalg = pytest.importorskip("scipy.linalg")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text(encoding="utf-8"))


def by_square_root(real, fake):
    one, two = np.cov(real.T), np.cov(fake.T)
    root = scipy_linalg.sqrtm(one @ two).real
    return ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(one + two - 2 * root)


def test_golden_fid():
    given_ = GOLDEN["fid"]["input"]
    found = metrics.fid_from_features(given_["features_real"], given_["features_fake"])
    assert found == pytest.approx(GOLDEN["fid"]["expected"]["fid_ddof1"], abs=1e-4)
    itself = metrics.fid_from_features(given_["features_real"], given_["features_real"])
    assert itself == pytest.approx(GOLDEN["fid"]["expected"]["fid_self"], abs=1e-4)


def test_golden_inception_score():
    given_, expected = GOLDEN["inception_score"]["input"], GOLDEN["inception_score"]["expected"]
    whole = metrics.inception_score(given_["logits"], 1)
    assert (whole.mean, whole.std) == (pytest.approx(expected["splits1"], abs=1e-6), 0.0)
    found = metrics.inception_score(given_["logits"], given_["splits"])
    assert found.mean == pytest.approx(expected["mean"], abs=1e-6)
    assert found.std == pytest.approx(expected["std_population"], abs=1e-6)
    assert found.per_split == pytest.approx(expected["per_split"], abs=1e-6)


def test_fid_is_that_of_the_square_root():
    generator = np.random.default_rng(0)
    real = generator.standard_normal((300, 20)) @ generator.standard_normal((20, 20))
    fake = 1 + generator.standard_normal((200, 20)) @ generator.standard_normal((20, 20))
    wanted = by_square_root(real, fake)
    assert metrics.fid_from_features(real, fake) == pytest.approx(wanted, rel=1e-8)
    assert metrics.fid_from_features(fake, real) == pytest.approx(wanted, rel=1e-8)
    assert metrics.fid_from_features(real, real) == pytest.approx(0, abs=1e-7)


def test_fid_of_fewer_pictures_than_features_is_finite(caplog):
    generator = np.random.default_rng(0)
    real, fake = generator.standard_normal((2, 10, 40))
    with caplog.at_level(logging.WARNING):
        found = metrics.fid_from_features(real, fake + 2)
    assert 160 < found < 300
    assert "10 real and 10 made pictures" in caplog.text


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_statistics_in_batches_and_merged_are_those_of_all(offset):
    """A large common offset would drown the covariance in sums of squares."""
    features = np.random.default_rng(0).standard_normal((700, 5)) + offset
    whole = metrics.FeatureStatistics.of(features)
    parts = metrics.FeatureStatistics()
    for batch in np.split(features[:400], [1, 1, 150]):
        parts.update(batch)
    parts.merge(metrics.FeatureStatistics()).merge(metrics.FeatureStatistics.of(features[400:]))
    assert parts.n == whole.n == 700
    np.testing.assert_allclose(parts.mean_D, features.mean(0), rtol=1e-12)
    for one in (parts, whole):
        np.testing.assert_allclose(one.covariance_DD, np.cov(features.T), atol=1e-8)
    other = np.random.default_rng(1).standard_normal((50, 5)) + offset
    wanted = metrics.fid_from_features(features, other)
    assert metrics.fid_from_features(parts, other) == pytest.approx(wanted, rel=1e-6)


def test_statistics_of_half_precision_are_summed_in_double():
    features = np.full((3000, 2), 100, np.float16)
    features[::2] = 102
    found = metrics.FeatureStatistics.of(features)
    np.testing.assert_array_equal(found.mean_D, [101, 101])
    np.testing.assert_allclose(found.covariance_DD, np.full((2, 2), 3000 / 2999))


def test_kid_is_the_sum_over_pairs():
    generator = np.random.default_rng(0)
    real, fake = generator.standard_normal((6, 3)), generator.standard_normal((4, 3)) + 1

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    within = sum(
        sum(kernel(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j) / (len(a) * (len(a) - 1))
        for a in (real, fake)
    )
    wanted = within - 2 * np.mean([[kernel(x, y) for y in fake] for x in real])
    found = metrics.kid(real, fake)
    assert found.mean == pytest.approx(wanted)
    assert (found.std, found.num_subsets, found.subset_size) == (0.0, 1, 6)


def test_kid_of_subsets_is_unbiased_and_repeats():
    generator = np.random.default_rng(0)
    real, fake = generator.standard_normal((400, 8)), generator.standard_normal((300, 8)) + 0.5
    whole = metrics.kid(real, fake).mean
    found = metrics.kid(real, fake, num_subsets=200, subset_size=100)
    assert found.mean == pytest.approx(whole, abs=4 * found.std / 200**0.5)
    assert found == metrics.kid(real, fake, num_subsets=200, subset_size=100)
    same = metrics.kid(generator.standard_normal((400, 8)), real, num_subsets=50, subset_size=100)
    assert abs(same.mean) < 3 * same.std


def test_a_confident_network_has_a_score():
    logits = 1e4 * np.eye(5)[np.arange(50) % 5]
    found = metrics.inception_score(logits, 10)
    assert found.mean == pytest.approx(5)
    assert metrics.inception_score(np.zeros((20, 4))).mean == pytest.approx(1)
    assert len(metrics.inception_score(np.zeros((23, 4)), 10).per_split) == 10


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.fid_from_features(np.ones((3, 2)), np.ones((3, 4))), "two networks"),
        (lambda: metrics.fid_from_features(np.ones((1, 2)), np.ones((3, 2))), "two pictures"),
        (lambda: metrics.FeatureStatistics.of([[1.0, np.nan]]), r"features\[0, 1\] is nan"),
        (lambda: metrics.FeatureStatistics.of(np.ones((2, 2))).update(np.ones((2, 3))), "two networks"),
        (lambda: metrics.kid(np.ones((3, 2)), np.ones((3, 4))), "two networks"),
        (lambda: metrics.kid(np.ones((1, 2)), np.ones((3, 2))), "two pictures"),
        (lambda: metrics.inception_score(np.zeros((3, 2)), 4), "4 splits"),
        (lambda: metrics.inception_score(np.zeros((0, 2))), "empty"),
    ],
)
def test_wrong_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
