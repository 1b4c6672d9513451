"""How candidates are shared: whole numbers in proportion to claims, by the way of d'Hondt.

Each in turn goes to whoever has most of a claim to each that they would then have. More to share never means less for
anyone, so shares of fewer candidates are parts of shares of more.
"""

import math
from collections.abc import Sequence

HEDGE = 4  # OURS: of twenty candidates sixteen are for the likeliest label and one for each of four others at most


def shares(logits: Sequence[float], count: int) -> list[int]:
    """How many candidates each label gets of `count`: in proportion to its probability.

    One in `HEDGE` at most is for a label that would get none, the likeliest first: pictures are ranked by the sound
    itself, which may know better.
    """
    hedges = max(1, min(len(logits), count // HEDGE))
    most = max(logits)
    claims = [math.exp(logit - most) for logit in logits]
    return dealt(claims, count, [1] * hedges + [0] * (len(logits) - hedges))


def dealt(claims: Sequence[float], count: int, begun: Sequence[int] = ()) -> list[int]:
    """How many of `count` each gets; of equal claims the first.

    Args:
        begun: what each has before anything is dealt; it counts.
    """
    seats = list(begun) or [0] * len(claims)
    for _ in range(count - sum(seats)):
        worth = [claim / (taken + 1) for claim, taken in zip(claims, seats, strict=True)]
        seats[worth.index(max(worth))] += 1
    return seats


__all__ = ["dealt", "shares"]
