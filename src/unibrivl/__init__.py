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
    "Embedder": "unibrivl.embedder",
    "Embeddings": "unibrivl.embedder",
    "Evidence": "unibrivl.embedder",
    "embedded": "unibrivl.embedded",
    "explain": "unibrivl.embedder",
    "load": "unibrivl.embedder",
    "load_audio": "unibrivl.audio",
    "read_blocks": "unibrivl.audio",
    "split_windows": "unibrivl.audio",
    "AudioCue": "unibrivl.modeling",
    "AudioTokenAdapter": "unibrivl.modeling",
    "AudioTokenAdapterConfig": "unibrivl.modeling",
    "BriVLConfig": "unibrivl.modeling",
    "BriVLImageProcessor": "unibrivl.modeling",
    "BriVLModel": "unibrivl.modeling",
    "BriVLTextConfig": "unibrivl.modeling",
    "BriVLTextModel": "unibrivl.modeling",
    "BriVLVisionConfig": "unibrivl.modeling",
    "BriVLVisionModel": "unibrivl.modeling",
    "CAVMAEAudioConfig": "unibrivl.modeling",
    "CAVMAEAudioModel": "unibrivl.modeling",
    "CAVMAEConfig": "unibrivl.modeling",
    "CAVMAEFeatureExtractor": "unibrivl.modeling",
    "CAVMAEForAudioClassification": "unibrivl.modeling",
    "CAVMAEForAudioVisualClassification": "unibrivl.modeling",
    "CAVMAEForPreTraining": "unibrivl.modeling",
    "CAVMAEImageConfig": "unibrivl.modeling",
    "CAVMAEImageModel": "unibrivl.modeling",
    "CAVMAEImageProcessor": "unibrivl.modeling",
    "CAVMAEModel": "unibrivl.modeling",
    "BrewCLIPConfig": "unibrivl.modeling",
    "BrewCLIPForSpeechClassification": "unibrivl.modeling",
    "BrewCLIPModel": "unibrivl.modeling",
    "BrewCLIPProcessor": "unibrivl.modeling",
    "CAVTMAEConfig": "unibrivl.modeling",
    "CAVTMAEModel": "unibrivl.modeling",
    "MelEncoderConfig": "unibrivl.modeling",
    "MelEncoderFeatureExtractor": "unibrivl.modeling",
    "MelEncoderModel": "unibrivl.modeling",
    "SpeechLMConfig": "unibrivl.modeling",
    "SpeechLMFeatureExtractor": "unibrivl.modeling",
    "SpeechLMForCTC": "unibrivl.modeling",
    "SpeechLMForPreTraining": "unibrivl.modeling",
    "SpeechLMModel": "unibrivl.modeling",
    "SpeechLMPhoneTokenizer": "unibrivl.modeling",
    "UniBriVLAudioModel": "unibrivl.modeling",
    "UniBriVLConfig": "unibrivl.modeling",
    "UniBriVLForAudioCaptioning": "unibrivl.modeling",
    "UniBriVLForAudioClassification": "unibrivl.modeling",
    "UniBriVLModel": "unibrivl.modeling",
    "UniBriVLProcessor": "unibrivl.modeling",
    "AudioTokenEditPipeline": "unibrivl.pipelines",
    "AudioTokenImg2ImgPipeline": "unibrivl.pipelines",
    "AudioTokenInpaintPipeline": "unibrivl.pipelines",
    "AudioTokenPipeline": "unibrivl.pipelines",
    "AudioTokenXLPipeline": "unibrivl.pipelines",
    "UniBriVLPipeline": "unibrivl.pipelines",
    "UniBriVLUnCLIPPipeline": "unibrivl.pipelines",
    "UniBriVLXLPipeline": "unibrivl.pipelines",
}

__all__ = ["__version__", *_LAZY]  # noqa: PLE0604  (names are resolved by __getattr__)

if TYPE_CHECKING:
    from unibrivl.audio import Waveform, load_audio, read_blocks, split_windows
    from unibrivl.embedded import embedded
    from unibrivl.embedder import Embedder, Embeddings, Evidence, explain, load
    from unibrivl.modeling import (
        AudioCue,
        AudioTokenAdapter,
        AudioTokenAdapterConfig,
        BrewCLIPConfig,
        BrewCLIPForSpeechClassification,
        BrewCLIPModel,
        BrewCLIPProcessor,
        BriVLConfig,
        BriVLImageProcessor,
        BriVLModel,
        BriVLTextConfig,
        BriVLTextModel,
        BriVLVisionConfig,
        BriVLVisionModel,
        CAVMAEAudioConfig,
        CAVMAEAudioModel,
        CAVMAEConfig,
        CAVMAEFeatureExtractor,
        CAVMAEForAudioClassification,
        CAVMAEForAudioVisualClassification,
        CAVMAEForPreTraining,
        CAVMAEImageConfig,
        CAVMAEImageModel,
        CAVMAEImageProcessor,
        CAVMAEModel,
        CAVTMAEConfig,
        CAVTMAEModel,
        MelEncoderConfig,
        MelEncoderFeatureExtractor,
        MelEncoderModel,
        SpeechLMConfig,
        SpeechLMFeatureExtractor,
        SpeechLMForCTC,
        SpeechLMForPreTraining,
        SpeechLMModel,
        SpeechLMPhoneTokenizer,
        UniBriVLAudioModel,
        UniBriVLConfig,
        UniBriVLForAudioCaptioning,
        UniBriVLForAudioClassification,
        UniBriVLModel,
        UniBriVLProcessor,
    )
    from unibrivl.pipelines import (
        AudioTokenEditPipeline,
        AudioTokenImg2ImgPipeline,
        AudioTokenInpaintPipeline,
        AudioTokenPipeline,
        AudioTokenXLPipeline,
        UniBriVLPipeline,
        UniBriVLUnCLIPPipeline,
        UniBriVLXLPipeline,
    )


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'unibrivl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
