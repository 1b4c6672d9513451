"""How a pipeline of ours stands before the call of its parent: whose arguments it shows, what it checks each step."""

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback


class CallsParent:
    """For a class that stands before a pipeline of diffusers and has a `__call__` with arguments of its own.

    A pipeline that inherits from both gets a `__call__` whose signature and docstring say what both take.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        parents = [one for one in cls.__mro__ if not issubclass(one, CallsParent) and "__call__" in vars(one)]
        if not parents or "__call__" in vars(cls):  # a mixin without a pipeline, or a pipeline with a call of its own
            return
        first = next(one for one in cls.__mro__ if "__call__" in vars(one))
        ours, theirs = vars(first)["__call__"], vars(parents[0])["__call__"]

        @functools.wraps(ours)
        def __call__(self, *args, **kwargs):
            return ours(self, *args, **kwargs)

        __call__.__signature__ = joined_signature(ours, theirs)  # type: ignore[attr-defined]
        __call__.__doc__ = (
            f"{inspect.getdoc(ours)}\n\nAll else is of `{parents[0].__name__}`:\n\n{inspect.getdoc(theirs)}"
        )
        cls.__call__ = __call__  # type: ignore[assignment]

    def _call_arguments(self, prompt: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the pipeline's own call by name; one that it does not have is a TypeError, as ever."""
        parent = next(
            one for one in type(self).__mro__ if not issubclass(one, CallsParent) and "__call__" in vars(one)
        )
        theirs = inspect.signature(vars(parent)["__call__"])
        named = dict(theirs.bind(self, prompt, *args, **kwargs).arguments)
        named.pop("self")
        more = named.pop("kwargs", {})
        unknown = sorted(more.keys() - {"callback", "callback_steps"})  # diffusers itself would not say a word
        if unknown:
            raise TypeError(f"{type(self).__name__} takes no argument {unknown[0]!r}")
        return {**named, **more}

    def _refuse_without_sound(self, **given) -> None:
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} is about a sound, and there is none: pass audio= or audio_embeds= too")


def joined_signature(ours: Any, theirs: Any) -> inspect.Signature:
    """The parent's parameters, as they can be passed by place, then ours, by name."""
    kinds = inspect.Parameter
    parent, own = inspect.signature(theirs), inspect.signature(ours)
    first = [one for one in parent.parameters.values() if one.kind is not kinds.VAR_KEYWORD]
    added = [
        one for one in own.parameters.values() if one.kind is kinds.KEYWORD_ONLY and one.name not in parent.parameters
    ]
    rest = [one for one in parent.parameters.values() if one.kind is kinds.VAR_KEYWORD]
    return parent.replace(parameters=[*first, *added, *rest], return_annotation=own.return_annotation)


def with_parameters_of(theirs: Any, left_out: Collection[str] = ()) -> Callable[[Any], Any]:
    """Lets a call that hands its `**kwargs` on to another show what that one takes, by name.

    Args:
        left_out: what it takes and the call does not.
    """

    def shown(ours: Any) -> Any:
        own = inspect.signature(ours)
        *mine, rest = own.parameters.values()
        given = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, one in inspect.signature(theirs).parameters.items()
            if name not in own.parameters
            and name not in left_out
            and one.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        ]
        ours.__signature__ = own.replace(parameters=[*mine, *given, rest])
        return ours

    return shown


def checked_at_each_step(call: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call whose callback ends it where the latents are no numbers any more, after the caller's own."""
    callback = call.get("callback_on_step_end")
    wanted = call.get("callback_on_step_end_tensor_inputs") or ["latents"]
    if isinstance(callback, (PipelineCallback, MultiPipelineCallbacks)):
        wanted = callback.tensor_inputs

    def checked(pipe, step, timestep, tensors):
        latents = tensors["latents"]
        if callback is not None:
            given = {name: value for name, value in tensors.items() if name in wanted}
            tensors = callback(pipe, step, timestep, given)
            latents = tensors.get("latents", latents)
        if not bool(torch.isfinite(latents).all()):
            raise ValueError(
                f"the latents are no numbers after step {step + 1} (timestep {int(timestep)}): use float32 or "
                "bfloat16, a lower guidance_scale, or less guidance by the strategy"
            )
        return tensors

    inputs = [*wanted, *({"latents"} - set(wanted))]
    return {"callback_on_step_end": checked, "callback_on_step_end_tensor_inputs": inputs}


@contextmanager
def exchanged(pipe: Any, **parts: Any) -> Iterator[None]:
    """While it lasts, a pipeline has other components; its config, which would be saved, is left alone."""
    before = {name: pipe.__dict__[name] for name in parts}
    pipe.__dict__.update(parts)
    try:
        yield
    finally:
        pipe.__dict__.update(before)


__all__ = ["CallsParent", "checked_at_each_step", "exchanged", "with_parameters_of"]
