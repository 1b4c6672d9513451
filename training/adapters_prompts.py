"""Prompt frames: learned vectors that stand before a tower's own frames while its transformer runs.

They go in with the input of the first layer, behind convolutions and positions, and are seen by every frame in every
layer. Each layer gives them on beside its own output and not in it: what watches a layer from outside (the layer mix,
recorded hidden states, the norm behind the last layer) sees the tower's frames and no others, so that masks, pooling
and class tokens need to know nothing of them. A tower of several transformers, as SpeechLM, has frames for each.

PEFT's prompt learning puts tokens before token ids, so this part is ours. What PEFT keeps, saves, loads and switches
are the frames themselves: a slot for them is a table in the transformer, whose rows are an adapter's trainable tokens.
A slot that no adapter fills changes nothing, and PEFT refuses such an adapter for a model that has no slot.

Shapes: B batch, P prompt frames, T frames, D width.
"""

from __future__ import annotations

import functools
import inspect
import re
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

SLOT = re.compile(r"(?:(.*)\.)?prompt_frames_(\d+)")  # the transformer's name, and how many
STD = 0.02  # OURS: as the towers' own weights start
GROWS = ("attention_mask", "padding_BT", "lengths")  # arguments of a layer that count frames
# and those that need no change
KNOWN = ("hidden_states", "table_Rd", "position_bias", "index", "output_attentions", "kwargs", *GROWS)

_under_way = threading.local()  # transformer -> frames between two of its layers, of the call that is running


def open_slot(model: nn.Module, name: str, num_prompts: int) -> str:
    """Make room for frames in the transformer `name` of a model; the name of the slot comes back."""
    owner = model.get_submodule(name)
    layers = layers_of(owner, name)
    slot = f"prompt_frames_{num_prompts}"
    path = f"{name}.{slot}" if name else slot
    if hasattr(owner, slot):
        return path
    like = next(layers[0].parameters())
    table = nn.Embedding(num_prompts, width_of(layers[0], name), device=like.device, dtype=like.dtype)
    nn.init.normal_(table.weight, std=STD)  # where an adapter's frames start; nothing else looks at it
    owner.add_module(slot, table.requires_grad_(False))
    if not runs_here(layers[0]):
        owner.register_forward_pre_hook(begin)
        for layer in layers:
            layer.forward = partial(run_layer, owner, layer)
    return path


def open_slots(model: nn.Module, names: Any) -> None:
    """Every slot among the names of an adapter's modules."""
    for name in names or ():
        if found := SLOT.fullmatch(name):
            open_slot(model, found[1] or "", int(found[2]))


def close_slots(model: nn.Module) -> None:
    """The model as it was before any slot was opened."""
    for owner in list(model.modules()):
        for name in [name for name, _ in owner.named_children() if SLOT.fullmatch(name)]:
            delattr(owner, name)
        for key in [key for key, hook in owner._forward_pre_hooks.items() if hook is begin]:
            del owner._forward_pre_hooks[key]
        if runs_here(owner):
            del owner.forward


def runs_here(layer: nn.Module) -> bool:
    return getattr(vars(layer).get("forward"), "func", None) is run_layer


def mend_slots(model: nn.Module) -> None:
    """Let adapters without frames in a slot be loaded and saved beside one that has some: PEFT forgets to ask."""
    for _, slot in slots_of(model):
        if type(slot) is not slot_class() and hasattr(slot, "token_adapter"):
            slot.__class__ = slot_class()


@functools.cache
def slot_class() -> type:
    from peft.utils.other import TrainableTokensWrapper

    class Slot(TrainableTokensWrapper):
        def adapter_state_dict(self, adapter_name, state_dict):  # type: ignore[override]  # as PEFT's own has it
            return super().adapter_state_dict(adapter_name, state_dict) if self.has(adapter_name) else {}

        def adapter_state_dict_load_map(self, adapter_name):
            return super().adapter_state_dict_load_map(adapter_name) if self.has(adapter_name) else {}

        def has(self, adapter_name) -> bool:
            return adapter_name in self.token_adapter.trainable_tokens_delta

    return Slot


def slots_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if SLOT.fullmatch(name))


def layers_of(owner: nn.Module, name: str) -> nn.ModuleList:
    """The layers of a transformer, checked: each takes frames first, and nothing that counts them but masks."""
    layers = next((child for key, child in owner.named_children() if key in ("layers", "layer")), None)
    fault = "it is no transformer"
    if isinstance(layers, nn.ModuleList):
        asked = inspect.signature(type(layers[0]).forward).parameters
        strange = [key for key in asked if key not in ("self", *KNOWN)]
        if "hidden_states" in asked and not strange:
            return layers
        if "hidden_states" in asked:
            fault = f"a {type(layers[0]).__name__} takes {', '.join(strange)}, which would have to grow with them"
    raise ValueError(
        f"prompt frames cannot be put before the layers of {name or type(owner).__name__}: {fault}. Use "
        "adapter.method=lora or last_k for this tower"
    )


def width_of(layer: nn.Module, name: str) -> int:
    """D, read from the first norm of a layer."""
    for module in layer.modules():
        if isinstance(module, nn.LayerNorm):
            return module.normalized_shape[-1]
    raise ValueError(f"the layers of {name} have no LayerNorm to read their width from: use adapter.method=lora")


def chosen(owner: nn.Module) -> torch.Tensor | None:
    """The frames (P, D) of the adapter that is on; None where it has none here, or no adapter is on."""
    for name, slot in owner.named_children():
        if SLOT.fullmatch(name) and hasattr(slot, "token_adapter") and (frames := filled(slot)) is not None:
            return frames
    return None


def filled(slot: Any) -> torch.Tensor | None:
    """What the adapter that is on keeps in a slot, by PEFT's wrapper around it."""
    layer = slot.token_adapter
    if slot.disable_adapters or layer.disable_adapters or not slot.active_adapters or not layer.active_adapters:
        return None
    name = layer.active_adapters[0]
    return layer.trainable_tokens_delta.get(name)


def begin(owner: nn.Module, arguments: Any) -> None:
    """Before a transformer runs: nothing is under way. What an error left behind is forgotten."""
    frames_of_all().pop(id(owner), None)


def frames_of_all() -> dict[int, torch.Tensor]:
    if not hasattr(_under_way, "frames"):
        _under_way.frames = {}
    return _under_way.frames


def run_layer(owner: nn.Module, layer: nn.Module, hidden_states: torch.Tensor, *args, **kwargs):
    """A layer's own forward over P + T frames, of which the T come back and the P wait for the next layer."""
    own = type(layer).forward
    prompts_PD = chosen(owner)
    if prompts_PD is None:
        return own(layer, hidden_states, *args, **kwargs)
    if getattr(layer, "gradient_checkpointing", False) and layer.training:
        raise ValueError(
            "prompt frames and gradient checkpointing do not go together, since frames pass from layer to layer "
            "beside their inputs: set gradient_checkpointing=false, or adapter.method=lora"
        )
    waiting = frames_of_all()
    prompts_BPD = waiting.pop(id(owner), None)
    if prompts_BPD is None:
        prompts_BPD = prompts_PD.to(hidden_states.dtype).expand(len(hidden_states), -1, -1)
    count, frames = prompts_BPD.shape[1], hidden_states.shape[1]
    bound = inspect.signature(own).bind(layer, hidden_states, *args, **kwargs)
    for given in (bound.arguments, bound.arguments.get("kwargs", {})):
        for name in GROWS:
            if given.get(name) is not None:
                given[name] = grown(given[name], name, count, frames)
    bound.arguments["hidden_states"] = torch.cat([prompts_BPD, hidden_states], dim=1)
    output = own(*bound.args, **bound.kwargs)
    states_BTD = output[0] if isinstance(output, tuple) else output
    waiting[id(owner)] = states_BTD[:, :count]
    rest_BTD = states_BTD[:, count:]
    return (rest_BTD, *output[1:]) if isinstance(output, tuple) else rest_BTD


def grown(value: Any, name: str, count: int, frames: int) -> Any:
    """A mask, or the lengths of clips, with `count` real frames in front."""
    if isinstance(value, list):
        return [length + count for length in value]
    if not isinstance(value, torch.Tensor) or value.shape[-1] != frames:
        raise ValueError(
            f"prompt frames cannot go before frames with a {name} of this kind: use eager or sdpa attention"
        )
    # "heard" is True or 1 in a mask of ones, 0 in one that is added to scores, False in one that marks padding
    heard = 0.0 if value.is_floating_point() and value.dim() == 4 else name != "padding_BT"
    value = torch.cat([value.new_full((*value.shape[:-1], count), heard), value], dim=-1)
    if value.dim() == 4 and value.shape[-2] == frames:  # prompts look where the first frame may look
        value = torch.cat([value[..., :1, :].expand(*value.shape[:-2], count, -1), value], dim=-2)
    return value
