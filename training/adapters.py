"""Adapters: a model learns something new in a few million numbers of its own, and its weights stay as they are.

    lora     low-rank terms beside the linear layers of a tower's transformer
    prompt   learned frames before the tower's own (`training.adapters_prompts`)
    last_k   the last layers of a tower, as they are
    head     no tower at all

What is no tower, the heads, trains too: whole where it is new, by the same means where it was loaded. `adapt` makes a
model ready for training and gives PEFT's `PeftModel` around it; what is saved is an adapter as PEFT saves it, and
`PeftModel.from_pretrained(base, folder)` loads it. `load_adapter` does the same and makes room for prompt frames,
which PEFT alone refuses.

    model = load_adapter(base, "org/dogs", "dogs")     and again, under other names, for more of them
    model.set_adapter("dogs")                          switch;  with model.disable_adapter(): the base
    merged(model)                                      the base's class, the adapter worked into its weights
    unloaded(model)                                    the base, bit for bit
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from unibrivl.training.adapters_prompts import close_slots, filled, mend_slots, open_slot, open_slots, slots_of
from unibrivl.training.config import AdapterConfig, ConfigError
from unibrivl.utils import require

__all__ = ["AdapterConfig", "adapt", "adapter_bytes", "is_adapted", "load_adapter", "merged", "trains", "unloaded"]

# name of a tower -> where it may be in a model, and what in its configuration freezes it: the first that is there
TOWERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "audio": (
        ("audio_model.tower", "tower", "audio_model", "brewclip.audio_model"),
        ("freeze_audio_tower", "freeze_audio_model"),
    ),
    "vision": (("vision_model", "brewclip.vision_model"), ("freeze_vision_model",)),
    "text": (("text_model", "brewclip.text_model"), ("freeze_text_model",)),
    "decoder": (("decoder",), ("freeze_decoder",)),
}
LAYERS = ("layers", "layer", "blocks", "stages")  # names of a list of layers
BYPASS = ("WavLMAttention", "MultiheadAttention")  # take the weights of their layers, so that LoRA there does nothing
FLAGS = "_flags_before"  # on the PeftModel: the base's fields that adapt has changed


def adapt(model: PreTrainedModel, config: AdapterConfig) -> Any:
    """The model to train: `model` itself with method "full", otherwise a PeftModel around it.

    Call it before the objective is built, which has to know what trains. The towers' `freeze_...` fields of the
    configuration then say what the adapter does: a tower that it leaves alone is frozen, and stays in eval mode.
    """
    if config.method == "full":
        return model
    peft = require("peft", "train", "an adapter")
    if is_adapted(model):
        raise ValueError("this model has an adapter already: give adapt the base, or load_adapter another one into it")
    towers = towers_of(model)
    adapted = {} if config.method == "head" else {name: towers[name] for name in chosen_towers(config, towers)}
    config = dataclasses.replace(config, heads=what_heads_do(model, config))
    heads = heads_of(model, towers) if config.heads != "none" else []
    saved = heads if config.heads == "all" else [name for name in heads if not linear_layers(model, name)]
    targets, tokens = "dummy-target-modules", {}  # PEFT's own word for "none"
    if config.method == "lora":
        beside = [name for head in heads if head not in saved for name in linear_layers(model, head)]
        targets = "|".join([lora_targets(model, adapted, config), *map(re.escape, beside)])
    elif config.method == "last_k":
        saved += [name for path in adapted.values() for name in last_layers(model, path, config.last_k)]
    elif config.method == "prompt":
        slots = [open_slot(model, name, config.num_prompts)
                 for path in adapted.values() for name in transformers_of(model, path)]  # fmt: skip
        tokens = {slot: list(range(config.num_prompts)) for slot in slots}
    if not saved and config.method in ("last_k", "head"):
        raise ConfigError("nothing of this model would train: set adapter.heads=all")
    check_nothing_left(model, towers, config)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        modules_to_save=saved or None,
        trainable_token_indices=tokens or None,
    )
    untouched = {name for name, path in towers.items() if path and name not in adapted}
    before = follow(model, untouched)
    at_rest = [model.get_submodule(towers[name]) for name in untouched if field_of(model, name)]
    with quiet():
        adapted_model = peft.get_peft_model(model, settings)
    setattr(adapted_model, FLAGS, before)
    mend_slots(adapted_model)
    keep_statistics(adapted_model, at_rest)
    return adapted_model.train(model.training)


def what_heads_do(model: PreTrainedModel, config: AdapterConfig) -> Literal["auto", "all", "lora", "none"]:
    """What "auto" means here: new heads have all to learn, loaded ones are adapted as their towers are."""
    if config.heads != "auto":
        return config.heads
    if not model.name_or_path:  # nobody has loaded it
        return "all"
    small: dict[str, Literal["lora", "none"]] = {"lora": "lora", "prompt": "none"}
    return small.get(config.method, "all")


# ---- what there is --------------------------------------------------------------------------------------------------


def towers_of(model: PreTrainedModel) -> dict[str, str]:
    """Name of a tower -> its place in the model, "" for the model itself."""
    found = {}
    for name, (places, _) in TOWERS.items():
        place = next((place for place in places if has_module(model, place)), None)
        if place is not None:
            found[name] = place
    if not found:  # a tower of its own, or under a head
        kinds = {"input_values": "audio", "input_features": "audio", "pixel_values": "vision", "input_ids": "text"}
        prefix = model.base_model_prefix if model.base_model is not model else ""
        found[kinds.get(model.main_input_name, "audio")] = prefix
    return found


def field_of(model: PreTrainedModel, tower: str) -> str | None:
    """The field of its configuration that freezes a tower."""
    return next((field for field in TOWERS[tower][1] if hasattr(model.config, field)), None)


def has_module(model: nn.Module, place: str) -> bool:
    try:
        return isinstance(model.get_submodule(place), nn.Module)
    except AttributeError:
        return False


def chosen_towers(config: AdapterConfig, towers: dict[str, str]) -> tuple[str, ...]:
    missing = [name for name in config.towers if name not in towers]
    if missing or not config.towers:
        raise ConfigError(
            f"adapter.towers is {','.join(config.towers) or 'empty'} and this model has {', '.join(towers)}: name "
            "towers of it"
        )
    return config.towers


def heads_of(model: nn.Module, towers: dict[str, str]) -> list[str]:
    """The fewest modules that hold every trained weight outside the towers; those that are frozen stay out."""
    inside = tuple(path for path in towers.values())
    found: list[str] = []

    def visit(module: nn.Module, name: str) -> None:
        if name in inside:
            return
        weights = list(module.parameters())
        holds_tower = any(path.startswith(f"{name}.") or not name for path in inside)
        if weights and not holds_tower and all(weight.requires_grad for weight in weights):
            found.append(name)
            return
        for key, child in module.named_children():
            visit(child, f"{name}.{key}" if name else key)

    visit(model, "")
    return found


def check_nothing_left(model: nn.Module, towers: dict[str, str], config: AdapterConfig) -> None:
    """PEFT saves modules: a trained weight that lies in a module around a tower would be lost."""
    if config.heads == "none":
        return
    around = {"", *(path[:place] for path in towers.values() for place in range(len(path)) if path[place] == ".")}
    around -= set(towers.values())
    for name in sorted(around):
        for key, weight in model.get_submodule(name).named_parameters(recurse=False):
            if weight.requires_grad:
                raise ValueError(
                    f"{name or type(model).__name__} holds the weight {key} itself, which an adapter cannot save: put "
                    "it into a module of its own, freeze it, or set adapter.heads=none"
                )


def layer_lists(model: nn.Module, path: str) -> list[str]:
    """The outermost lists of layers in a tower, in the order they stand there."""
    found: list[str] = []
    for name, module in model.get_submodule(path).named_modules(prefix=path):
        is_list = isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in LAYERS and len(module)
        if is_list and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    if not found:
        raise ValueError(f"no list of layers in {path or type(model).__name__}: use adapter.method=head, or full")
    return found


def transformers_of(model: nn.Module, path: str) -> list[str]:
    """The modules whose lists of layers are a tower's."""
    return [name.rpartition(".")[0] for name in layer_lists(model, path)]


def last_layers(model: nn.Module, path: str, count: int) -> list[str]:
    names = [
        f"{name}.{number}" for name in layer_lists(model, path) for number in range(len(model.get_submodule(name)))
    ]
    if count > len(names):
        raise ConfigError(f"adapter.last_k is {count} and {path} has {len(names)} layers: lower it")
    return names[-count:]


def lora_targets(model: nn.Module, towers: dict[str, str], config: AdapterConfig) -> str:
    """A pattern for PEFT that matches the linear layers in the layers of the towers, or those that `targets` names."""
    patterns, wanted = [], set()
    for path in towers.values():
        for place in layer_lists(model, path):
            names = linear_layers(model, place, config.targets)
            wanted.update(names)
            inside = sorted({name.removeprefix(f"{place}.").partition(".")[2] for name in names})
            if inside:
                patterns.append(rf"{re.escape(place)}\.\d+\.({'|'.join(map(re.escape, inside))})")
    if not wanted:
        asked = f"named {', '.join(config.targets)}" if config.targets else "that is linear"
        raise ConfigError(
            f"no layer {asked} in the layers of {', '.join(towers)}: name others in adapter.targets, by the end of "
            "their names in model.named_modules(), or use adapter.method=last_k"
        )
    return "|".join(patterns)


def linear_layers(model: nn.Module, place: str, ends: tuple[str, ...] = ()) -> list[str]:
    """Those of torch's own class, all or with these ends of names; with ends, convolutions too."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d) if ends else (nn.Linear,)
    named = dict(model.get_submodule(place).named_modules(prefix=place))
    return [
        name
        for name, module in named.items()
        if type(module) in kinds
        and (not ends or any(name.endswith(f".{end}") for end in ends))
        and type(named.get(name.rpartition(".")[0])).__name__ not in BYPASS
    ]


# ---- what holds while it trains -------------------------------------------------------------------------------------


def follow(model: PreTrainedModel, untouched: set[str]) -> dict[str, bool]:
    """Set the `freeze_...` fields to what the adapter does; what they were comes back."""
    before = {}
    for name in towers_of(model):
        field = field_of(model, name)
        if field is not None:
            before[field] = getattr(model.config, field)
            setattr(model.config, field, name in untouched)
    if hasattr(model.config, "freeze_audio_tower"):  # freeze_audio_model is of both: the head may train, the tower not
        before["freeze_audio_model"] = model.config.freeze_audio_model
        if "audio" not in untouched:
            model.config.freeze_audio_model = False
    return before


def keep_statistics(model: nn.Module, at_rest: list[nn.Module]) -> None:
    """Statistics of frozen batch norms stay: an adapter does not save them.

    Towers at rest are in eval mode as a whole, and a hook would keep BriVL's from its faster form.
    """
    resting = {id(module) for tower in at_rest for module in tower.modules()}
    for module in model.modules():
        if id(module) in resting:
            continue
        has_statistics = getattr(module, "running_mean", None) is not None
        if has_statistics and not any(weight.requires_grad for weight in module.parameters()):
            module.register_forward_pre_hook(stay_in_eval)


def stay_in_eval(module: nn.Module, arguments: Any) -> None:
    module.training = False


@dataclass(frozen=True)
class Trains:
    """How much of a model trains: numbers of parameters, those of the base and the adapter's."""

    trained: int
    parameters: int

    def __str__(self) -> str:
        return (
            f"{self.trained:,} of {self.parameters:,} parameters train ({100 * self.trained / self.parameters:.2f} %)"
        )


def trains(model: nn.Module) -> Trains:
    """Weights an adapter's copies stand in for are counted once more: they are in memory too."""
    weights = list(model.parameters())
    return Trains(sum(w.numel() for w in weights if w.requires_grad), sum(w.numel() for w in weights))


def is_adapted(model: Any) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def adapter_bytes(model: Any) -> int:
    """What the weights of the adapter that is on take on disk."""
    return sum(tensor.numel() * tensor.element_size() for tensor in adapter_state(model).values())


def adapter_state(model: Any) -> dict[str, torch.Tensor]:
    """The adapter's tensors under the names they are saved by; the live ones, not copies."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, adapter_name=model.active_adapters[0], save_embedding_layers=False)


# ---- load, switch, merge --------------------------------------------------------------------------------------------


def load_adapter(
    model: Any, source: str | os.PathLike, name: str = "default", trainable: bool = False, **hub: Any
) -> Any:
    """A base model, or one with adapters, with one adapter more, which is on.

    Args:
        model: the base, or what this function gave for another adapter.
        source: a folder, or a name on the Hub.
        name: under which `set_adapter` finds it.
        trainable (`bool`): go on training it.
        hub: revision, token, cache_dir, ...
    """
    peft = require("peft", "train", "loading an adapter")
    settings = peft.PeftConfig.from_pretrained(str(source), **hub)
    if is_adapted(model):
        if name in model.peft_config:
            raise ValueError(f"an adapter {name!r} is there already: load this one under another name")
        check_side_by_side(model.get_base_model(), settings, name)
        open_slots(model.get_base_model(), getattr(settings, "trainable_token_indices", None))
        with quiet():
            model.load_adapter(str(source), name, is_trainable=trainable, **hub)
        model.set_adapter(name)
    else:
        open_slots(model, getattr(settings, "trainable_token_indices", None))
        with quiet():
            model = peft.PeftModel.from_pretrained(model, str(source), name, is_trainable=trainable, **hub)
    mend_slots(model)
    return model.train() if trainable else model.eval()


def check_side_by_side(base: nn.Module, settings: Any, name: str) -> None:
    """PEFT can keep LoRA in a layer, or copies of the layer, and not both."""
    copied = tuple(f"{path}." for path in settings.modules_to_save or ())
    for path, module in base.named_modules():
        outer, is_copied, inner = path.partition(".original_module.")
        wanted = is_copied and re.fullmatch(str(settings.target_modules), f"{outer}.{inner}")
        if wanted or (hasattr(module, "lora_A") and path.startswith(copied)):
            raise ValueError(
                f"adapter {name!r} and one that is there already change {outer}, one by LoRA and one by a copy of it, "
                "which PEFT cannot do in one model: load one of them into a base of its own, or merge it first"
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warning that PEFT asks transformers for a field by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def merged(model: Any) -> PreTrainedModel:
    """The base model with the adapter that is on worked into its weights; nothing of PEFT is left in it.

    The model that is given is used up.
    """
    for name, slot in slots_of(model):
        if hasattr(slot, "token_adapter") and filled(slot) is not None:
            raise ValueError(
                f"prompt frames ({name}) are no weights of the model and cannot be merged into it: keep the adapter, "
                "and load it with load_adapter"
            )
    base = model.get_base_model()
    changed = [name for name, path in towers_of(base).items() if has_adapter(base.get_submodule(path))]
    with quiet():
        whole = plain(model, model.merge_and_unload())
    for name in changed:
        if hasattr(whole, "own_tower"):  # it saves frozen towers by their names alone
            whole.own_tower(f"{name}_model")
    return whole


def has_adapter(tower: nn.Module) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    return any(isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)) for module in tower.modules())


def unloaded(model: Any) -> PreTrainedModel:
    """The base model as it was, bit for bit. The model that is given is used up."""
    for path, wrapper in list(wrappers_of(model)):
        parent, _, last = path.rpartition(".")
        setattr(model.get_submodule(parent), last, wrapper.original_module)  # PEFT's unload takes the trained copy
    return plain(model, model.unload())


def wrappers_of(model: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.utils import ModulesToSaveWrapper

    return ((name, one) for name, one in model.named_modules() if isinstance(one, ModulesToSaveWrapper))


def plain(model: Any, base: PreTrainedModel) -> PreTrainedModel:
    """Without slots, hooks and changed fields."""
    close_slots(base)
    for module in base.modules():
        for key in [key for key, hook in module._forward_pre_hooks.items() if hook is stay_in_eval]:
            del module._forward_pre_hooks[key]
    for field, value in getattr(model, FLAGS, {}).items():
        setattr(base.config, field, value)
    return base
