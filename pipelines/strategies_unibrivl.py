"""The strategies by name, for people and for receipts."""

from typing import Any

from .strategy_embed import Embed
from .strategy_guide import Guide
from .strategy_halving import Halving
from .strategy_rerank import Rerank
from .strategy_together import Together
from .strategy_unibrivl import Strategy

STRATEGIES: dict[str, type[Strategy]] = {one.name: one for one in (Rerank, Halving, Guide, Embed)}


def strategy_named(given: Any, **settings: Any) -> Strategy:
    """A strategy object: itself, or by its name with settings; several joined by "+", as in "guide+halving"."""
    if isinstance(given, Strategy):
        return given.changed(**settings) if settings else given
    names = [one.strip() for one in given.split("+")] if isinstance(given, str) else [given]
    unknown = [one for one in names if one not in STRATEGIES]
    if unknown:
        raise ValueError(
            f"there is no strategy {unknown[0]!r}: it is one of {', '.join(STRATEGIES)}, several joined by '+', or an "
            "object of them"
        )
    if len(names) == 1:
        return STRATEGIES[names[0]]().changed(**settings)
    if "parts" in settings:  # as a receipt has them
        parts = [dict(one) for one in settings.pop("parts")]
        return Together(*(strategy_named(one.pop("name"), **one) for one in parts)).changed(**settings)
    return Together(*(STRATEGIES[one]() for one in names)).changed(**settings)


__all__ = ["STRATEGIES", "strategy_named"]
