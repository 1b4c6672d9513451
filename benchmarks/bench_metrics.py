"""Metrics against what one would write or install: ranks of 10,000 x 10,000, average precision, FID.

* ranks of a 10,000 x 10,000 matrix against numpy's argsort of every row, and against scikit-learn's top-k accuracy,
  which gives R@1 only;
* both directions from two sets of 512 wide vectors (products included) against product and argsort;
* macro mAP of 309 classes against scikit-learn's average precision, class by class;
* FID of 2,048 features against scipy's square root of a matrix.

Ours and theirs are timed in turn, with the same threads; the median of the ratios counts, and the values must agree.
Writes `results/metrics.json` and fails if a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe, installed
from scipy.linalg import sqrtm
from sklearn.metrics import average_precision_score, top_k_accuracy_score

from unibrivl import metrics

RESULTS = Path(__file__).resolve().parent / "results" / "metrics.json"
LIMIT = 1.0  # never slower
DIFFERENCE_LIMIT = 1e-6


def ranks_by_sorting(scores_QG: np.ndarray) -> np.ndarray:
    order_QG = np.argsort(-scores_QG, axis=1)
    return 1 + (order_QG == np.arange(len(scores_QG))[:, None]).argmax(axis=1)


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    return vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)


def fid_by_square_root(real: np.ndarray, fake: np.ndarray) -> float:
    one, two = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = sqrtm(one @ two)
    return float(((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(one + two - 2 * np.real(root)))


def cases(size: int, features: int) -> dict[str, tuple[Callable, Callable]]:
    """Name -> ours and theirs, each giving a number that must be the other's."""
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((size, size), dtype=np.float32)
    scores[np.arange(size), np.arange(size)] += 3
    labels = np.arange(size)
    audio = generator.standard_normal((size, 512), dtype=np.float32)
    image = audio + 5 * generator.standard_normal((size, 512), dtype=np.float32)

    def both_by_sorting() -> float:
        cosines = unit(audio) @ unit(image).T
        return float(np.mean([(1 / ranks_by_sorting(one)).mean() for one in (cosines, cosines.T)]))

    def both_by_ours() -> float:
        cosines = metrics.CosineScores(audio, image)
        return float(np.mean([metrics.mrr(metrics.ranks(one)) for one in (cosines, cosines.T)]))

    targets = generator.integers(0, 309, size)
    class_scores = generator.random((size, 309)).round(3)
    one_hot = np.eye(309, dtype=int)[targets]
    real = generator.standard_normal((features + 500, features))
    fake = 0.1 + 1.1 * generator.standard_normal((features + 500, features))
    return {
        "ranks_argsort": (
            lambda: metrics.mrr(metrics.ranks(scores)),
            lambda: float((1 / ranks_by_sorting(scores)).mean()),
        ),
        "ranks_sklearn_top1": (
            lambda: metrics.top_k_accuracy(scores, labels),
            lambda: float(top_k_accuracy_score(labels, scores, k=1, labels=labels)),
        ),
        "both_directions_argsort": (both_by_ours, both_by_sorting),
        "macro_map_sklearn": (
            lambda: metrics.mean_average_precision(class_scores, targets).value,
            lambda: float(average_precision_score(one_hot, class_scores, average="macro")),
        ),
        "fid_sqrtm": (lambda: metrics.fid_from_features(real, fake), lambda: fid_by_square_root(real, fake)),
    }


def timed(function: Callable) -> tuple[float, float]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def compare(ours: Callable, theirs: Callable, runs: int) -> dict:
    ours()
    pairs = [(timed(ours), timed(theirs)) for _ in range(runs)]
    ratios = [other[0] / mine[0] for mine, other in pairs]
    (_, mine), (_, other) = pairs[0]
    return {
        "ours_s": round(statistics.median(pair[0][0] for pair in pairs), 4),
        "theirs_s": round(statistics.median(pair[1][0] for pair in pairs), 4),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
        "difference": abs(mine - other) / max(1.0, abs(other)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=10_000, help="queries, and gallery entries (default: 10000)")
    parser.add_argument("--features", type=int, default=2048, help="features of the FID (default: 2048)")
    parser.add_argument("--runs", type=int, default=3, help="counted pairs (default: 3)")
    args = parser.parse_args()
    found = {name: compare(*pair, args.runs) for name, pair in cases(args.size, args.features).items()}
    result = {
        "machine": describe(),
        "scikit-learn": installed("scikit-learn"),
        "scipy": installed("scipy"),
        "size": args.size,
        "features": args.features,
        "cases": found,
        "limits": {"ratio": LIMIT, "difference": DIFFERENCE_LIMIT},
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    missed = [name for name, one in found.items() if one["ratio"] < LIMIT or one["difference"] > DIFFERENCE_LIMIT]
    print("missed: " + ", ".join(missed) if missed else "all limits kept")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
