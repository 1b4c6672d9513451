"""Loading that forgives what age explains and refuses the rest, for all our models.

transformers fills a weight it does not find with random numbers and warns. Here a checkpoint fits or is an error:

    the file's architecture is this class    every key must match
    another one of the family                heads may be new or left over; the trunk must match, key by key
    any                                      stale keys (`STALE_KEYS`) are dropped on either side, and reported
    a tower that this transformers wraps     the wrapper's name (`WRAPPERS`) is put into the keys that lack it

The trunk is what stands under `base_model_prefix`, or the whole model where the class is the trunk itself.
"""

import functools
import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import NamedTuple

import torch
from transformers import PreTrainedModel
from transformers.core_model_loading import WeightRenaming
from transformers.utils import logging

from .code_unibrivl import CarriesCode

logger = logging.get_logger(__name__)

LISTED = 12  # keys named in one message
_caller_judges = ContextVar("caller_judges", default=False)


class CheckpointMismatch(ValueError):
    """The keys of a checkpoint are not those of the model it is loaded into."""


class StaleKey(NamedTuple):
    """A key that some versions of a model save and others do not; it holds nothing learned.

    `rebuild` makes its value again, from a buffer of its shape, for a model that has it and a file that does not.
    """

    reason: str
    rebuild: Callable[[torch.Tensor], torch.Tensor]


def count_up(buffer: torch.Tensor) -> torch.Tensor:
    return torch.arange(buffer.shape[-1], dtype=buffer.dtype, device=buffer.device).expand_as(buffer)


# pattern of the key -> what it is
STALE_KEYS: dict[str, StaleKey] = {
    r"(^|\.)position_ids$": StaleKey("a counter that older transformers saved", count_up),
}
# Until some release after 5.4 transformers' CLIP and SigLIP towers kept all of their weights in one inner module. The
# later ones read the files of the earlier; this is what lets the earlier read those of the later
WRAPPERS = ("text_model", "vision_model")


class CheckedLoading(CarriesCode, PreTrainedModel):
    """What the base class of each family inherits from.

    Shapes that differ, adapters and quantised weights stay with transformers. A `config` that is passed along is taken
    for the file's: its `architectures` decide which rule holds.
    """

    stale_keys = STALE_KEYS

    @functools.wraps(PreTrainedModel.save_pretrained)  # diffusers reads in the signature what it may pass along
    def save_pretrained(self, *args, **kwargs):  # type: ignore[override]
        return super().save_pretrained(*args, **kwargs)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As in transformers, but a checkpoint that does not fit raises `CheckpointMismatch`.

        With `output_loading_info=True` it does not: who asks for the lists of missing and unexpected keys judges them.
        """
        token = _caller_judges.set(bool(kwargs.get("output_loading_info", False)))
        try:
            return super().from_pretrained(*args, **kwargs)
        finally:
            _caller_judges.reset(token)

    @staticmethod
    def _load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs):
        ours = wrapper_renamings(model)
        if ours:
            load_config = replace(load_config, weight_mapping=[*ours, *(load_config.weight_mapping or [])])
        found = PreTrainedModel._load_pretrained_model(
            model, state_dict, checkpoint_files, load_config, *args, **kwargs
        )
        if ours and getattr(model, "_weight_conversions", None):  # saved again it is as this transformers has it
            kept = [one for one in model._weight_conversions if not any(one is own for own in ours)]
            model._weight_conversions = kept
        return found

    def _adjust_missing_and_unexpected_keys(self, loading_info) -> None:
        self._drop_stale_keys(loading_info)
        super()._adjust_missing_and_unexpected_keys(loading_info)
        if _caller_judges.get() or getattr(self, "is_quantized", False):  # a quantiser has keys and rules of its own
            return
        missing, unknown = self._misfits(loading_info)
        if missing or unknown:
            raise CheckpointMismatch(self._explain(missing, unknown, loading_info.unexpected_keys))

    @torch.no_grad()
    def _drop_stale_keys(self, loading_info) -> None:
        buffers = dict(self.named_buffers())
        dropped = []
        for pattern, stale in self.stale_keys.items():
            left_over = {key for key in loading_info.unexpected_keys if re.search(pattern, key)}
            absent = {key for key in loading_info.missing_keys if key in buffers and re.search(pattern, key)}
            for key in absent:  # transformers has only made room for it
                buffers[key].copy_(stale.rebuild(buffers[key]))
            loading_info.unexpected_keys = loading_info.unexpected_keys - left_over
            loading_info.missing_keys = loading_info.missing_keys - absent
            for keys, where in ((left_over, "in the file only"), (absent, "in the model only, rebuilt")):
                if keys:
                    dropped.append(f"{len(keys)} {where} ({stale.reason}): {_listed(keys, LISTED)}")
        if dropped:
            logger.warning(
                f"{type(self).__name__} from {self._source()}: stale keys dropped, nothing learned is lost. "
                + "; ".join(dropped)
            )

    def _misfits(self, loading_info) -> tuple[set[str], set[str]]:
        """The missing and the unexpected keys that are an error."""
        if type(self).__name__ in (self.config.architectures or ()):
            return set(loading_info.missing_keys), set(loading_info.unexpected_keys)
        trunk, prefix = self._trunk()
        # a file of the trunk alone writes no prefix: there its keys are known by their first name
        first_names = {name.split(".")[0] for name in trunk.state_dict()}
        missing = {key for key in loading_info.missing_keys if key.startswith(prefix)}
        unknown = {
            key
            for key in loading_info.unexpected_keys
            if key.startswith(f"{self.base_model_prefix}.") or key.split(".")[0] in first_names
        }
        return missing, unknown

    def _trunk(self):
        """The trunk and the prefix of its keys in this model, "" where the model is the trunk."""
        trunk = getattr(self, self.base_model_prefix, self)
        return trunk, "" if trunk is self else f"{self.base_model_prefix}."

    def _source(self) -> str:
        return "the state dict" if self.name_or_path in ("", "None") else self.name_or_path

    def _explain(self, missing: set[str], unknown: set[str], unexpected: set[str]) -> str:
        source = f"{self._source()} ({', '.join(self.config.architectures or ['architecture not stated'])})"
        trunk, prefix = self._trunk()
        needed = {name for name in trunk.state_dict() if not any(re.search(stale, name) for stale in self.stale_keys)}
        if {prefix + name for name in needed} <= missing:
            hint = _mapping_hint(needed, prefix, unexpected)
            held = f"It holds {_listed(unexpected, LISTED)}" if unexpected else "It is empty"
            return f"{source} holds none of the {len(needed)} weights of {type(trunk).__name__}. " + (
                hint or f"It is another model: check the name or path, or convert it first. {held}"
            )
        room = LISTED // 2 if missing and unknown else LISTED
        faults = [
            f"It {verb}: {_listed(keys, room)}."
            for verb, keys in (
                (f"lacks {len(missing)} that the model needs", missing),
                (f"holds {len(unknown)} that the model does not know", unknown),
            )
            if keys
        ]
        return (
            f"{source} does not fit {type(self).__name__}. {' '.join(faults)} It is damaged, incomplete, edited or "
            "newer than this code: download or convert it again, or pip install --upgrade unibrivl. To load what fits "
            "on purpose, pass output_loading_info=True and look at the lists it returns"
        )


def wrapper_renamings(model: PreTrainedModel) -> list[WeightRenaming]:
    """For each tower that keeps its weights in one inner module: how a key without that module's name is read."""
    found = []
    for name, tower in model.named_modules():
        children = {key.split(".")[0] for key in tower.state_dict()} if isinstance(tower, PreTrainedModel) else set()
        if not name or len(children) != 1 or (wrapper := children.pop()) not in WRAPPERS:
            continue
        trunk = f"{model.base_model_prefix}."  # a file of the trunk alone has its keys without it
        for path in {name, name.removeprefix(trunk)}:
            source = rf"^{re.escape(path)}\.(?!{wrapper}\.)(.+)$"
            found.append(WeightRenaming(source_patterns=source, target_patterns=rf"{path}.{wrapper}.\1"))
    return found


def _mapping_hint(names: set[str], prefix: str, unexpected: set[str]) -> str | None:
    """How to load a trunk that a bigger model keeps under another name."""
    one = min(names)
    for key in sorted(unexpected):
        front = key.removesuffix(one)
        if front != key and all(front + name in unexpected for name in names):
            return f"It has them under {front!r}: pass key_mapping={{{'^' + re.escape(front)!r}: {prefix!r}}}"
    return None


def _listed(keys: set[str], room: int) -> str:
    return ", ".join(sorted(keys)[:room]) + (f" and {len(keys) - room} more" if len(keys) > room else "")


__all__ = ["STALE_KEYS", "WRAPPERS", "CheckedLoading", "CheckpointMismatch", "StaleKey", "wrapper_renamings"]
