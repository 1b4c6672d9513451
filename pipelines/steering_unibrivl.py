"""Steering: a hand on a diffusers pipeline while it denoises, without a copy of its loop.

A pipeline of diffusers meets the outside twice in each step: it asks the UNet, then it asks the scheduler for the next
latents. `Steering` stands at both doors for the length of one call. At the scheduler's it shows a strategy the moment,
lets it change the UNet's output (guidance) or let rows go (halving), and hands on what is left. At the UNet's it gives
the rows that are still there their own conditions, and cuts large batches into pieces that fit the memory. Everything
else (prompts, LoRA, IP-Adapter, offload, callbacks) stays the pipeline's own.

Shapes: R rows of latents at the start, A rows that are still there, C channels, H x W latents.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

from .clean_unibrivl import Level, clean_latents, level_of, output_for
from .rows_unibrivl import rows_that_fit


class Moment:
    """One step, as a strategy sees it: before the scheduler has made it.

    Attributes:
        step, num_steps (`int`): the number of this step, from 0, and of all of them.
        timestep: the scheduler's own.
        rows (`torch.Tensor`): (A,) which of the rows of the start are still there.
        latents (`torch.Tensor`): (A, C, H, W), noisy.
        output (`torch.Tensor`): (A, C, H, W), what the UNet predicted, after classifier-free guidance.
    """

    def __init__(self, scheduler, step, num_steps, timestep, rows, latents, output):
        self.scheduler, self.step, self.num_steps, self.timestep = scheduler, step, num_steps, timestep
        self.rows, self.latents, self.output = rows, latents, output

    @functools.cached_property
    def level(self) -> Level:
        """How noisy the latents are."""
        return level_of(self.scheduler, self.timestep)

    @functools.cached_property
    def clean(self) -> torch.Tensor:
        """(A, C, H, W) in float32: what the UNet takes the finished latents to be."""
        return clean_latents(self.scheduler, self.output, self.timestep, self.latents)

    def toward(self, clean_ACHW: torch.Tensor) -> torch.Tensor:
        """The output that would have predicted `clean_ACHW` instead."""
        return output_for(self.scheduler, clean_ACHW, self.timestep, self.latents)

    def with_output(self, output_ACHW: torch.Tensor) -> "Moment":
        """The same moment, had the UNet said this."""
        return Moment(self.scheduler, self.step, self.num_steps, self.timestep, self.rows, self.latents, output_ACHW)

    def only(self, places: torch.Tensor) -> "Moment":
        """The same moment for some of the rows that are there."""
        there = places.to(self.latents.device)
        return Moment(
            self.scheduler, self.step, self.num_steps, self.timestep, self.rows[places.cpu()], self.latents[there],
            self.output[there],
        )  # fmt: skip


class Steering:
    """
    Args:
        pipe: a pipeline with `unet` and `scheduler`.
        num_rows (`int`): rows of latents it will denoise.
        adjust (*optional*): moment -> another output (A, C, H, W), or None to leave it.
        keep (*optional*): moment -> the positions among A that stay, or None for all. They leave after this step.
        max_rows (`int`, *optional*): at most so many rows in one call of the UNet; those of classifier-free guidance
            count, and the two of a candidate stay together. By default what fits the free memory.

    Attributes:
        rows (`torch.Tensor`): which of the rows of the start are still there.
        max_rows (`int`): what was given or, from the first step on, what was found to fit.
        evaluations (`int`): rows that the UNet was asked for; classifier-free guidance counts once.
        pictures (`int`): predicted pictures that a strategy decoded; it counts them itself.
    """

    def __init__(
        self,
        pipe: Any,
        num_rows: int,
        adjust: Callable[[Moment], torch.Tensor | None] | None = None,
        keep: Callable[[Moment], torch.Tensor | None] | None = None,
        max_rows: int | None = None,
    ):
        if max_rows is not None and max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, or None for what fits the memory; got {max_rows}")
        self.pipe, self.num_rows, self.max_rows = pipe, num_rows, max_rows
        self.adjust, self.keep = adjust, keep
        self.rows = torch.arange(num_rows)
        self.steps = self.evaluations = self.pictures = 0
        self._restore: list[Callable[[], None]] = []

    def __enter__(self) -> "Steering":
        unet = self.pipe.unet
        # a module compiled in place is entered by that, not by its forward
        entrance = "_compiled_call_impl" if getattr(unet, "_compiled_call_impl", None) is not None else "forward"
        try:
            self._stand_before(self.pipe.scheduler, "step", self._step)
            self._stand_before(unet, entrance, self._forward)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc) -> None:
        while self._restore:
            self._restore.pop()()

    def _stand_before(self, owner: Any, name: str, door: Callable) -> None:
        original = getattr(owner, name)
        had, before = name in vars(owner), vars(owner).get(name)  # offload hooks keep theirs there
        if getattr(before, "is_a_door", False):
            raise RuntimeError(
                f"this {type(owner).__name__} is in another call of a pipeline with a sound. Wait for its end, or "
                "give each thread components of its own"
            )

        @functools.wraps(original)  # pipelines read the signature, to see what a scheduler's step takes
        def through(*args, **kwargs):
            return door(original, *args, **kwargs)

        def restore():
            if vars(owner).get(name) is not through:  # offload hooks were taken off and put on anew meanwhile
                return
            if had:
                setattr(owner, name, before)
            else:
                delattr(owner, name)

        through.is_a_door = True  # type: ignore[attr-defined]
        setattr(owner, name, through)
        self._restore.append(restore)

    # ---- the scheduler's door

    def _step(self, original, model_output, timestep, sample, *args, **kwargs):
        if len(sample) != len(self.rows):
            raise ValueError(
                f"{len(sample)} rows of latents arrived at the scheduler and {len(self.rows)} were expected: a "
                "strategy counts one row for each candidate"
            )
        scheduler = self.pipe.scheduler
        moment = Moment(scheduler, self.steps, len(scheduler.timesteps), timestep, self.rows, sample, model_output)
        changed = self.adjust(moment) if self.adjust else None
        if changed is not None:
            moment = moment.with_output(changed)
        staying = self.keep(moment) if self.keep else None
        generators = kwargs.get("generator")
        if isinstance(generators, list):
            kwargs["generator"] = [generators[row] for row in self.rows.tolist()]
        result = original(moment.output, timestep, sample, *args, **kwargs)
        self.steps += 1
        if staying is not None and len(staying) < len(self.rows):
            staying = staying.cpu()
            let_go(scheduler, staying, len(self.rows))
            self.rows = self.rows[staying]
            result = self._only(result, staying.to(sample.device))
        return result

    @staticmethod
    def _only(result: Any, staying: torch.Tensor) -> Any:
        """The rows of a scheduler's answer that stay; pipelines ask for it as a tuple."""
        if isinstance(result, tuple):
            return tuple(one[staying] if isinstance(one, torch.Tensor) else one for one in result)
        for name, value in result.items():
            if isinstance(value, torch.Tensor):
                result[name] = value[staying]
        return result

    # ---- the UNet's door

    def _forward(self, original, sample, timestep, *args, **kwargs):
        """The UNet, on the conditions of the rows that are there, in pieces of at most `max_rows`."""
        if args:
            raise ValueError("the UNet was called with positional conditions: steering needs them by name")
        there = len(self.rows)
        copies, odd = divmod(len(sample), there)  # of each row: 2 with classifier-free guidance, 3 with PAG besides
        if odd:
            raise ValueError(f"{len(sample)} rows arrived at the UNet for {there} candidates: they are no multiple")
        self.evaluations += there
        if self.max_rows is None:
            self.max_rows = max(copies, rows_that_fit(self.pipe.unet, sample))
        start, pieces = 0, []
        while start < there:
            # the copies of a row stay together: attention processors such as PAG's tell them by their place
            size = max(1, self.max_rows // copies)
            places = torch.arange(start, min(start + size, there))
            try:
                pieces.append(self._piece(original, sample, timestep, kwargs, places, copies))
            except torch.OutOfMemoryError:
                if len(places) == 1:
                    raise
                self.max_rows = copies * (len(places) // 2)
                continue
            start += len(places)
        outputs = [one[0] if isinstance(one, tuple) else one.sample for one in pieces]
        if len(pieces) == 1:
            return pieces[0]
        # of each piece its unconditional rows, then its conditional ones: in the order the pipeline expects
        whole = torch.cat([part for copy in range(copies) for part in (one.chunk(copies)[copy] for one in outputs)])
        return (whole,) if isinstance(pieces[0], tuple) else type(pieces[0])(sample=whole)

    def _piece(self, original, sample, timestep, kwargs, places, copies):
        there = len(self.rows)
        if len(places) < there:
            of_sample = torch.cat([places + copy * there for copy in range(copies)]).to(sample.device)
            timestep = timestep[of_sample] if torch.is_tensor(timestep) and timestep.dim() else timestep
            sample = sample[of_sample]
        if len(places) < self.num_rows:
            of_start = torch.cat([self.rows[places] + copy * self.num_rows for copy in range(copies)])
            kwargs = pick(kwargs, of_start.to(sample.device), copies * self.num_rows)
        return original(sample, timestep, **kwargs)


def pick(value: Any, rows: torch.Tensor, total: int) -> Any:
    """A copy of nested arguments in which every tensor of `total` rows has only some of them, in the order given."""
    if isinstance(value, torch.Tensor):
        return value[rows.to(value.device)] if value.dim() and len(value) == total else value
    if isinstance(value, dict):
        return {name: pick(one, rows, total) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(pick(one, rows, total) for one in value)
    return value


def let_go(scheduler: Any, staying: torch.Tensor, total: int) -> None:
    """The rows that stay, of all that a scheduler remembers of earlier steps. Its tables have one dimension."""
    for name, value in list(vars(scheduler).items()):
        if isinstance(value, torch.Tensor) and value.dim() < 3:
            continue
        if isinstance(value, (torch.Tensor, list)):
            setattr(scheduler, name, pick(value, staying, total))
        elif name == "noise_sampler" and value is not None:  # a Brownian path for each row, by which it is called
            setattr(scheduler, name, NoiseOfRows(value, staying))


class NoiseOfRows:
    """A scheduler's own source of noise, asked for the rows that are still there."""

    def __init__(self, sampler: Callable, rows: torch.Tensor):
        self.sampler, self.rows = sampler, rows

    def __call__(self, *args, **kwargs) -> torch.Tensor:
        noise = self.sampler(*args, **kwargs)
        return noise[self.rows.to(noise.device)]


__all__ = ["Moment", "Steering", "pick"]
