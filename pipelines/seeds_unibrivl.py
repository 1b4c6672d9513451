"""Which random numbers each candidate is drawn from, and how to draw them again.

One candidate takes the caller's generator as the plain pipeline would, so that it gives the same bits. Several have
generators of their own, whose seeds come from the caller's: one that is given up takes nothing from the others.
"""

import base64
from dataclasses import dataclass
from typing import Any

import torch

LARGEST = 2**63 - 1


@dataclass
class Seeds:
    """
    Args:
        generator: what the pipeline's own call gets: one generator, a list of R, or None for torch's own.
        seeds: R seeds; None where a row has no generator of its own.
        origin: what `Seeds.draw` was given, in plain values: for the receipt.
    """

    generator: torch.Generator | list[torch.Generator] | None
    seeds: list[int | None]
    origin: Any

    @classmethod
    def draw(
        cls, generator: Any, num_sounds: int, per_sound: int, device: str = "cpu", alike: bool = False
    ) -> "Seeds":
        """
        Args:
            generator: None, one, or a list with one for each sound or one for each candidate, sound by sound.
            device: whose own generator None stands for.
            alike (`bool`): one generator gives every sound the same random numbers, so that pictures differ by what
                is heard alone.
        """
        given = list(generator) if isinstance(generator, (list, tuple)) else [generator]
        num_rows = num_sounds * per_sound
        if len(given) not in (1, num_sounds, num_rows):
            raise ValueError(
                f"{len(given)} generators for {num_sounds} sounds of {per_sound} candidates: pass one, a list with "
                "one for each sound, or one for each candidate"
            )
        origin = [written(one, device) for one in given]
        if len(given) == num_rows and None not in given and num_rows > num_sounds:
            return cls(given, [found.get("seed") for found in origin], origin)
        if alike and len(given) == 1 and num_sounds > 1:
            numbers = torch.randint(LARGEST, (per_sound,), generator=on_cpu(given[0])).tolist() * num_sounds
            where = device if given[0] is None else given[0].device
            return cls([torch.Generator(where).manual_seed(number) for number in numbers], numbers, origin)
        if per_sound == 1:
            seeds = [found.get("seed") if len(given) == num_sounds else None for found in origin] * num_sounds
            return cls(generator, seeds[:num_sounds], origin)
        each = num_sounds * per_sound // len(given)
        numbers = [
            number for one in given for number in torch.randint(LARGEST, (each,), generator=on_cpu(one)).tolist()
        ]
        where = device if given[0] is None else given[0].device
        generators = [torch.Generator(where).manual_seed(number) for number in numbers]
        return cls(generators, list(numbers), origin)


def on_cpu(generator: torch.Generator | None) -> torch.Generator | None:
    """A generator that draws integers on the CPU; one of a GPU gives a seed for it, and moves on by that."""
    if generator is None or generator.device.type == "cpu":
        return generator
    number = torch.randint(LARGEST, (1,), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(number))


def written(generator: torch.Generator | None, device: str) -> dict[str, Any]:
    """A generator as it stands, in plain values: its seed if it is fresh, otherwise its whole state."""
    if generator is None:
        own = torch.Generator(device)
        state = torch.cuda.get_rng_state(device) if torch.device(device).type == "cuda" else torch.get_rng_state()
        own.set_state(state)
        generator = own
        fresh = False
    else:
        fresh = bool(
            (torch.Generator(generator.device).manual_seed(generator.initial_seed()).get_state()
             == generator.get_state()).all()
        )  # fmt: skip
    if fresh:
        return {"device": generator.device.type, "seed": generator.initial_seed()}
    state = base64.b64encode(generator.get_state().numpy().tobytes()).decode()
    return {"device": generator.device.type, "state": state}


def read(found: dict[str, Any]) -> torch.Generator:
    """What `written` wrote, as a generator."""
    generator = torch.Generator(found["device"])
    if "seed" in found:
        return generator.manual_seed(found["seed"])
    state = bytearray(base64.b64decode(found["state"]))
    return generator.set_state(torch.frombuffer(state, dtype=torch.uint8))


__all__ = ["Seeds", "read", "written"]
