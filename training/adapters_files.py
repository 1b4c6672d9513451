"""An adapter in the files of a run: adapter-only checkpoints, the base they stand on, and the whole model at the end.

A checkpoint of a run with an adapter holds adapter_config.json and adapter_model.safetensors in place of the model.
The base is what adapter_config.json names: the folder or the Hub's name it was loaded from, or, where the recipe has
made it anew, the folder `base` of the run, saved once. Its fingerprint stands in base.json: a resumed run that finds
another base is refused.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from unibrivl.hub.fingerprint import add_tensors
from unibrivl.training.adapters import FLAGS, adapter_state, is_adapted, merged
from unibrivl.training.checkpoint import CheckpointError, publish, read_json, write_json
from unibrivl.training.config import AdapterConfig
from unibrivl.training.sharding import placed

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of the base's names in a PeftModel
INSERTED = (".base_layer", ".original_module", ".token_adapter")  # what PEFT puts into the names of what it wraps


def check_is_adapted(model: Any, config: AdapterConfig) -> None:
    if (config.method != "full") != is_adapted(model):
        raise ValueError(
            f"adapter.method is {config.method} and the recipe's model has "
            + (
                "an adapter of its own: set adapter.method to what it is"
                if config.method == "full"
                else "no adapter: its build has to call adapt(model, config.adapter) before it makes the objective"
            )
        )


def settle_base(model: Any, folder: Path, writes: bool, resumed: bool) -> None:
    """See that the base can be found again, and is the one that the run began with.

    Args:
        folder: of the run.
        writes (`bool`): this process is the one that does.
        resumed (`bool`): the run goes on from a checkpoint, which holds the adapter alone.
    """
    base, record = model.get_base_model(), folder / "base.json"
    found = {"sha256": fingerprint(model)}
    if resumed and read_json(record)["sha256"] != found["sha256"]:
        raise ValueError(
            f"the base model is not the one that the run in {folder} began with: name the revision it was loaded at, "
            "or begin anew in another output_dir"
        )
    name = base.name_or_path
    revision = None if not name or Path(name).exists() else getattr(base.config, "_commit_hash", None)
    if not name:
        name = str(folder / "base")
        if writes and not (resumed and (folder / "base").exists()):
            save_base(model, folder / "base")
    for settings in model.peft_config.values():
        settings.base_model_name_or_path, settings.revision = name, revision
    if writes and not resumed:
        write_json(record, found)


def base_state(model: Any) -> dict[str, torch.Tensor]:
    """The base's own tensors under its own names."""
    found = {}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix(PREFIX)
        if ".lora_" in name or ".modules_to_save." in name or ".prompt_frames_" in name:
            continue
        for inserted in INSERTED:
            name = name.replace(f"{inserted}.", ".")
        found[name] = tensor
    return found


def fingerprint(model: Any) -> str:
    """Of the base's names, shapes, types and numbers."""
    digest = hashlib.sha256()
    add_tensors(digest, base_state(model))
    return digest.hexdigest()


def save_base(model: Any, folder: Path) -> None:
    """The base model as it was before it was adapted."""
    base = model.get_base_model()
    changed = {field: getattr(base.config, field) for field in getattr(model, FLAGS, {})}
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        for field, value in getattr(model, FLAGS, {}).items():
            setattr(base.config, field, value)
        base.save_pretrained(partial, state_dict=base_state(model))
        publish(partial, folder)
    except OSError as error:
        raise CheckpointError(
            f"the base model could not be saved to {folder}: {error}. Make room and try again"
        ) from (error)
    finally:
        for field, value in changed.items():
            setattr(base.config, field, value)


def save_adapter(model: Any, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """As PEFT does it; its model card is left out, for the run writes one.

    Args:
        weights: the model's state, whole, under its own names.
    """
    model.save_pretrained(folder, state_dict=dict(weights), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)


@torch.no_grad()
def read_adapter(model: Any, folder: Path) -> None:
    """The weights of a checkpoint into the adapter that trains."""
    saved, live = load_file(folder / WEIGHTS), adapter_state(model)
    if saved.keys() != live.keys():
        odd = sorted(saved.keys() ^ live.keys())
        raise CheckpointError(
            f"{folder} holds another adapter: {len(odd)} tensors differ, {odd[0]} first. Resume with the adapter the "
            "run began with"
        )
    for name, tensor in live.items():
        tensor.copy_(placed(saved[name], tensor))


def save_merged(model: Any, folder: Path, processor: Any = None) -> None:
    """A whole model: a copy of this one, with its adapter worked in."""
    whole = merged(copy.deepcopy(model))
    partial = folder.with_name(f"{folder.name}.partial")
    whole.save_pretrained(partial)
    if processor is not None:
        processor.save_pretrained(partial)
    publish(partial, folder)
