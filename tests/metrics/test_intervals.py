"""Intervals and correlations: the goldens of the human study and of volume, scipy, and what chance would give."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibrivl import metrics

scipy_stats = pytest.importorskip("scipy.stats")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text(encoding="utf-8"))


def test_golden_human_study():
    answers, expected = GOLDEN["human_study"]["input"]["answers"], GOLDEN["human_study"]["expected"]
    counts = {kind: answers.count(kind) for kind in expected["counts"]}
    assert counts == expected["counts"]
    bounds = metrics.wilson(counts["positive"], len(answers))
    np.testing.assert_allclose(bounds, expected["positive_wilson95"], atol=1e-6)
    p_value = metrics.binomial_test(counts["positive"], counts["positive"] + counts["negative"])
    assert p_value == pytest.approx(expected["binom_p_two_sided_positive_vs_negative"], abs=1e-6)


def test_golden_volume():
    given_, expected = GOLDEN["volume"]["input"], GOLDEN["volume"]["expected"]
    assert metrics.spearman(given_["gain_db"], given_["similarity"]) == pytest.approx(expected["spearman"], abs=1e-6)
    assert metrics.pearson(given_["gain_db"], given_["similarity"]) == pytest.approx(expected["pearson"], abs=1e-6)
    factors = 10 ** (np.array(given_["gain_db"]) / 20)
    np.testing.assert_allclose(factors, expected["gain_factors"], atol=1e-6)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.99))
def test_wilson_and_the_exact_test_are_scipys(trial, confidence):
    successes, n = trial
    for probability in (0.5, 0.2):
        result = scipy_stats.binomtest(successes, n, probability)
        assert metrics.binomial_test(successes, n, probability) == pytest.approx(result.pvalue, abs=1e-9)
    wanted = result.proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(metrics.wilson(successes, n, confidence), [wanted.low, wanted.high], atol=1e-9)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30))
def test_correlations_are_scipys_with_ties(pairs):
    x, y = np.array(pairs, float).T
    np.testing.assert_array_equal(metrics.average_ranks(x), scipy_stats.rankdata(x))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(metrics.spearman(x, y))
        assert math.isnan(metrics.pearson(x, y))
    else:
        assert metrics.spearman(x, y) == pytest.approx(scipy_stats.spearmanr(x, y).statistic, abs=1e-9)
        assert metrics.pearson(x, y) == pytest.approx(scipy_stats.pearsonr(x, y).statistic, abs=1e-9)
        assert metrics.spearman(np.exp(x), y**3) == pytest.approx(metrics.spearman(x, y), abs=1e-9)


def test_bootstrap_of_a_mean_is_as_wide_as_theory_says():
    values = np.random.default_rng(0).standard_normal(2000)
    found = metrics.bootstrap(values)
    assert found == metrics.bootstrap(values)
    assert found != metrics.bootstrap(values, seed=1)
    assert found.value == values.mean()
    half = 1.96 * values.std() / math.sqrt(2000)
    np.testing.assert_allclose(found.bounds, [values.mean() - half, values.mean() + half], atol=0.1 * half)
    assert metrics.bootstrap(values, confidence=0.5).high < found.high


def test_the_named_statistics_are_the_functions_of_their_name():
    values = np.random.default_rng(0).random(31)
    for name, function in (("mean", np.mean), ("median", np.median)):
        vectorised, looped = metrics.bootstrap(values, name), metrics.bootstrap(values, function)
        np.testing.assert_allclose(vectorised.bounds, looped.bounds)
        assert vectorised.value == pytest.approx(looped.value)


def test_bootstrap_of_a_correlation_draws_whole_rows():
    gain = np.repeat([-10.0, 0.0, 6.0], 20)
    score = gain + np.random.default_rng(0).standard_normal(60)
    found = metrics.bootstrap(np.stack([gain, score], 1), lambda rows: metrics.spearman(*rows.T), num_resamples=200)
    assert 0.8 < found.low <= found.value <= found.high <= 1


def test_blocks_of_draws_change_nothing(monkeypatch):
    values = np.random.default_rng(0).random(501)
    wanted = metrics.bootstrap(values)
    monkeypatch.setattr("unibrivl.metrics.intervals.PICKS_AT_ONCE", 7 * 501)
    assert metrics.bootstrap(values) == wanted


def test_pairs_show_a_difference_that_two_intervals_hide():
    generator = np.random.default_rng(0)
    hard = 10 * generator.standard_normal(300)
    first, second = hard + 0.3 + 0.5 * generator.standard_normal(300), hard + 0.5 * generator.standard_normal(300)
    assert metrics.bootstrap(first).low < metrics.bootstrap(second).high
    found = metrics.paired_bootstrap(first, second)
    assert found.low > 0
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.p_value < 0.01
    same = metrics.paired_bootstrap(first, first)
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    swapped = metrics.paired_bootstrap(second, first)
    np.testing.assert_allclose([-swapped.high, -swapped.low], found.bounds)


def test_fleiss_kappa_of_the_table_in_his_paper():
    """Ten patients, fourteen psychiatrists, five diagnoses: 0.210."""
    counts = ["0 0 0 0 14", "0 2 6 4 2", "0 0 3 5 6", "0 3 9 2 0", "2 2 8 1 1"]
    counts += ["7 7 0 0 0", "3 2 6 3 0", "2 5 3 2 2", "6 5 2 1 0", "0 2 2 3 7"]
    assert metrics.fleiss_kappa([[int(n) for n in row.split()] for row in counts]) == pytest.approx(0.210, abs=5e-4)
    assert metrics.fleiss_kappa([[3, 0], [0, 3]]) == 1.0
    assert math.isnan(metrics.fleiss_kappa([[3, 0], [3, 0]]))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.wilson(3, 2), "3 successes of 2"),
        (lambda: metrics.wilson(0, 0), "n >= 1"),
        (lambda: metrics.wilson(1, 2, confidence=95), "between 0 and 1"),
        (lambda: metrics.binomial_test(-1, 2), "-1 successes"),
        (lambda: metrics.binomial_test(1, 2, 1.0), "probability is 1.0"),
        (lambda: metrics.bootstrap([]), "empty"),
        (lambda: metrics.bootstrap([1.0, np.nan]), r"values\[1\] is nan"),
        (lambda: metrics.bootstrap([1.0], "mode"), "'mode'"),
        (lambda: metrics.bootstrap([1.0], num_resamples=0), "num_resamples is 0"),
        (lambda: metrics.bootstrap(np.ones((3, 2))), "one number for each item"),
        (lambda: metrics.paired_bootstrap([1.0, 2.0], [1.0]), "same items"),
        (lambda: metrics.fleiss_kappa([[1, 2], [2, 2]]), "between 3 and 4 listeners"),
        (lambda: metrics.fleiss_kappa([[1, 0]]), "two at least"),
        (lambda: metrics.fleiss_kappa([[0.5, 1.5]]), "whole numbers"),
        (lambda: metrics.spearman([1.0], [1.0]), "two pairs"),
        (lambda: metrics.pearson([1.0, 2.0], [1.0]), "2 x, 1 y"),
    ],
)
def test_wrong_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
