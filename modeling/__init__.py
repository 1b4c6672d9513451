"""Hub-portable models: flat files, single-dot imports, nothing of ours but what lies in this folder.

The Auto classes learn of ours here, in the one file that no flat copy has. A copy that registered its classes would be
taken for the installed code by every other repository of ours in the same process, whatever version that carries.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForPreTraining,
    AutoProcessor,
    AutoTokenizer,
)

# transformers 5.4 exports a substitute that asks for torchvision; the class itself does not
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from .configuration_audio_token import AudioTokenAdapterConfig
from .configuration_brewclip import BREWCLIP_PRESETS, BrewCLIPConfig
from .configuration_brivl import BRIVL_VISION_PRESETS, BriVLConfig, BriVLTextConfig, BriVLVisionConfig
from .configuration_cavmae import CAVMAEAudioConfig, CAVMAEConfig, CAVMAEImageConfig
from .configuration_cavtmae import CAVTMAEConfig
from .configuration_mel_encoder import MelEncoderConfig
from .configuration_speechlm import SPEECHLM_PRESETS, SpeechLMConfig
from .configuration_unibrivl import UNIBRIVL_PRESETS, UniBriVLConfig
from .cue_audio_token import AudioCue
from .feature_extraction_cavmae import CAVMAEFeatureExtractor
from .feature_extraction_mel_encoder import MelEncoderFeatureExtractor
from .feature_extraction_speechlm import SpeechLMFeatureExtractor
from .image_processing_brivl import BRIVL_IMAGE_PRESETS, BriVLImageProcessor, detector_boxes
from .image_processing_cavmae import CAVMAEImageProcessor
from .matcher_brewclip import BrewCLIPMatcher, HeardSpeech
from .matcher_cavmae import CAVMAEMatcher
from .matcher_cavtmae import CAVTMAEMatcher
from .matcher_clap import CLAPMatcher
from .matcher_pe_av import FramePreparation, PEAVMatcher
from .matcher_unibrivl import CLIPMatcher, Matcher, MatcherBase, UniBriVLMatcher
from .modeling_audio_token import AudioTokenAdapter
from .modeling_brewclip import BrewCLIPModel
from .modeling_brewclip_heads import BrewCLIPForSpeechClassification
from .modeling_brivl import BriVLModel, BriVLTextModel, BriVLVisionModel
from .modeling_cavmae import CAVMAEAudioModel, CAVMAEImageModel, CAVMAEModel
from .modeling_cavmae_heads import CAVMAEForAudioClassification, CAVMAEForAudioVisualClassification
from .modeling_cavmae_pretraining import CAVMAEForPreTraining
from .modeling_cavtmae import CAVTMAEModel
from .modeling_mel_encoder import MelEncoderModel
from .modeling_speechlm import SpeechLMForCTC, SpeechLMModel
from .modeling_speechlm_pretraining import SpeechLMForPreTraining
from .modeling_unibrivl import UniBriVLAudioModel, UniBriVLModel
from .modeling_unibrivl_captioning import UniBriVLForAudioCaptioning
from .modeling_unibrivl_heads import UniBriVLForAudioClassification
from .processing_brewclip import BrewCLIPProcessor
from .processing_unibrivl import UniBriVLProcessor
from .tokenization_speechlm import SpeechLMPhoneTokenizer
from .transcription_brewclip import Transcriber

AutoConfig.register("audio_token_adapter", AudioTokenAdapterConfig, exist_ok=True)
AutoConfig.register("brewclip", BrewCLIPConfig, exist_ok=True)
AutoConfig.register("brivl", BriVLConfig, exist_ok=True)
AutoConfig.register("brivl_text", BriVLTextConfig, exist_ok=True)
AutoConfig.register("brivl_vision", BriVLVisionConfig, exist_ok=True)
AutoConfig.register("cavmae", CAVMAEConfig, exist_ok=True)
AutoConfig.register("cavmae_audio", CAVMAEAudioConfig, exist_ok=True)
AutoConfig.register("cavmae_image", CAVMAEImageConfig, exist_ok=True)
AutoConfig.register("cavtmae", CAVTMAEConfig, exist_ok=True)
AutoConfig.register("mel_encoder", MelEncoderConfig, exist_ok=True)
AutoConfig.register("speechlm", SpeechLMConfig, exist_ok=True)
AutoConfig.register("unibrivl", UniBriVLConfig, exist_ok=True)

AutoModel.register(AudioTokenAdapterConfig, AudioTokenAdapter, exist_ok=True)
AutoModel.register(BrewCLIPConfig, BrewCLIPModel, exist_ok=True)
AutoModel.register(BriVLConfig, BriVLModel, exist_ok=True)
AutoModel.register(BriVLTextConfig, BriVLTextModel, exist_ok=True)
AutoModel.register(BriVLVisionConfig, BriVLVisionModel, exist_ok=True)
AutoModel.register(CAVMAEConfig, CAVMAEModel, exist_ok=True)
AutoModel.register(CAVMAEAudioConfig, CAVMAEAudioModel, exist_ok=True)
AutoModel.register(CAVMAEImageConfig, CAVMAEImageModel, exist_ok=True)
AutoModel.register(CAVTMAEConfig, CAVTMAEModel, exist_ok=True)
AutoModel.register(MelEncoderConfig, MelEncoderModel, exist_ok=True)
AutoModel.register(SpeechLMConfig, SpeechLMModel, exist_ok=True)
AutoModel.register(UniBriVLConfig, UniBriVLModel, exist_ok=True)
AutoModelForAudioClassification.register(BrewCLIPConfig, BrewCLIPForSpeechClassification, exist_ok=True)
AutoModelForAudioClassification.register(CAVMAEConfig, CAVMAEForAudioVisualClassification, exist_ok=True)
AutoModelForAudioClassification.register(CAVMAEAudioConfig, CAVMAEForAudioClassification, exist_ok=True)
AutoModelForAudioClassification.register(UniBriVLConfig, UniBriVLForAudioClassification, exist_ok=True)
AutoModelForCTC.register(SpeechLMConfig, SpeechLMForCTC, exist_ok=True)
AutoModelForPreTraining.register(CAVMAEConfig, CAVMAEForPreTraining, exist_ok=True)
AutoModelForPreTraining.register(SpeechLMConfig, SpeechLMForPreTraining, exist_ok=True)

AutoFeatureExtractor.register(CAVMAEAudioConfig, CAVMAEFeatureExtractor, exist_ok=True)
AutoFeatureExtractor.register(CAVMAEConfig, CAVMAEFeatureExtractor, exist_ok=True)
AutoFeatureExtractor.register(CAVTMAEConfig, CAVMAEFeatureExtractor, exist_ok=True)
AutoFeatureExtractor.register(MelEncoderConfig, MelEncoderFeatureExtractor, exist_ok=True)
AutoFeatureExtractor.register(SpeechLMConfig, SpeechLMFeatureExtractor, exist_ok=True)
AutoImageProcessor.register(BriVLConfig, image_processor_classes={"pil": BriVLImageProcessor}, exist_ok=True)
AutoImageProcessor.register(BriVLVisionConfig, image_processor_classes={"pil": BriVLImageProcessor}, exist_ok=True)
AutoImageProcessor.register(CAVMAEConfig, image_processor_classes={"pil": CAVMAEImageProcessor}, exist_ok=True)
AutoImageProcessor.register(CAVMAEImageConfig, image_processor_classes={"pil": CAVMAEImageProcessor}, exist_ok=True)
AutoImageProcessor.register(CAVTMAEConfig, image_processor_classes={"pil": CAVMAEImageProcessor}, exist_ok=True)
AutoProcessor.register(BrewCLIPConfig, BrewCLIPProcessor, exist_ok=True)
AutoProcessor.register(CAVMAEConfig, UniBriVLProcessor, exist_ok=True)
AutoProcessor.register(CAVTMAEConfig, UniBriVLProcessor, exist_ok=True)
AutoProcessor.register(UniBriVLConfig, UniBriVLProcessor, exist_ok=True)
AutoTokenizer.register(SpeechLMConfig, SpeechLMPhoneTokenizer, exist_ok=True)

__all__ = [
    "BREWCLIP_PRESETS",
    "BRIVL_IMAGE_PRESETS",
    "BRIVL_VISION_PRESETS",
    "SPEECHLM_PRESETS",
    "UNIBRIVL_PRESETS",
    "AudioCue",
    "AudioTokenAdapter",
    "AudioTokenAdapterConfig",
    "BrewCLIPConfig",
    "BrewCLIPForSpeechClassification",
    "BrewCLIPMatcher",
    "BrewCLIPModel",
    "BrewCLIPProcessor",
    "BriVLConfig",
    "BriVLImageProcessor",
    "BriVLModel",
    "BriVLTextConfig",
    "BriVLTextModel",
    "BriVLVisionConfig",
    "BriVLVisionModel",
    "CAVMAEAudioConfig",
    "CAVMAEAudioModel",
    "CAVMAEConfig",
    "CAVMAEFeatureExtractor",
    "CAVMAEForAudioClassification",
    "CAVMAEForAudioVisualClassification",
    "CAVMAEForPreTraining",
    "CAVMAEImageConfig",
    "CAVMAEImageModel",
    "CAVMAEImageProcessor",
    "CAVMAEMatcher",
    "CAVMAEModel",
    "CAVTMAEConfig",
    "CAVTMAEMatcher",
    "CAVTMAEModel",
    "CLAPMatcher",
    "CLIPMatcher",
    "FramePreparation",
    "HeardSpeech",
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
    "Transcriber",
    "UniBriVLAudioModel",
    "UniBriVLConfig",
    "UniBriVLForAudioCaptioning",
    "UniBriVLForAudioClassification",
    "UniBriVLMatcher",
    "UniBriVLModel",
    "UniBriVLProcessor",
    "detector_boxes",
]
