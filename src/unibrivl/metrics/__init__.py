"""Numbers in, number out: the scores of every benchmark, as pure functions with stated tie and NaN rules.

`import unibrivl.metrics` loads nothing; a name is looked up in the table below when it is first used, so that ranks
cost numpy and only the probes cost torch or scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# module of this folder -> the public names it defines
_MODULES = {
    "calibration": ("FittedCalibration", "fit_calibration"),
    "captions": ("CaptionScores", "bleu", "caption_scores", "cider", "rouge_l"),
    "classification": (
        "MeanAveragePrecision",
        "accuracy",
        "average_precision",
        "kfold_summary",
        "mean_average_precision",
        "top_k_accuracy",
        "unweighted_average_recall",
    ),
    "correlation": ("average_ranks", "pearson", "spearman"),
    "distances": ("FeatureStatistics", "fid_from_features", "inception_score", "kid"),
    "events": ("EVENT_PRESETS", "Event", "EventScores", "event_scores", "frames_to_events", "segment_scores"),
    "feature_cache": ("cached_features",),
    "intervals": ("Interval", "binomial_test", "bootstrap", "fleiss_kappa", "paired_bootstrap", "wilson"),
    "meteor": ("NotAvailable", "meteor_exact_stem", "meteor_is_available"),
    "probes": ("CrossValidation", "Examples", "LinearProbe", "MLPProbe", "cross_validate"),
    "ptb": ("ptb_tokenize",),
    "ranking": (
        "CosineScores",
        "mean_rank",
        "median_rank",
        "mrr",
        "ranks",
        "recall_at",
        "retrieval_average_precisions",
        "retrieval_map",
        "retrieval_report",
    ),
    "relevance": ("Relevance",),
    "words": ("ErrorRates", "character_error_rate", "normalize_words", "whisper_english", "word_error_rate"),
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [*_LAZY]  # noqa: PLE0604  (names are resolved by __getattr__)

if TYPE_CHECKING:
    from unibrivl.metrics.calibration import *  # noqa: F403
    from unibrivl.metrics.captions import *  # noqa: F403
    from unibrivl.metrics.classification import *  # noqa: F403
    from unibrivl.metrics.correlation import *  # noqa: F403
    from unibrivl.metrics.distances import *  # noqa: F403
    from unibrivl.metrics.events import *  # noqa: F403
    from unibrivl.metrics.feature_cache import *  # noqa: F403
    from unibrivl.metrics.intervals import *  # noqa: F403
    from unibrivl.metrics.meteor import *  # noqa: F403
    from unibrivl.metrics.probes import *  # noqa: F403
    from unibrivl.metrics.ptb import *  # noqa: F403
    from unibrivl.metrics.ranking import *  # noqa: F403
    from unibrivl.metrics.relevance import *  # noqa: F403
    from unibrivl.metrics.words import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'unibrivl.metrics' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"unibrivl.metrics.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
