"""The model that benchmarks of training share: SpeechLM and CLIP's picture tower, narrow and of few layers.

A step of it takes some hundred milliseconds on a CPU.
"""

from __future__ import annotations

from unibrivl.modeling import UniBriVLConfig, UniBriVLModel

SMALL = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}


def small_model() -> UniBriVLModel:
    towers = UniBriVLConfig(
        audio_config={"model_type": "speechlm", **SMALL, "num_speech_layers": 1, "num_shared_layers": 1},
        vision_config={"model_type": "clip_vision_model", **SMALL, "num_hidden_layers": 2, "image_size": 64},
        num_sa_layers=1,
    )
    return UniBriVLModel(towers)
