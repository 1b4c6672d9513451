"""Temperature and threshold from pairs that belong together and pairs that do not."""

from __future__ import annotations

import numpy as np
import pytest

from unibrivl.metrics import fit_calibration


def drawn(scale: float, none_logit: float, number: int = 40_000):
    """Cosines whose chance of belonging together is what is to be found, in even numbers of both kinds."""
    chance = np.random.default_rng(0)
    cosines = chance.uniform(-0.5, 1.0, number)
    together = chance.random(number) < 1 / (1 + np.exp(-(scale * cosines - none_logit)))
    few = min(together.sum(), (~together).sum())
    return cosines[together][:few], cosines[~together][:few]


@pytest.mark.parametrize(("scale", "none_logit"), [(10.0, 2.5), (20.0, 5.0), (5.0, 1.25)])
def test_what_cosines_were_drawn_by_is_found(scale, none_logit):
    found = fit_calibration(*drawn(scale, none_logit))
    assert found.scale == pytest.approx(scale, rel=0.05)
    assert found.threshold == pytest.approx(none_logit / scale, abs=0.02)
    assert 0 < found.error < 0.3


def test_it_is_what_a_logistic_regression_finds():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the reference")
    matched, unmatched = drawn(8.0, 2.0, 3000)
    unmatched = unmatched[:200]  # uneven numbers
    model = linear_model.LogisticRegression(C=1e9, class_weight="balanced", tol=1e-10, max_iter=1000)
    inputs = np.concatenate([matched, unmatched])[:, None]
    model.fit(inputs, np.repeat([1, 0], [len(matched), len(unmatched)]))
    found = fit_calibration(matched, unmatched)
    assert found.scale == pytest.approx(model.coef_[0, 0], rel=0.05)
    assert found.none_logit == pytest.approx(-model.intercept_[0], rel=0.08)


def test_pairs_that_are_wholly_apart_have_a_finite_scale():
    found = fit_calibration([0.8, 0.9, 0.85], [0.1, 0.2, 0.0])
    assert np.isfinite(found.scale) and found.error == 0 and 0.2 < found.threshold < 0.8


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        fit_calibration([0.5], [0.1, 0.2])
    with pytest.raises(ValueError, match="no nearer"):
        fit_calibration([0.1, 0.2], [0.5, 0.6])
    with pytest.raises(ValueError):
        fit_calibration([np.nan, 0.2], [0.1, 0.0])
