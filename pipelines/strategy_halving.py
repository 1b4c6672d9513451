"""Successive halving: candidates compete while they are being drawn, and the weaker ones are given up in rounds.

After a part of the steps the picture a candidate is heading for is decoded and scored. A candidate that is given up
costs no more; the default rounds spend about a third of what best-of-N does. They are as late as that allows: after a
tenth of the steps one can tell labels apart, and not yet which of two pictures of the same will be the better one.
"""

import math
from dataclasses import dataclass

import torch

from .steering_unibrivl import Moment
from .strategy_unibrivl import Request, Strategy


@dataclass(frozen=True, kw_only=True)
class Halving(Strategy):
    """
    Args:
        rounds: pairs of (share of the steps that are done, share of the candidates that stay). A round that falls
            between two steps is held before them. At least as many stay as the caller wants pictures.
    """

    rounds: tuple[tuple[float, float], ...] = ((0.15, 0.6), (0.25, 0.3), (0.5, 0.1))  # OURS: a third of the cost

    name = "halving"
    steers = True

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "rounds", tuple(tuple(map(float, one)) for one in self.rounds))
        whens, shares = [when for when, _ in self.rounds], [share for _, share in self.rounds]
        if not self.rounds or not all(0 < value < 1 for value in (*whens, *shares)):
            raise ValueError(f"rounds are pairs of shares between 0 and 1, such as ((0.2, 0.5),); got {self.rounds}")
        if whens != sorted(set(whens)) or shares != sorted(shares, reverse=True):
            raise ValueError(f"rounds go from early to late and from many to few; got {self.rounds}")

    def keep(self, moment: Moment, request: Request) -> torch.Tensor | None:
        share = self.share_after(moment.step, moment.num_steps)
        if share is None:
            return None
        stays = max(request.num_kept, math.ceil(share * request.per_sound))
        sounds_A = request.sounds_of(moment.rows)
        if stays * len(request.queries) >= len(moment.rows):
            return None
        scores_A = request.scores(request.predicted(moment), moment.rows).float().cpu()
        staying = []
        for sound in sounds_A.unique():
            mine = torch.where(sounds_A == sound)[0]
            best = scores_A[mine].argsort(descending=True, stable=True)[:stays]
            staying.append(mine[best].sort().values)
        return torch.cat(staying)

    def share_after(self, step: int, num_steps: int) -> float | None:
        """Which round, if any, falls on the end of this step."""
        # of two on the same step the later one holds; what falls short of a whole step by a rounding error is one
        ends = {max(1, math.floor(when * num_steps + 1e-9)): share for when, share in self.rounds}
        return ends.get(step + 1) if step + 1 < num_steps else None

    def cost(self, num_steps: int, num_kept: int = 1) -> float:
        """Evaluations of the UNet as a share of those of best-of-N, with a scheduler of one evaluation a step."""
        rows, spent = self.num_candidates, 0
        for step in range(num_steps):
            spent += rows
            share = self.share_after(step, num_steps)
            if share is not None:
                rows = min(rows, max(num_kept, math.ceil(share * self.num_candidates)))
        return spent / (num_steps * self.num_candidates)


__all__ = ["Halving"]
