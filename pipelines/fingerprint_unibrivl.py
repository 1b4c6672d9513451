"""Fingerprints of a pipeline's components that cost milliseconds: names, shapes and a sample of every tensor.

A receipt says with them which weights made a picture. The embedder's fingerprint reads every number and takes seconds
for a large network; this one notices another training, another conversion or a LoRA, and not a change of a single
weight that the sample misses.
"""

import hashlib
import json
import weakref
from typing import Any

import torch

SAMPLE = 16  # numbers of each tensor, spread over it
PROBED = 12  # tensors of which one number is looked at, to see that nothing has changed
OFFLOADED = "unknown: its weights are not in memory between calls"

_kept: "weakref.WeakKeyDictionary[torch.nn.Module, tuple[int, str]]" = weakref.WeakKeyDictionary()


def mark_of(module: torch.nn.Module) -> int:
    """What changes when the weights of a module change, and not when it moves to another device; in this process only.

    Versions of tensors say so, except where somebody wrote through `.data`: a few numbers are looked at for that.
    """
    tensors, said = [], []
    for layer in module.modules():
        tensors += [one for one in (*layer._parameters.values(), *layer._buffers.values()) if one is not None]
        if "merged_adapters" in layer.__dict__:
            said.append(adapter_of(layer))
    versions = [(id(one), 0 if one.is_inference() else one._version, one.dtype) for one in tensors]
    probed = [
        one.detach().reshape(-1)[one.numel() // 2] for one in tensors[:: max(1, len(tensors) // PROBED)] if one.numel()
    ]
    values = [] if any(one.is_meta for one in probed) else [float(one) for one in probed]
    return hash((tuple(versions), tuple(values), tuple(said)))


def adapter_of(layer: Any) -> str:
    """Which LoRA are active in a layer, how strongly, and which are merged into its weights."""
    scaling = sorted(getattr(layer, "scaling", {}).items())
    return f"{list(layer.active_adapters)} {layer.disable_adapters} {list(layer.merged_adapters)} {scaling}"


def adapters_of(module: torch.nn.Module) -> str:
    layers = [(name, layer) for name, layer in module.named_modules() if "merged_adapters" in layer.__dict__]
    return "\n".join(f"{name} {adapter_of(layer)}" for name, layer in layers)


def fingerprint_of(module: torch.nn.Module) -> str:
    """64 hexadecimal digits; computed once and kept as long as the weights stay what they are."""
    mark = mark_of(module)
    if module in _kept and _kept[module][0] == mark:
        return _kept[module][1]
    tensors = module.state_dict()
    if any(tensor.device.type == "meta" for tensor in tensors.values()):
        return OFFLOADED
    digest = hashlib.sha256(adapters_of(module).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(sample_of(tensor).encode())
    _kept[module] = (mark, digest.hexdigest())
    return _kept[module][1]


def sample_of(tensor: torch.Tensor) -> str:
    flat = tensor.detach().reshape(-1)
    if not flat.numel():
        return ""
    picked = flat[:: max(1, flat.numel() // SAMPLE)][:SAMPLE]
    if picked.is_floating_point():
        picked = picked.double()  # exact, of every float type
    return json.dumps(picked.cpu().tolist())


def told_of(config: Any) -> dict[str, Any]:
    """A scheduler's or tokenizer's configuration as plain values, without private bookkeeping."""
    plain = dict(config)
    return {name: value for name, value in plain.items() if not name.startswith("_") and is_plain(value)}


def is_plain(value: Any) -> bool:
    """Whether JSON can hold it and give back the same."""
    if isinstance(value, (list, tuple)):
        return all(is_plain(one) for one in value)
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_plain(one) for name, one in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


__all__ = ["OFFLOADED", "fingerprint_of", "is_plain", "mark_of", "told_of"]
