"""Strategies at once: guidance for candidates that are being halved, image embeddings under guidance, and so on."""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from .steering_unibrivl import Moment
from .strategy_unibrivl import Request, Strategy


@dataclass(frozen=True, kw_only=True, init=False)
class Together(Strategy):
    """`Together(Guide(scale=0.2), Halving())`: at each step the first adjusts, then the second, and so for letting go.

    Args:
        parts: strategies, in the order in which they are asked.
        num_candidates, num_prompts (`int`, *optional*): by default the most that one of them begins.
    """

    parts: tuple[Strategy, ...]

    def __init__(self, *parts: Strategy, num_candidates: int | None = None, num_prompts: int | None = None):
        if len(parts) < 2 or not all(isinstance(one, Strategy) for one in parts):
            raise ValueError(f"Together takes two strategies or more, such as Guide(), Halving(); got {parts}")
        if any(isinstance(one, Together) for one in parts):
            raise ValueError("Together takes plain strategies: name all of them in one")
        most = {name: max(getattr(one, name) for one in parts) for name in ("num_candidates", "num_prompts")}
        given = {"num_candidates": num_candidates, "num_prompts": num_prompts}
        for name, value in most.items():
            object.__setattr__(self, name, value if given[name] is None else given[name])
        object.__setattr__(self, "parts", parts)
        self.__post_init__()

    @property
    def name(self) -> str:  # type: ignore[override]
        return "+".join(one.name for one in self.parts)

    @property
    def steers(self) -> bool:  # type: ignore[override]
        return any(one.steers for one in self.parts)

    @property
    def needs_prompts(self) -> bool:  # type: ignore[override]
        return all(one.needs_prompts for one in self.parts)

    def check(self, request: Request) -> None:
        for one in self.parts:
            one.check(request)

    def prepare(self, request: Request) -> dict[str, Any]:
        added: dict[str, Any] = {}
        for one in self.parts:
            more = one.prepare(request)
            if added.keys() & more.keys():
                raise ValueError(f"two of {self.name} want to set {', '.join(added.keys() & more.keys())}: take one")
            added |= more
        return added

    def during(self, request: Request) -> AbstractContextManager:
        stack = ExitStack()
        try:
            for one in self.parts:
                stack.enter_context(one.during(request))
        except BaseException:
            stack.close()
            raise
        return stack

    def adjust(self, moment: Moment, request: Request) -> torch.Tensor | None:
        output = None
        for one in self.parts:
            changed = one.adjust(moment, request)
            if changed is not None:
                output, moment = changed, moment.with_output(changed)
        return output

    def keep(self, moment: Moment, request: Request) -> torch.Tensor | None:
        places = None
        for one in self.parts:
            found = one.keep(moment, request)
            if found is not None:
                places = found if places is None else places[found]
                moment = moment.only(found)
        return places

    def changed(self, **settings: Any) -> "Together":
        """The same strategies; a setting goes to the one that has it."""
        own = {name: settings.pop(name) for name in ("num_candidates", "num_prompts") if name in settings}
        parts = list(settings.pop("parts", self.parts))
        for name, value in settings.items():
            having = [place for place, one in enumerate(parts) if name in one.settings()]
            if len(having) != 1:
                which = "none" if not having else "more than one"
                raise ValueError(f"{which} of {self.name} has the setting {name!r}: pass Together(...) with objects")
            parts[having[0]] = parts[having[0]].changed(**{name: value})
        counts: dict[str, Any] = {"num_candidates": self.num_candidates, "num_prompts": self.num_prompts}
        return Together(*parts, **(counts | own))

    def settings(self) -> dict[str, Any]:
        counts = {"num_candidates": self.num_candidates, "num_prompts": self.num_prompts}
        return {"name": self.name, **counts, "parts": [one.settings() for one in self.parts]}


__all__ = ["Together"]
