"""unibrivl: a sound finds, makes, edits or explains a picture.

`import unibrivl` is instant: it loads neither torch nor transformers. The public names below are looked up when first
used, so `unibrivl.load_audio` costs what audio costs and `unibrivl.SpeechLMModel` what torch costs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

# public name -> the module that defines it
_LAZY = {
    "Waveform": "unibrivl.audio",
    "load_audio": "unibrivl.audio",
    "read_blocks": "unibrivl.audio",
    "split_windows": "unibrivl.audio",
    "SpeechLMConfig": "unibrivl.modeling",
    "SpeechLMFeatureExtractor": "unibrivl.modeling",
    "SpeechLMForCTC": "unibrivl.modeling",
    "SpeechLMForPreTraining": "unibrivl.modeling",
    "SpeechLMModel": "unibrivl.modeling",
    "SpeechLMPhoneTokenizer": "unibrivl.modeling",
}

__all__ = ["__version__", *_LAZY]  # noqa: PLE0604  (names are resolved by __getattr__)

if TYPE_CHECKING:
    from unibrivl.audio import Waveform, load_audio, read_blocks, split_windows
    from unibrivl.modeling import (
        SpeechLMConfig,
        SpeechLMFeatureExtractor,
        SpeechLMForCTC,
        SpeechLMForPreTraining,
        SpeechLMModel,
        SpeechLMPhoneTokenizer,
    )


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'unibrivl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
