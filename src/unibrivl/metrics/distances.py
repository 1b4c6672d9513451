"""How far a set of made pictures is from a set of real ones: FID, KID, and the Inception score of one set.

The features come from outside: which network made them belongs into the metric's name (`fid` for Inception's pool3,
`clip_fid` for CLIP's), since the numbers of two networks have nothing to do with each other.

Shapes: N pictures, D features, C classes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from unibrivl.metrics.arrays import as_array, as_numbers, refuse_non_finite

__all__ = ["FeatureStatistics", "InceptionScore", "KernelDistance", "fid_from_features", "inception_score", "kid"]

logger = logging.getLogger(__name__)

FEW = 2048  # below Inception's number of features the covariance has no full rank


class FeatureStatistics:
    """Count, mean and covariance of features that come in batches, in float64.

    `update` takes a batch, `merge` what another process has seen; the order of either changes the last bits only.
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean_D = np.zeros(0)
        self.scatter_DD = np.zeros((0, 0))  # sum of outer products of deviations from the mean

    @classmethod
    def of(cls, features: Any) -> FeatureStatistics:
        """Those of all features at once; what is a FeatureStatistics already stays as it is."""
        return features if isinstance(features, cls) else cls().update(features)

    def update(self, features_ND: Any) -> FeatureStatistics:
        """Take a batch in, and return self."""
        features_ND = as_array(features_ND, "features", 2)
        if not len(features_ND):
            return self
        refuse_non_finite(features_ND, "features")
        batch = FeatureStatistics()
        batch.n = len(features_ND)
        batch.mean_D = features_ND.mean(axis=0, dtype=np.float64)
        apart_ND = features_ND - batch.mean_D
        batch.scatter_DD = apart_ND.T @ apart_ND
        return self.merge(batch)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Take in what `other` has seen, and return self."""
        if not other.n:
            return self
        if not self.n:
            self.n, self.mean_D, self.scatter_DD = other.n, other.mean_D.copy(), other.scatter_DD.copy()
            return self
        if len(self.mean_D) != len(other.mean_D):
            raise ValueError(f"{len(self.mean_D)} features met {len(other.mean_D)}: they are of two networks")
        total = self.n + other.n
        between_D = other.mean_D - self.mean_D
        self.scatter_DD += other.scatter_DD
        self.scatter_DD += np.outer(between_D, between_D) * (self.n * other.n / total)
        self.mean_D = self.mean_D + between_D * (other.n / total)
        self.n = total
        return self

    @property
    def covariance_DD(self) -> np.ndarray:
        """With the divisor n - 1."""
        if self.n < 2:
            raise ValueError(f"a covariance needs two pictures at least, and there are {self.n}")
        return self.scatter_DD / (self.n - 1)


def fid_from_features(real: Any, fake: Any) -> float:
    """The Frechet distance between normal distributions fitted to two sets of features.

    Below 2048 pictures a set's covariance has no full rank for Inception's features, and the distance depends on
    their number; it is computed all the same, and the log says so. Print the numbers beside it, or take `kid`.

    Args:
        real: features (N, D), or `FeatureStatistics`.
        fake: the same of the other set.
    """
    one, two = FeatureStatistics.of(real), FeatureStatistics.of(fake)
    if one.mean_D.shape != two.mean_D.shape:
        raise ValueError(f"{one.mean_D.shape[0]} features met {two.mean_D.shape[0]}: they are of two networks")
    if min(one.n, two.n) < FEW:
        logger.warning("FID of %d real and %d made pictures: below %d it is biased upwards", one.n, two.n, FEW)
    cov_one, cov_two = one.covariance_DD, two.covariance_DD
    # With S = A A^T the product S T has the eigenvalues of A^T T A, which is symmetric: no square root of a matrix
    # that is not, and no complex numbers.
    eigenvalues_D, vectors_DD = np.linalg.eigh(cov_one)
    half_DD = vectors_DD * np.sqrt(np.maximum(eigenvalues_D, 0))
    roots_D = np.sqrt(np.maximum(np.linalg.eigvalsh(half_DD.T @ cov_two @ half_DD), 0))
    apart_D = one.mean_D - two.mean_D
    distance = apart_D @ apart_D + np.trace(cov_one) + np.trace(cov_two) - 2 * roots_D.sum()
    return float(max(distance, 0.0))


@dataclass(frozen=True)
class KernelDistance:
    """KID: the mean over subsets and its population standard deviation; `subset_size` pictures of each set in each."""

    mean: float
    std: float
    num_subsets: int
    subset_size: int


def kid(real: Any, fake: Any, *, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> KernelDistance:
    """The kernel distance of two sets: the unbiased squared MMD with the kernel (x y / D + 1)^3.

    It has no bias at small numbers, so it may come out a little below zero for sets that are alike.

    Args:
        real: features (N, D).
        fake: features of the other set; it may have another number of pictures.
        num_subsets (`int`, *optional*, defaults to 100): how many random subsets to average.
        subset_size (`int`, *optional*, defaults to 1000): pictures of a subset, drawn without replacement. Where a set
            has no more than that, it is taken whole; where both are, one computation is all there is.
        seed (`int`, *optional*, defaults to 0): of the draws.
    """
    real_ND, fake_ND = as_numbers(real, "real", 2), as_numbers(fake, "fake", 2)
    if real_ND.shape[1] != fake_ND.shape[1]:
        raise ValueError(f"{real_ND.shape[1]} features met {fake_ND.shape[1]}: they are of two networks")
    if min(len(real_ND), len(fake_ND), subset_size) < 2 or num_subsets < 1:
        raise ValueError("the distance needs two pictures of each set at least, and one subset")
    generator = np.random.default_rng(seed)
    size = min(subset_size, max(len(real_ND), len(fake_ND)))
    whole = size == max(len(real_ND), len(fake_ND))
    found = []
    for _ in range(1 if whole else num_subsets):
        some = [
            features if len(features) <= size else features[generator.choice(len(features), size, replace=False)]
            for features in (real_ND, fake_ND)
        ]
        found.append(squared_mmd(*some))
    return KernelDistance(float(np.mean(found)), float(np.std(found)), len(found), size)


def squared_mmd(real_ND: np.ndarray, fake_ND: np.ndarray) -> float:
    within = 0.0
    for features_ND in (real_ND, fake_ND):
        kernel_NN = cubic(features_ND, features_ND)
        n = len(features_ND)
        within += float(kernel_NN.sum() - np.trace(kernel_NN)) / (n * (n - 1))
    return within - 2 * float(cubic(real_ND, fake_ND).mean())


def cubic(one_ND: np.ndarray, two_MD: np.ndarray) -> np.ndarray:
    kernel_NM = one_ND @ two_MD.T
    kernel_NM /= one_ND.shape[1]
    kernel_NM += 1
    return kernel_NM * kernel_NM * kernel_NM  # a power of three by `**` takes many times as long


@dataclass(frozen=True)
class InceptionScore:
    """Mean and population standard deviation over `per_split`."""

    mean: float
    std: float
    per_split: tuple[float, ...]


def inception_score(logits: Any, splits: int = 10) -> InceptionScore:
    """IS: exp of the mean divergence of p(class | picture) from p(class), in contiguous splits of the pictures.

    Args:
        logits: (N, C), before the softmax: from its logarithm a confident network gives numbers, from its ratio NaN.
        splits (`int`, *optional*, defaults to 10): parts of equal length, or of two that differ by one.
    """
    logits_NC = as_numbers(logits, "logits", 2)
    n = len(logits_NC)
    if not 1 <= splits <= n:
        raise ValueError(f"{n} pictures cannot be cut into {splits} splits")
    shifted_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    log_p_NC = shifted_NC - np.log(np.exp(shifted_NC).sum(axis=1, keepdims=True))
    per_split = []
    for part in range(splits):
        some_NC = log_p_NC[part * n // splits : (part + 1) * n // splits]
        p_NC = np.exp(some_NC)
        mean_C = p_NC.mean(axis=0)
        # A class that underflows in all pictures has p = 0 and adds nothing: its logarithm is not taken.
        log_mean_C = np.log(mean_C, out=np.zeros_like(mean_C), where=mean_C > 0)
        per_split.append(float(np.exp((p_NC * (some_NC - log_mean_C)).sum(axis=1).mean())))
    return InceptionScore(float(np.mean(per_split)), float(np.std(per_split)), tuple(per_split))
