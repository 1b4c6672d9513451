"""A run's configuration: one frozen dataclass that a recipe's `config()` returns, and what `--set` may change in it.

What every run has stands here; what one recipe's model, data and objective need stands in the recipe, as frozen
dataclasses under `model`, `data` and `objective`. Keys are dotted: `learning_rate`, `data.folder`. A key that does not
exist is an error that names the nearest one, and so is a value of another type.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Config = TypeVar("Config", bound=Any)

# What may differ between a run and its continuation: none of these moves a weight or a row of the metrics
FREE = frozenset({"output_dir", "workers", "keep", "tensorboard", "adapter.merge_at_end"})
MOVABLE = frozenset({"data.cache"})  # another folder holds the same; none or a folder are two ways to compute


class ConfigError(ValueError):
    """A key or a value that no run has; says which, and what would be right."""


@dataclass(frozen=True)
class Nothing:
    """The part of a recipe that has nothing to set."""


@dataclass(frozen=True)
class AdapterConfig:
    """What of a model trains. `unibrivl.training.adapters.adapt` does it; docs/adapters.md explains.

    Args:
        method (`str`): "full": whatever the model itself says; "lora", "prompt", "last_k", "head": an adapter.
        towers: that are adapted, by name: audio, vision, text, decoder. "head" adapts none.
        heads (`str`): of all that is no tower (layer mix, self-attention block, projections): "all" trains whole,
            "lora" gets LoRA as the towers do, "none" stays. "auto": heads that were loaded with the model have learned
            something, so "lora" gives them LoRA and "prompt" leaves them; new ones, and with other methods all, train
            whole.
        rank, alpha, dropout: of LoRA; its terms are scaled by alpha / rank.
        targets: ends of the names of the layers that get LoRA, such as q_proj; none are all linear layers.
        num_prompts (`int`): frames before each transformer of a tower.
        last_k (`int`): layers that train, counted from the end of a tower.
        merge_at_end (`bool`): beside the adapter, leave the whole model with the adapter worked into its weights.
    """

    method: Literal["full", "lora", "prompt", "last_k", "head"] = "full"
    towers: tuple[str, ...] = ("audio",)
    heads: Literal["auto", "all", "lora", "none"] = "auto"
    rank: int = 8
    alpha: float = 16.0  # OURS: twice the rank, as most of PEFT's examples have it
    dropout: float = 0.0  # LoRA paper: PEFT's default
    targets: tuple[str, ...] = ()
    num_prompts: int = 16
    last_k: int = 2
    merge_at_end: bool = False

    def __post_init__(self):
        for name in ("rank", "num_prompts", "last_k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"adapter.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"adapter.dropout is a share, from 0 to below 1; got {self.dropout}")
        if self.heads == "lora" and self.method not in ("full", "lora"):
            raise ConfigError(f"adapter.heads=lora goes with adapter.method=lora, not {self.method}: set all or none")
        if self.merge_at_end and self.method in ("full", "prompt"):
            why = "trains the model itself" if self.method == "full" else "adds frames, which are no weights of it"
            raise ConfigError(f"adapter.method={self.method} {why}, so nothing can be merged: set merge_at_end=false")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """
    Args:
        recipe (`str`): its name in the table of recipes; part of the command in the model card.
        output_dir (`str`): where checkpoints, metrics, curves and the finished model go.
        model, data, objective: frozen dataclasses of the recipe's own.
        adapter: train a few weights beside those of the model; see `AdapterConfig`.
        seed (`int`): of the weights, the order of examples, and whatever else is drawn.
        steps (`int`): optimiser steps.
        batch_size (`int`): examples of one forward pass, over all processes together: with two processes each takes
            half, and the run stays the same run.
        accumulation (`int`): forward passes whose gradients are averaged into one step.
        precision (`str`): "no" is float32; weights and optimiser stay float32 in all three.
        learning_rate, final_share (`float`): the peak, and the part of it that is left at the last step.
        warmup (`int`): steps of linear growth before the cosine.
        weight_decay (`float`): of matrices and kernels; biases, norms and other vectors have none.
        betas: AdamW's.
        clip (`float`, *optional*): the most that the norm of all gradients may be; None does not clip.
        ema (`float`, *optional*): keep an average of the weights with this momentum; it is what is evaluated and what
            the finished model holds.
        gradient_checkpointing, compile (`bool`): less memory for more time; less time after a slow start.
        evaluate_every, save_every, log_every (`int`): in steps; 0 never evaluates. The last step does all three.
        keep (`int`): checkpoints that stay, the best one besides.
        primary, direction: the metric that decides which checkpoint is best, and whether more of it is better. Without
            a primary metric the last checkpoint is the best.
        patience (`int`, *optional*): evaluations in a row without a new best after which the run stops.
        workers (`int`): processes that prepare examples; they change no example.
        threads (`int`, *optional*): of torch on the CPU; by default as many as it takes. Sums of another number of
            threads differ in the last bits.
        tensorboard (`bool`): write events for TensorBoard too; metrics.jsonl is always written.
    """

    recipe: str
    output_dir: str
    model: Any = Nothing()  # noqa: RUF009  (frozen)
    data: Any = Nothing()  # noqa: RUF009
    objective: Any = Nothing()  # noqa: RUF009
    adapter: AdapterConfig = AdapterConfig()  # noqa: RUF009
    seed: int = 0
    steps: int = 1000
    batch_size: int = 64
    accumulation: int = 1
    precision: Literal["no", "bf16", "fp16"] = "no"
    learning_rate: float = 1e-4  # BriVL code: its AdamW
    final_share: float = 0.0  # CLIP paper: the cosine ends at nothing
    warmup: int = 100
    weight_decay: float = 0.01  # torch: AdamW's default
    betas: tuple[float, float] = (0.9, 0.98)  # CLIP paper: betas of its transformers
    clip: float | None = 1.0  # OURS: as transformers' Trainer; contrastive starts have rare large gradients
    ema: float | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    evaluate_every: int = 0
    save_every: int = 500
    log_every: int = 10
    keep: int = 2
    primary: str | None = None
    direction: Literal["max", "min"] = "max"
    patience: int | None = None
    workers: int = 0
    threads: int | None = None
    tensorboard: bool = False

    def __post_init__(self):
        for name in ("steps", "batch_size", "accumulation", "save_every", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup", "evaluate_every", "workers", "seed", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.final_share <= 1:
            raise ConfigError(f"final_share is a part of the learning rate, from 0 to 1; got {self.final_share}")
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"clip must be above 0, or none for no clipping; got {self.clip}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"ema is a momentum between 0 and 1, or none for no average; got {self.ema}")
        if self.patience is not None and (self.patience < 1 or not self.evaluate_every or self.primary is None):
            raise ConfigError(
                "patience counts evaluations: it must be at least 1 and needs evaluate_every and primary"
            )
        if self.gradient_checkpointing and self.adapter.method == "prompt":
            raise ConfigError(
                "prompt frames and gradient checkpointing do not go together: set gradient_checkpointing=false, or "
                "adapter.method=lora"
            )


def fields_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every key that can be set: dotted name, type, value."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields_of(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, hints[field.name], value


def override(config: Config, settings: Sequence[str]) -> Config:
    """`config` with `key=value` for each setting; the text of a value is read as the key's type."""
    changes = {}
    types_of = {key: hint for key, hint, _ in fields_of(config)}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"{setting!r} is no setting: write key=value, such as steps=1000")
        key = key.strip()
        _check_known(key, types_of)
        changes[key] = parse(text.strip(), types_of[key], key)
    return replaced(config, changes)


def replaced(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy in which dotted keys have new values, already of the right type."""
    here, below = {}, dict[str, dict[str, Any]]()
    for key, value in changes.items():
        name, dot, rest = key.partition(".")
        if dot:
            below.setdefault(name, {})[rest] = value
        else:
            here[name] = value
    for name, inner in below.items():
        here[name] = replaced(getattr(config, name), inner)
    return dataclasses.replace(config, **here)


def parse(text: str, hint: Any, key: str) -> Any:
    """A value of type `hint` from what was written behind `key=`."""
    choices = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if type(None) in choices and text.lower() in ("none", "null"):
            return None
        failures = []
        for choice in choices:
            if choice is not type(None):
                try:
                    return parse(text, choice, key)
                except ConfigError as error:
                    failures.append(error)
        raise failures[0]
    if typing.get_origin(hint) is Literal:
        if text in choices:
            return text
        raise ConfigError(f"{key} must be one of {', '.join(map(str, choices))}; got {text!r}")
    if typing.get_origin(hint) is tuple:
        inside = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text  # but "dog (1)" is a name
        quotes = "" if inside is text else "\"'"  # as JSON and Python write names in brackets
        parts = [part.strip().strip(quotes) if quotes else part.strip() for part in inside.split(",") if part.strip()]
        kinds = [choices[0]] * len(parts) if choices[1:] == (...,) else list(choices)
        if len(kinds) != len(parts):
            raise ConfigError(f"{key} takes {len(kinds)} values with commas between them; got {text!r}")
        return tuple(parse(part, kind, key) for part, kind in zip(parts, kinds, strict=True))
    if hint is str or hint is Any:
        return text
    if hint is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ConfigError(f"{key} must be true or false; got {text!r}")
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError as error:
            kind = "a whole number" if hint is int else "a number"
            raise ConfigError(f"{key} must be {kind}; got {text!r}") from error
    raise ConfigError(f"{key} cannot be set from the command line: change it in the recipe")


def to_json(config: Any) -> dict[str, Any]:
    """The configuration as plain values, dotted keys in the order of the fields."""
    return {key: list(value) if isinstance(value, tuple) else value for key, _, value in fields_of(config)}


def from_json(default: Config, found: Mapping[str, Any]) -> Config:
    """What `to_json` wrote, over a configuration of the same recipe; keys that no longer exist are errors."""
    known = {key: hint for key, hint, _ in fields_of(default)}
    for key in found:
        _check_known(key, known)
    is_tuple = {key: isinstance(value, tuple) for key, _, value in fields_of(default)}
    return replaced(default, {key: tuple(value) if is_tuple[key] else value for key, value in found.items()})


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, of two configurations as JSON: key -> (old, new)."""
    keys = [*old, *(key for key in new if key not in old)]
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def is_free(key: str, old: Any, new: Any) -> bool:
    """Whether a run may go on with another value of this key."""
    return key in FREE or (key in MOVABLE and old is not None and new is not None)


def command_of(config: RunConfig, default: RunConfig) -> str:
    """The command that starts this run: its recipe, and what was set besides."""
    changed = differences(to_json(default), to_json(config))
    settings = [f"{key}={as_written(new)}" for key, (_, new) in changed.items() if key != "output_dir"]
    words = ["unibrivl train --recipe", config.recipe, *(f"--set {setting}" for setting in settings)]
    return " ".join(words)


def as_written(value: Any) -> str:
    """A plain value as it stands behind `key=`."""
    if isinstance(value, list):
        return ",".join(map(as_written, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value) if not isinstance(value, str) or " " not in value else json.dumps(value)


def _check_known(key: str, known: Mapping[str, Any]) -> None:
    if key in known:
        return
    tails = {name.rsplit(".", 1)[-1]: name for name in known}
    near = difflib.get_close_matches(key, known, 1) or difflib.get_close_matches(key.rsplit(".", 1)[-1], tails, 1)
    if near:
        raise ConfigError(f"there is no key {key!r} in this recipe: did you mean {tails.get(near[0], near[0])!r}?")
    raise ConfigError(f"there is no key {key!r} in this recipe: it has {', '.join(known)}")
