"""Correlation of two series: Pearson of the numbers, Spearman of their ranks, equal numbers sharing a rank."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unibrivl.metrics.arrays import as_numbers, same_length

__all__ = ["average_ranks", "pearson", "spearman"]


def average_ranks(values: Any) -> np.ndarray:
    """Ranks from 1, ascending; equal numbers get the mean of the ranks they cover."""
    array = as_numbers(values, "values", 1)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def pearson(x: Any, y: Any) -> float:
    """Pearson's r; NaN if one of the series is constant, for then nothing varies with anything."""
    one, two = as_numbers(x, "x", 1), as_numbers(y, "y", 1)
    if same_length(("x", one), ("y", two)) < 2:
        raise ValueError("a correlation needs two pairs at least")
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return math.nan
    # Scaled first, so that neither very large nor very small numbers leave float64 when they are squared.
    one = (one - one.mean()) / np.abs(one - one.mean()).max()
    two = (two - two.mean()) / np.abs(two - two.mean()).max()
    return float(np.clip(one @ two / math.sqrt((one @ one) * (two @ two)), -1, 1))


def spearman(x: Any, y: Any) -> float:
    """Spearman's rho: Pearson's r of the average ranks; NaN if one of the series is constant."""
    return pearson(average_ranks(x), average_ranks(y))
