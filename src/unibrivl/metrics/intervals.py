"""How sure a number is: Wilson and bootstrap intervals, two systems on the same items, and agreement of listeners.

Shapes: N items, B resamples of one block, K categories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from unibrivl.metrics.arrays import as_array, as_numbers

__all__ = ["Interval", "PairedDifference", "binomial_test", "bootstrap", "fleiss_kappa", "paired_bootstrap", "wilson"]

Statistic = Literal["mean", "median"] | Callable[[np.ndarray], float]
NUM_RESAMPLES = 1000
PICKS_AT_ONCE = 2**22  # 32 MiB of indices


@dataclass(frozen=True)
class Interval:
    """A value with the bounds it lies between."""

    value: float
    low: float
    high: float
    confidence: float

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high


@dataclass(frozen=True)
class PairedDifference(Interval):
    """First system minus second; `p_value` is two-sided, for the difference being zero."""

    p_value: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a proportion: it stays in [0, 1], and has a width at 0 and n successes too."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials: needs 0 <= successes <= n and n >= 1")
    z = NormalDist().inv_cdf((1 + checked_confidence(confidence)) / 2)
    share = successes / n
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def bootstrap(
    values: Any,
    statistic: Statistic = "mean",
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The percentile interval of a statistic over items drawn with replacement; the same seed gives the same bounds.

    Args:
        values: numbers, one for each item; or rows, which are drawn whole (for a correlation: two columns).
        statistic (`str` or callable, *optional*, defaults to `"mean"`): `"mean"`, `"median"`, or a function of an
            array like `values`, which is called once for each resample.
        num_resamples (`int`, *optional*, defaults to 1000): how often to draw.
        seed (`int`, *optional*, defaults to 0): of the draws.
        confidence (`float`, *optional*, defaults to 0.95): the share of resamples between the bounds.
    """
    array = as_numbers(values, "values")
    found = resampled(array, statistic, num_resamples, seed)
    return Interval(apply(statistic, array), *percentiles(found, confidence), confidence)


def paired_bootstrap(
    first: Any,
    second: Any,
    statistic: Statistic = "mean",
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> PairedDifference:
    """How much better the first of two systems is on the same items, each resample drawing the same items of both.

    Args:
        first: numbers, one for each item.
        second: numbers of the other system, in the same order.
        statistic, num_resamples, seed, confidence: as for `bootstrap`.
    """
    one, two = as_numbers(first, "first"), as_numbers(second, "second")
    if one.shape != two.shape:
        raise ValueError(f"first has the shape {one.shape} and second {two.shape}: pairs need the same items")
    differences = resampled(one, statistic, num_resamples, seed) - resampled(two, statistic, num_resamples, seed)
    least = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p_value = min(1.0, 2 * (least + 1) / (num_resamples + 1))  # + 1: no number of draws shows a chance of zero
    value = apply(statistic, one) - apply(statistic, two)
    return PairedDifference(value, *percentiles(differences, confidence), confidence, p_value)


def apply(statistic: Statistic, values: np.ndarray) -> float:
    if statistic in ("mean", "median"):
        return float(np.mean(values, axis=0) if statistic == "mean" else np.median(values, axis=0))
    if callable(statistic):
        return float(statistic(values))
    raise ValueError(f"statistic is {statistic!r} and must be 'mean', 'median' or a function of an array")


def resampled(values: np.ndarray, statistic: Statistic, num_resamples: int, seed: int) -> np.ndarray:
    """The statistic of each resample; which items are drawn depends on their number and the seed alone."""
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}; it must be at least 1")
    if values.ndim > 1 and not callable(statistic):
        raise ValueError(f"{statistic!r} is of one number for each item, and values have the shape {values.shape}")
    found = []
    for picks_BN in draws(len(values), num_resamples, seed):
        if statistic == "mean":
            found.append(values[picks_BN].mean(axis=1))
        elif statistic == "median":
            found.append(np.median(values[picks_BN], axis=1))
        else:
            found.append(np.array([apply(statistic, values[picks_N]) for picks_N in picks_BN]))
    return np.concatenate(found)


def draws(n: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    block = max(1, PICKS_AT_ONCE // n)
    for first in range(0, num_resamples, block):
        yield generator.integers(0, n, size=(min(block, num_resamples - first), n))


def percentiles(found: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = 50 * (1 - checked_confidence(confidence))
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(low), float(high)


def checked_confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence} and must lie between 0 and 1, as 0.95 does")
    return confidence


def binomial_test(successes: int, n: int, probability: float = 0.5) -> float:
    """The exact two-sided p-value: the chance of every count that is no likelier than the one seen."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials: needs 0 <= successes <= n and n >= 1")
    if not 0 < probability < 1:
        raise ValueError(f"probability is {probability} and must lie between 0 and 1")
    counts = range(n + 1)
    whole = math.lgamma(n + 1)
    likely = np.exp(
        [
            whole
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(probability)
            + (n - k) * math.log1p(-probability)
            for k in counts
        ]
    )
    # Mirror images of a symmetric case come out a few bits apart, and count as equally likely.
    return float(min(1.0, likely[likely <= likely[successes] * (1 + 1e-7)].sum()))


def fleiss_kappa(counts: Any) -> float:
    """Agreement of listeners beyond chance: 1 is full, 0 what chance gives. NaN if all used one category throughout.

    Args:
        counts: for each item how many listeners chose each category, (N, K); every item has as many listeners.
    """
    counts_NK = as_array(counts, "counts", 2)
    if counts_NK.size == 0 or counts_NK.min() < 0 or (counts_NK != np.round(counts_NK)).any():
        raise ValueError("counts must be whole numbers of listeners, one row for each item")
    listeners = counts_NK.sum(axis=1)
    if listeners.min() != listeners.max() or listeners[0] < 2:
        raise ValueError(
            f"between {listeners.min():g} and {listeners.max():g} listeners judged an item: Fleiss' kappa needs the "
            "same number for each, and two at least. Draw as many answers for each item"
        )
    n = float(listeners[0])
    agreement = float((((counts_NK.astype(float) ** 2).sum(axis=1) - n) / (n * (n - 1))).mean())
    by_chance = float(((counts_NK.sum(axis=0) / counts_NK.sum()) ** 2).sum())
    return math.nan if by_chance == 1 else (agreement - by_chance) / (1 - by_chance)
