"""A push to the Hub takes the code along: a model of ours then loads where this package is not installed.

transformers copies the file of a class, and every file that one imports, beside what it saves once the class is
registered for an Auto class (`register_for_auto_class`). Ours are so only while they are pushed: what
`save_pretrained` writes to a disk is read with this package, and stays weights and configuration.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from transformers import MODEL_MAPPING
from transformers.models.auto import modeling_auto

_one_push = threading.RLock()  # registration is the class's, so pushes wait for one another


class CarriesCode:
    """What every class of ours with `push_to_hub` inherits from, before its base of transformers."""

    def push_to_hub(self, *args, **kwargs):
        """As in transformers, with the code: load it with `trust_remote_code=True` where this package is missing."""
        with code_beside(self):
            return super().push_to_hub(*args, **kwargs)  # type: ignore[misc]

    def save_pretrained(self, save_directory, *args, **kwargs):
        """As in transformers; with `push_to_hub=True` the code is written and pushed too."""
        with code_beside(self) if kwargs.get("push_to_hub") else nullcontext():
            return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]


@contextmanager
def code_beside(pushed: Any) -> Iterator[None]:
    """While it lasts, `pushed` and what is saved with it save their code too, each of ours under its Auto class."""
    if hasattr(pushed, "get_attributes"):  # a processor
        saved = [pushed, *(getattr(pushed, name) for name in pushed.get_attributes())]
    else:
        saved = [pushed, *filter(None, [getattr(pushed, "config", None)])]
    with _one_push:
        # of a flat copy the classes stay registered from the start
        ours = [one for one in saved if isinstance(one, CarriesCode) and getattr(one, "_auto_class", None) is None]
        maps = [dict(vars(one).get("auto_map") or {}) for one in saved]  # transformers writes into the objects
        try:
            for one in ours:
                _register(one)
            yield
        finally:
            for one in ours:
                type(one)._auto_class = None  # type: ignore[attr-defined]
            for one, before in zip(saved, maps, strict=True):
                vars(one).pop("auto_map", None)
                if before:
                    one.auto_map = before


def _register(one: Any) -> None:
    if not hasattr(one, "base_model_prefix"):
        type(one).register_for_auto_class()
        return
    found = auto_class_of(one)
    type(one).register_for_auto_class(found)
    one.config.auto_map = {}
    if found != "AutoModel":  # what a head was trained on can be read without it
        trunk = MODEL_MAPPING[type(one.config)]
        one.config.auto_map["AutoModel"] = f"{trunk.__module__.rpartition('.')[2]}.{trunk.__name__}"


def auto_class_of(model: Any) -> str:
    """The Auto class a model is registered for; `AutoModel` where it is for none: its file is for this class alone."""
    for name, auto in vars(modeling_auto).items():
        mapping: Any = getattr(auto, "_model_mapping", None)
        if not name.startswith("AutoModel") or mapping is None:  # `not mapping` would import every model there is
            continue
        if type(model.config) in mapping and mapping[type(model.config)] is type(model):
            return name
    return "AutoModel"


__all__ = ["CarriesCode", "auto_class_of", "code_beside"]
