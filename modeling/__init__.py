"""Hub-portable models: flat files, single-dot imports, nothing of ours but what lies in this folder."""

from .configuration_speechlm import SPEECHLM_PRESETS, SpeechLMConfig
from .feature_extraction_speechlm import SpeechLMFeatureExtractor
from .modeling_speechlm import SpeechLMForCTC, SpeechLMModel
from .modeling_speechlm_pretraining import SpeechLMForPreTraining
from .tokenization_speechlm import SpeechLMPhoneTokenizer

__all__ = [
    "SPEECHLM_PRESETS",
    "SpeechLMConfig",
    "SpeechLMFeatureExtractor",
    "SpeechLMForCTC",
    "SpeechLMForPreTraining",
    "SpeechLMModel",
    "SpeechLMPhoneTokenizer",
]
