"""Successive halving: candidates compete while they are being drawn, and the weaker ones are given up in rounds.

After a part of the steps the picture a candidate is heading for is decoded and scored. A candidate that is given up
costs no more; the default rounds spend about a third of what best-of-N does, and are as late as that allows.

How much a blurred picture scores depends on what it shows: one of a fire is soon near to its sound, one of a dog not
before it has a face. So at first candidates compete with those of the same prompt only, and each keeps its part.

The best of many by one score is also the one that its errors favour most. Where nothing but the sound says what is
drawn, it can help to ask in part for what most candidates are near to (`typical`).
"""

import math
from dataclasses import dataclass

import torch

from .shares_unibrivl import dealt
from .steering_unibrivl import Moment
from .strategy_unibrivl import Request, Strategy


@dataclass(frozen=True, kw_only=True)
class Halving(Strategy):
    """
    Args:
        rounds: pairs of (share of the steps that are done, share of the candidates that stay). A round that falls
            between two steps is held before them. At least as many stay as the caller wants pictures.
        apart: in rounds before this share of the steps each prompt keeps its part of the candidates, the best of its
            own; from then on all compete with all. 0 for all with all from the beginning.
        typical: share of what candidates compete by that is likeness to all those of the same sound that are there,
            the rest being likeness to the sound. Those that finish are ranked by the sound alone.
    """

    rounds: tuple[tuple[float, float], ...] = ((0.15, 0.7), (0.25, 0.3), (0.5, 0.1))  # OURS: a third of the cost
    apart: float = 0.5  # OURS: half of the steps, when a predicted picture scores about what it will in the end
    typical: float = 0.0  # OURS: a prompt says what is drawn; `AudioTokenMixin`, where a sound does, asks for more

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
        if not 0 <= self.apart <= 1:
            raise ValueError(f"apart is a share of the steps, from 0 to 1; got {self.apart}")
        if not 0 <= self.typical <= 1:
            raise ValueError(f"typical is a share of the score, from 0 to 1; got {self.typical}")

    def keep(self, moment: Moment, request: Request) -> torch.Tensor | None:
        held = self.round_after(moment.step, moment.num_steps)
        if held is None:
            return None
        when, share = held
        stays = max(request.num_kept, math.ceil(share * request.per_sound))
        sounds_A = request.sounds_of(moment.rows)
        if stays * len(request.queries) >= len(moment.rows):
            return None
        scores_A = request.scores(request.predicted(moment), moment.rows, typical=self.typical).float().cpu()
        prompts_A = request.prompts_of(moment.rows) if when < self.apart else torch.zeros_like(sounds_A)
        staying = []
        for sound in sounds_A.unique():
            mine = torch.where(sounds_A == sound)[0]
            mine = mine[scores_A[mine].argsort(descending=True, stable=True)]
            staying.append(best_of_each(mine, prompts_A[mine], stays).sort().values)
        return torch.cat(staying)

    def round_after(self, step: int, num_steps: int) -> tuple[float, float] | None:
        """The round, if any, that falls on the end of this step."""
        # of two on the same step the later one holds; what falls short of a whole step by a rounding error is one
        ends = {max(1, math.floor(when * num_steps + 1e-9)): (when, share) for when, share in self.rounds}
        return ends.get(step + 1) if step + 1 < num_steps else None

    def cost(self, num_steps: int, num_kept: int = 1) -> float:
        """Evaluations of the UNet as a share of those of best-of-N, with a scheduler of one evaluation a step."""
        rows, spent = self.num_candidates, 0
        for step in range(num_steps):
            spent += rows
            held = self.round_after(step, num_steps)
            if held is not None:
                rows = min(rows, max(num_kept, math.ceil(held[1] * self.num_candidates)))
        return spent / (num_steps * self.num_candidates)


def best_of_each(places: torch.Tensor, groups: torch.Tensor, stays: int) -> torch.Tensor:
    """`stays` of some places, which are in order: the first of each group, as many as are its part of all."""
    members = sorted((places[groups == group] for group in groups.unique()), key=len)  # of equal claims the rarest
    seats = dealt([len(some) for some in members], stays)
    return torch.cat([some[:count] for some, count in zip(members, seats, strict=True)])


__all__ = ["Halving"]
