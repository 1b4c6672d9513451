"""From cosines to probabilities: a temperature and a threshold, fitted to pairs that belong together and pairs that do
not.

    P(together | cosine) = sigmoid(scale * cosine - none_logit)

Both kinds of pairs count alike, however many of each there are. Targets are Platt's, not quite 0 and 1, so that pairs
that are wholly apart do not ask for an endless scale.

Shapes: M pairs that belong together, U that do not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from unibrivl.metrics.arrays import as_numbers

__all__ = ["FittedCalibration", "fit_calibration"]

STEPS, STILL = 200, 1e-9
LEAST_SCALE = 1e-3


class FittedCalibration(NamedTuple):
    """
    Args:
        scale (`float`): what cosines are multiplied by.
        none_logit (`float`): the logit of "none of these".
        error (`float`): share of pairs, each kind counted alike, on the wrong side of the threshold.
    """

    scale: float
    none_logit: float
    error: float

    @property
    def threshold(self) -> float:
        """The cosine above which a pair rather belongs together."""
        return self.none_logit / self.scale


def fit_calibration(matched: Any, unmatched: Any) -> FittedCalibration:
    """Logistic regression by Newton's method.

    Args:
        matched, unmatched: cosines, at least two of each kind.
    """
    matched_M, unmatched_U = as_numbers(matched, "matched", 1), as_numbers(unmatched, "unmatched", 1)
    if len(matched_M) < 2 or len(unmatched_U) < 2:
        raise ValueError(f"{len(matched_M)} and {len(unmatched_U)} pairs: at least two of each kind are needed")
    if matched_M.mean() <= unmatched_U.mean():
        raise ValueError(
            "pairs that belong together are no nearer than others, so nothing can be fitted: check that labels and "
            "vectors are of one order, and of one model"
        )
    cosines = np.concatenate([matched_M, unmatched_U])
    counts = len(matched_M), len(unmatched_U)
    targets: np.ndarray = np.repeat([(counts[0] + 1) / (counts[0] + 2), 1 / (counts[1] + 2)], counts)
    weights: np.ndarray = np.repeat([1 / counts[0], 1 / counts[1]], counts)
    middle, spread = cosines.mean(), max(float(cosines.std()), 1e-12)
    inputs_P2 = np.stack([(cosines - middle) / spread, np.ones(len(cosines))], axis=1)
    found_2 = np.zeros(2)
    for _ in range(STEPS):
        chances = 1 / (1 + np.exp(-np.clip(inputs_P2 @ found_2, -50, 50)))
        slope_2 = inputs_P2.T @ (weights * (chances - targets))
        bend_22 = inputs_P2.T @ (inputs_P2 * (weights * chances * (1 - chances))[:, None])
        step_2 = np.linalg.solve(bend_22 + 1e-9 * np.eye(2), slope_2)
        found_2 -= np.clip(step_2, -1, 1)  # far from the end Newton's steps are too long
        if np.abs(step_2).max() < STILL:
            break
    scale = max(LEAST_SCALE, found_2[0] / spread)
    none_logit = scale * middle - found_2[1]
    wrong = ((matched_M * scale < none_logit).mean() + (unmatched_U * scale >= none_logit).mean()) / 2
    return FittedCalibration(float(scale), float(none_logit), float(wrong))
