"""What a strategy is: how a pipeline gets from sounds to pictures, as an object that is asked at a few points.

A call draws R = Q x P x S rows: for each of Q sounds P prompts with S seeds each. A strategy says how many, may add
arguments to the call (`prepare`), may hold components as it needs them (`during`) and stand by while the pipeline
denoises (`adjust`, `keep`); what is left at the end is scored and ranked by the pipeline itself. Strategies hold
settings only, so one serves many calls.

Shapes: Q sounds, R rows at the start, A rows that are still there, E numbers of an embedding.
"""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from .steering_unibrivl import Moment, Steering


@dataclass
class Request:
    """A call, as strategies see it.

    Args:
        pipe: the pipeline.
        queries (`torch.Tensor`): (Q, E), what each picture should be near to; of length one.
        prompts (`list`): Q lists of P prompts, or None where the call has prompt_embeds.
        num_seeds (`int`): S.
        num_kept (`int`): pictures of each sound that the caller gets.
        call (`dict`): the arguments for the pipeline's own `__call__`.
        steering (*optional*): what stands by while it denoises.
    """

    pipe: Any
    queries: torch.Tensor
    prompts: list[list[str]] | None
    num_seeds: int
    num_kept: int
    call: dict[str, Any]
    steering: Steering | None = None

    @property
    def per_sound(self) -> int:
        return self.num_seeds * (1 if self.prompts is None else len(self.prompts[0]))

    @property
    def num_rows(self) -> int:
        return len(self.queries) * self.per_sound

    def sounds_of(self, rows: torch.Tensor) -> torch.Tensor:
        """(A,) which sound each row is drawn for."""
        return rows.cpu() // self.per_sound

    def prompts_of(self, rows: torch.Tensor) -> torch.Tensor:
        """(A,) a number for the prompt each row is drawn for: equal ones of a sound have the same."""
        if self.prompts is None:
            return torch.zeros_like(rows.cpu())
        first = torch.tensor([[one.index(prompt) for prompt in one] for one in self.prompts])
        return first.flatten()[rows.cpu() // self.num_seeds]

    def scores(
        self, pictures_A3HW: torch.Tensor, rows: torch.Tensor, gradients: bool = False, typical: float = 0.0
    ) -> torch.Tensor:
        """(A,) the matching score of each row's picture in 0..1 with its sound.

        Args:
            typical: this share of it is likeness to the mean of all these pictures of the sound.
        """
        found_AE = self.pipe.embed_pictures(pictures_A3HW, gradients=gradients)
        sounds_A = self.sounds_of(rows).to(found_AE.device)
        queries_QE = self.queries.to(found_AE)
        if typical:
            theirs_QA = torch.nn.functional.one_hot(sounds_A, len(queries_QE)).T.to(found_AE)
            means_QE = torch.nn.functional.normalize(theirs_QA @ found_AE, dim=-1)
            queries_QE = (1 - typical) * queries_QE + typical * means_QE
        return (found_AE * queries_QE[sounds_A]).sum(-1)

    def predicted(self, moment: Moment) -> torch.Tensor:
        """(A, 3, H, W) the pictures in 0..1 that the UNet is heading for."""
        assert self.steering is not None
        self.steering.pictures += len(moment.rows)
        return self.pipe.decode_pictures(moment.clean)


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """
    Args:
        num_candidates (`int`): pictures that are begun for each sound.
        num_prompts (`int`): so many labels share them at most, as the matcher is sure of each, where the label bank is
            asked for prompts.
    """

    num_candidates: int = 20  # UniBriVL paper: candidates of an audio
    num_prompts: int = 5  # OURS: several readings of a sound of which the matcher is not sure

    name = "strategy"
    steers = False  # whether adjust or keep do anything
    needs_prompts = True  # whether the label bank is asked where the caller has none

    def __post_init__(self):
        for field in ("num_candidates", "num_prompts"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")

    def check(self, request: Request) -> None:
        """Raises, before the first step, where the pipeline's components cannot do this."""

    def prepare(self, request: Request) -> dict[str, Any]:
        """Arguments to add to the pipeline's own call."""
        return {}

    def during(self, request: Request) -> AbstractContextManager:
        """Holds for the length of the pipeline's own call: components as the strategy needs them, then as before."""
        return nullcontext()

    def adjust(self, moment: Moment, request: Request) -> torch.Tensor | None:
        """Another output of the UNet for this step, or None."""
        return None

    def keep(self, moment: Moment, request: Request) -> torch.Tensor | None:
        """Which positions of the rows that are there stay after this step, or None for all."""
        return None

    def changed(self, **settings: Any) -> "Strategy":
        """The same strategy with other settings."""
        known = {one.name for one in dataclasses.fields(self)}
        for name in settings:
            if name not in known:
                raise ValueError(f"{self.name} has no setting {name!r}: it has {', '.join(sorted(known))}")
        return dataclasses.replace(self, **settings)

    def settings(self) -> dict[str, Any]:
        """For the receipt: with the name, all that `strategy_named` needs to make it again."""
        return {"name": self.name, **dataclasses.asdict(self)}


__all__ = ["Request", "Strategy"]
