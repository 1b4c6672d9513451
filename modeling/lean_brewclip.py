"""Saving what learned and fetching what did not: a model of frozen towers as a file of a few megabytes.

A tower that is frozen and that the configuration names (`audio_name`, `audio_revision`, ...) is not written; loading
fetches it from there, the same commit of it. Towers that train, or have no name, are written with the rest, and
`save_backbones=True` writes all.
"""

import functools
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file, logging

from .loading_unibrivl import CheckedLoading
from .text_brewclip import stretch_positions
from .towers_unibrivl import load_audio_tower, load_image_towers, load_text_tower

logger = logging.get_logger(__name__)

# part of the model -> how its source is called in the configuration
TOWERS = {"audio_model": "audio", "vision_model": "image", "text_model": "text"}
PLACES = ("token", "cache_dir", "local_files_only", "force_download")
FILE_PLACES = (*PLACES, "revision", "subfolder")


class LeanFiles(CheckedLoading, PreTrainedModel):
    """What BrewCLIP's models inherit from."""

    @functools.wraps(PreTrainedModel.save_pretrained)
    def save_pretrained(  # type: ignore[override]
        self, save_directory, *args, save_backbones: bool = False, state_dict: dict | None = None, **kwargs
    ):
        """As in transformers, without frozen towers that can be fetched.

        Args:
            save_backbones (`bool`): write these too: the folder is then whole, and needs no other.
        """
        state = self.state_dict() if state_dict is None else state_dict
        for part in set(TOWERS) - set(self.fetchable_towers()):
            self.own_tower(part)  # it has trained: where it came from there is another
        if not save_backbones:
            left = tuple(f"{self._front}{name}." for name in self.fetchable_towers())
            state = {key: value for key, value in state.items() if not (left and key.startswith(left))}
        return super().save_pretrained(save_directory, *args, state_dict=state, **kwargs)

    @property
    def _front(self) -> str:
        """How the names of the trunk's tensors begin in this model."""
        return self._trunk()[1]

    def fetchable_towers(self) -> list[str]:
        """Towers that are frozen and have a name."""
        trunk, _ = self._trunk()
        return [
            part
            for part, kind in TOWERS.items()
            if getattr(self.config, f"{kind}_name") is not None
            and not any(weight.requires_grad for weight in getattr(trunk, part).parameters())
        ]

    def own_tower(self, part: str) -> None:
        """From now on a tower is saved with the rest: its weights are no longer those of where it came from."""
        config = self.config
        if part == "audio_model" and config.asr_name is None and config.audio_config.model_type == "whisper":
            # who writes down what is said stays the same
            config.asr_name, config.asr_revision = config.audio_name, config.audio_revision
        for field in ("name", "revision"):
            setattr(config, f"{TOWERS[part]}_{field}", None)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config=None, **kwargs):
        """As in transformers; towers that the file leaves out are fetched from where the configuration says."""
        source = pretrained_model_name_or_path
        if source is None or kwargs.get("state_dict") is not None:
            return super().from_pretrained(source, *args, config=config, **kwargs)
        loaded, fetched_parts = cls._whole_or_lean(source, args, config, kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for part in set(TOWERS) - set(fetched_parts):
            model.own_tower(part)  # its weights are this file's, and may be no others
        return loaded

    @classmethod
    def _whole_or_lean(cls, source, args, config, kwargs) -> tuple[Any, list[str]]:
        """The model, and which of its towers were fetched."""
        where = {name: kwargs[name] for name in FILE_PLACES if name in kwargs}
        file = cached_file(source, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False, **where)
        if file is None:  # in several files: too big to be lean
            return super().from_pretrained(source, *args, config=config, **kwargs), []
        with safe_open(file, "pt") as opened:
            keys = set(opened.keys())
        front = f"{cls.base_model_prefix}." if any(key.startswith(f"{cls.base_model_prefix}.") for key in keys) else ""
        absent = [part for part in TOWERS if not any(key.startswith(f"{front}{part}.") for key in keys)]
        if not absent:
            return super().from_pretrained(source, *args, config=config, **kwargs), []
        if not isinstance(config, PreTrainedConfig):  # fields of the configuration may stand among the arguments
            config, kwargs = cls.config_class.from_pretrained(  # type: ignore[union-attr]
                source if config is None else config, return_unused_kwargs=True, **kwargs
            )
        nameless = [part for part in absent if getattr(config, f"{TOWERS[part]}_name") is None]
        if nameless and kwargs.get("output_loading_info"):  # who asks for the lists of keys judges them
            return super().from_pretrained(source, *args, config=config, **{**kwargs, **where}), []
        state = {
            f"{front}{name}": value for name, value in fetched(config, absent, source, {**kwargs, **where}).items()
        }
        with safe_open(file, "pt") as opened:
            state |= {key: opened.get_tensor(key) for key in keys}
        for name in FILE_PLACES:
            kwargs.pop(name, None)
        loaded = super().from_pretrained(None, *args, config=config, state_dict=state, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.name_or_path = model.config.name_or_path = str(source)
        return loaded, absent


def fetched(config, absent: list[str], source, kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of the towers that are named, by their names in the model."""
    state: dict[str, torch.Tensor] = {}
    for part in absent:
        kind = TOWERS[part]
        name = getattr(config, f"{kind}_name")
        if name is None:
            raise ValueError(
                f"{source} holds no {part} and its configuration does not say where it comes from: set "
                f"config.{kind}_name to a name or a folder, or save the model again with save_backbones=True"
            )
        tower = tower_named(kind, name, getattr(config, f"{kind}_revision"), kwargs)
        if kind == "text":
            stretch_positions(tower, config.text_config.max_position_embeddings)
        state |= {f"{part}.{key}": value for key, value in tower.state_dict().items()}
        logger.info(f"{part} of {source} is {name}")
    return state


def tower_named(kind: str, name: str, revision: str | None, kwargs: dict[str, Any]) -> PreTrainedModel:
    where = {one: kwargs[one] for one in (*PLACES, "dtype") if one in kwargs}
    if revision is not None:
        where["revision"] = revision
    try:
        if kind == "audio":
            return load_audio_tower(name, **where)
        return load_text_tower(name, **where) if kind == "text" else load_image_towers(name, False, **where)[0]
    except OSError as error:
        raise OSError(
            f"the {kind} tower of this model is {name}{f' at {revision}' if revision else ''}, and it could not be "
            f"read: {error}. Make it readable, set config.{kind}_name to another copy of it, or ask for a model that "
            "was saved with save_backbones=True"
        ) from error


__all__ = ["TOWERS", "LeanFiles", "fetched"]
