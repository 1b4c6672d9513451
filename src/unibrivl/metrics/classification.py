"""Classification: accuracy, recall by class, average precision where tied scores share a threshold, folds.

Shapes: N items, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from unibrivl.metrics.arrays import as_array, as_numbers, refuse_non_finite, same_length
from unibrivl.metrics.ranking import Ties, ranks

__all__ = [
    "MeanAveragePrecision",
    "accuracy",
    "average_precision",
    "kfold_summary",
    "mean_average_precision",
    "top_k_accuracy",
    "unweighted_average_recall",
]


def accuracy(predictions: Any, labels: Any) -> float:
    """The share of predictions that equal their label: numbers or names."""
    predicted, true = labels_of_both(predictions, labels)
    return float((predicted == true).mean())


def top_k_accuracy(scores: Any, labels: Any, k: int = 1, *, ties: Ties = "pessimistic") -> float:
    """The share of items whose class is among the k best; a class tied with wrong ones counts by the rule of `ranks`.

    Args:
        scores: (N, C), higher is better.
        labels: for each item the column of its class.
        k (`int`, *optional*, defaults to 1): classes that count.
        ties (`str`, *optional*, defaults to `"pessimistic"`): see `ranking.ranks`.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it counts classes, from 1")
    return float((ranks(scores, as_array(labels, "labels", 1), ties=ties) <= k).mean())


def unweighted_average_recall(predictions: Any, labels: Any) -> float:
    """UAR: the recall of each class that occurs among the labels, and the mean over these, large or small."""
    predicted, true = labels_of_both(predictions, labels)
    return float(np.mean([(predicted[true == one] == one).mean() for one in np.unique(true)]))


def labels_of_both(predictions: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    predicted, true = as_array(predictions, "predictions", 1), as_array(labels, "labels", 1)
    if same_length(("predictions", predicted), ("labels", true)) == 0:
        raise ValueError("there are no labels: nothing to measure")
    if (predicted.dtype.kind in "US") != (true.dtype.kind in "US"):
        raise ValueError(f"predictions are {predicted.dtype} and labels {true.dtype}: none of them can agree")
    return predicted, true


def average_precision(scores: Any, relevant: Any) -> float:
    """AP: precision at each distinct score, weighted by the recall it adds; NaN if nothing is relevant.

    Args:
        scores: (N,), higher is better; items with the same score are found together.
        relevant: (N,), true or 1 where the item belongs to the class.
    """
    score_N, relevant_N = as_numbers(scores, "scores", 1), as_array(relevant, "relevant", 1)
    same_length(("scores", score_N), ("relevant", relevant_N))
    return average_precision_of(score_N, zeros_and_ones(relevant_N, "relevant"))


def zeros_and_ones(array: np.ndarray, name: str) -> np.ndarray:
    if not ((array == 0) | (array == 1)).all():
        raise ValueError(f"{name} holds something beside 0 and 1")
    return array.astype(bool)


def average_precision_of(score_N: np.ndarray, relevant_N: np.ndarray) -> float:
    """The sum over thresholds, without the ones that add no recall: only scores of relevant items count."""
    sorted_N, found = np.sort(score_N), np.sort(score_N[relevant_N])
    if not len(found):
        return math.nan
    thresholds, first = np.unique(found, return_index=True)
    recalled = len(found) - first  # relevant items at or above each threshold
    precision = recalled / (len(sorted_N) - np.searchsorted(sorted_N, thresholds, side="left"))
    return float((np.diff(first, append=len(found)) * precision).sum() / len(found))


@dataclass(frozen=True)
class MeanAveragePrecision:
    """Macro mAP: the mean over classes that occur. `per_class` is NaN for the `skipped` ones, which do not."""

    value: float
    per_class: np.ndarray
    skipped: tuple[int, ...]

    @property
    def num_skipped(self) -> int:
        return len(self.skipped)


def mean_average_precision(scores: Any, targets: Any) -> MeanAveragePrecision:
    """The AP of each class over all items, and their mean; how many classes have no item is in the result.

    Args:
        scores: (N, C), such as the softmax of the logits, so that items can be compared.
        targets: (N,) the column of each item's class, or (N, C) ones and zeros for several classes an item.
    """
    score_NC, target = as_array(scores, "scores", 2), as_array(targets, "targets")
    same_length(("scores", score_NC), ("targets", target))
    refuse_non_finite(score_NC, "scores")
    if target.ndim == 1:
        if not len(target) or target.dtype.kind not in "iu" or target.min() < 0 or target.max() >= score_NC.shape[1]:
            raise ValueError(f"targets must be columns of the scores, from 0 to {score_NC.shape[1] - 1}")
        target_NC = target[:, None] == np.arange(score_NC.shape[1])
    elif target.shape == score_NC.shape:
        target_NC = zeros_and_ones(target, "targets")
    else:
        raise ValueError(f"targets have the shape {target.shape}, and the scores {score_NC.shape}")
    columns_CN = np.ascontiguousarray(score_NC.T)
    per_class = np.array([average_precision_of(columns_CN[c], target_NC[:, c]) for c in range(len(columns_CN))])
    skipped = tuple(np.flatnonzero(np.isnan(per_class)).tolist())
    if len(skipped) == len(per_class):
        raise ValueError("no class has an item: there is no precision to average")
    return MeanAveragePrecision(float(np.nanmean(per_class)), per_class, skipped)


def kfold_summary(fold_scores: Any, fold_sizes: Any = None) -> dict[str, Any]:
    """Folds made one: `mean` and population `std` of the folds, unweighted; `pooled` weights them by their size.

    Args:
        fold_scores: one score for each fold.
        fold_sizes (*optional*): items of each fold; equal without it. For accuracy, pooled is then the accuracy of all
            items together.
    """
    scores = as_numbers(fold_scores, "fold_scores", 1)
    sizes = np.ones(len(scores)) if fold_sizes is None else as_numbers(fold_sizes, "fold_sizes", 1)
    same_length(("fold_scores", scores), ("fold_sizes", sizes))
    if sizes.min() <= 0:
        raise ValueError("a fold has no items")
    return {
        "mean": float(scores.mean()),
        "std": float(scores.std()),
        "pooled": float(scores @ sizes / sizes.sum()),
        "folds": scores.tolist(),
    }
