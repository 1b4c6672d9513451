"""The fingerprint of an embedder or of a tower: what its vectors depend on, in 64 hexadecimal digits.

Weights, architecture, preprocessing and settings go in; where the model was loaded from, the device
and the batch size do not, since they do not change a vector beyond rounding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

# bookkeeping that changes from one save to the next, or with the library, and not what the model computes
IGNORED = {
    "_name_or_path", "transformers_version", "architectures", "auto_map", "dtype", "torch_dtype", "processor_class",
    "_attn_implementation", "return_dict", "output_attentions", "output_hidden_states", "id2label", "label2id",
    "name_or_path", "special_tokens_map_file", "tokenizer_file", "_commit_hash",
}  # fmt: skip


def fingerprint(model: torch.nn.Module, parts: dict[str, object], settings: dict) -> str:
    """
    Args:
        model: its configuration and every tensor of its state.
        parts: feature extractor, image processor, tokenizers, by name; absent ones None.
        settings: what decides vectors beyond them: the windows, the matcher's space.
    """
    digest = hashlib.sha256()
    digest.update(_canonical(_to_dict(getattr(model, "config", None))))
    add_tensors(digest, model.state_dict())
    for name, part in sorted(parts.items()):
        digest.update(name.encode() + _canonical(_describe(part)))
    digest.update(_canonical(settings))
    return digest.hexdigest()


def add_tensors(digest: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Names, shapes, types and every number, in the order of the names."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(_bytes_of(tensor))


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().flatten()
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")


def _describe(part):
    if part is None:
        return None
    if hasattr(part, "get_vocab"):
        backend = getattr(part, "backend_tokenizer", None)
        if backend is not None:
            about = json.loads(backend.to_str())
            for left_by_the_last_call in ("padding", "truncation"):
                about.pop(left_by_the_last_call, None)
            return hashlib.sha256(_canonical(about)).hexdigest()
        about = {"vocabulary": sorted(part.get_vocab().items())}
        lexicon = getattr(part, "lexicon", None)
        return {**about, "lexicon": sorted(lexicon.items()) if lexicon else None}
    return _to_dict(part)


def _to_dict(thing):
    return thing.to_dict() if hasattr(thing, "to_dict") else None


def _canonical(value) -> bytes:
    return json.dumps(_clean(value), sort_keys=True, default=str).encode()


def _clean(value):
    if isinstance(value, dict):
        return {str(key): _clean(inner) for key, inner in value.items() if key not in IGNORED}
    if isinstance(value, (list, tuple)):
        return [_clean(inner) for inner in value]
    return value
