"""Best of N: every candidate is drawn to its end, and the sound chooses. The paper's way, and the yardstick."""

from dataclasses import dataclass

from .strategy_unibrivl import Strategy


@dataclass(frozen=True, kw_only=True)
class Rerank(Strategy):
    """All candidates are finished and ranked by their matching score. With one this is the plain pipeline."""

    name = "rerank"


__all__ = ["Rerank"]
