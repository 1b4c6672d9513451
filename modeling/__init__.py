"""Hub-portable models: flat files, single-dot imports, nothing of ours but what lies in this folder."""

from .configuration_brivl import BRIVL_VISION_PRESETS, BriVLConfig, BriVLTextConfig, BriVLVisionConfig
from .configuration_mel_encoder import MelEncoderConfig
from .configuration_speechlm import SPEECHLM_PRESETS, SpeechLMConfig
from .configuration_unibrivl import UNIBRIVL_PRESETS, UniBriVLConfig
from .feature_extraction_mel_encoder import MelEncoderFeatureExtractor
from .feature_extraction_speechlm import SpeechLMFeatureExtractor
from .image_processing_brivl import BRIVL_IMAGE_PRESETS, BriVLImageProcessor, detector_boxes
from .matcher_pe_av import FramePreparation, PEAVMatcher
from .matcher_unibrivl import CLIPMatcher, Matcher, MatcherBase, UniBriVLMatcher
from .modeling_brivl import BriVLModel, BriVLTextModel, BriVLVisionModel
from .modeling_mel_encoder import MelEncoderModel
from .modeling_speechlm import SpeechLMForCTC, SpeechLMModel
from .modeling_speechlm_pretraining import SpeechLMForPreTraining
from .modeling_unibrivl import UniBriVLAudioModel, UniBriVLModel
from .modeling_unibrivl_captioning import UniBriVLForAudioCaptioning
from .modeling_unibrivl_heads import UniBriVLForAudioClassification
from .processing_unibrivl import UniBriVLProcessor
from .tokenization_speechlm import SpeechLMPhoneTokenizer

__all__ = [
    "BRIVL_IMAGE_PRESETS",
    "BRIVL_VISION_PRESETS",
    "SPEECHLM_PRESETS",
    "UNIBRIVL_PRESETS",
    "BriVLConfig",
    "BriVLImageProcessor",
    "BriVLModel",
    "BriVLTextConfig",
    "BriVLTextModel",
    "BriVLVisionConfig",
    "BriVLVisionModel",
    "CLIPMatcher",
    "FramePreparation",
    "Matcher",
    "MatcherBase",
    "MelEncoderConfig",
    "MelEncoderFeatureExtractor",
    "MelEncoderModel",
    "PEAVMatcher",
    "SpeechLMConfig",
    "SpeechLMFeatureExtractor",
    "SpeechLMForCTC",
    "SpeechLMForPreTraining",
    "SpeechLMModel",
    "SpeechLMPhoneTokenizer",
    "UniBriVLAudioModel",
    "UniBriVLConfig",
    "UniBriVLForAudioCaptioning",
    "UniBriVLForAudioClassification",
    "UniBriVLMatcher",
    "UniBriVLModel",
    "UniBriVLProcessor",
    "detector_boxes",
]
