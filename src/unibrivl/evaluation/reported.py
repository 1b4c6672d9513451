"""What papers report, beside which our scores are printed: never mixed with them.

Figures of "UniBriVL" are of its paper's tables, those of "AAI" of that paper's (arXiv 2303.14318 for Align, Adapt,
Inject's zero-shot table); both list other systems' numbers too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A number that somebody else published."""

    system: str
    value: float
    source: str


# (benchmark, metric) -> figures
REPORTED: dict[tuple[str, str], tuple[Figure, ...]] = {
    ("esc50", "probe_accuracy"): (
        Figure("OpenL3", 0.733, "UniBriVL"),
        Figure("Wav2CLIP", 0.8595, "UniBriVL"),
        Figure("UniBriVL", 0.9307, "UniBriVL"),
    ),
    ("esc50", "zero_shot_accuracy"): (
        Figure("Wav2CLIP", 0.414, "UniBriVL"),
        Figure("UniBriVL", 0.412, "UniBriVL"),
        Figure("CAVT-MAE", 0.428, "AAI"),
    ),
}
