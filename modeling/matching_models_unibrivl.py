"""From a model and its processor to a matcher, dispatched on the configuration's `model_type`: our own models, PE-AV,
and models of transformers that put pictures and texts into one space.
"""

from types import SimpleNamespace
from typing import Any

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor, AutoTokenizer

from .matcher_brewclip import BrewCLIPMatcher
from .matcher_cavmae import CAVMAEMatcher
from .matcher_cavtmae import CAVTMAEMatcher
from .matcher_clap import CLAPMatcher
from .matcher_pe_av import FramePreparation, PEAVMatcher
from .matcher_unibrivl import CLIPMatcher, UniBriVLMatcher
from .processing_unibrivl import UniBriVLProcessor

JOINT = (
    "unibrivl",
    "cavmae",
    "cavtmae",
    "brewclip",
    "pe_audio_video",
    "clap",
    "clip",
    "siglip",
    "siglip2",
    "align",
    "altclip",
)  # model types
MATCHERS = {"cavmae": CAVMAEMatcher, "cavtmae": CAVTMAEMatcher, "brewclip": BrewCLIPMatcher, "clap": CLAPMatcher}
FRAME_SIDE = 336  # of PE's vision tower, where its configuration does not say
PLACES = ("revision", "token", "cache_dir", "local_files_only", "subfolder", "trust_remote_code")


def matcher_of(model: Any, processor: Any, space: str = "match"):
    """The matcher of a loaded model.

    Args:
        model: UniBriVL, CAV-MAE, CAVT-MAE, BrewCLIP, PE-AV, CLAP, CLIP, SigLIP, ...
        processor: what prepares its input. Of PE-AV whatever carries a `feature_extractor` and a `tokenizer`.
        space (`str`): of UniBriVL's vectors; see `UniBriVLMatcher`.
    """
    check_joint(model.config.model_type, type(model).__name__)
    if processor is None:
        raise ValueError(f"{type(model).__name__} needs its processor too: pass both")
    if model.config.model_type == "unibrivl":
        return UniBriVLMatcher(model, processor, space)
    if model.config.model_type == "pe_audio_video":
        return PEAVMatcher(model, with_frames(model, processor))
    return MATCHERS.get(model.config.model_type, CLIPMatcher)(model, processor)


def load_model_and_processor(source: str, processor: Any = None, **kwargs) -> tuple[Any, Any]:
    """A model of one space for two kinds of things, on the Hub or in a folder, and what prepares its input.

    Args:
        source: name or folder.
        processor (*optional*): takes the place of the one that lies beside the model.
        kwargs: for `from_pretrained`: revision, dtype, device_map, token, local_files_only, ...
    """
    where = {name: kwargs[name] for name in PLACES if name in kwargs}
    model_type = AutoConfig.from_pretrained(source, **where).model_type
    check_joint(model_type, source)
    model = AutoModel.from_pretrained(source, **kwargs)
    if processor is None:
        processor = (pe_av_parts if model_type == "pe_audio_video" else AutoProcessor.from_pretrained)(source, **where)
    return model, processor


def check_joint(model_type: str, name: str) -> None:
    """Refuses, before weights are fetched, models that put no two kinds of things into one space."""
    if model_type not in JOINT:
        raise ValueError(
            f"{name} is a {model_type!r} model, which does not put sounds, pictures or texts into one space as load "
            f"needs it. It takes {', '.join(JOINT)}; towers are joined by UniBriVLModel.from_pretrained_towers"
        )


def pe_av_parts(source: str, **where) -> UniBriVLProcessor:
    """PE-AV's feature extractor and tokenizer, without its video processor, which needs torchvision."""
    return UniBriVLProcessor(
        feature_extractor=AutoFeatureExtractor.from_pretrained(source, **where),
        tokenizer=AutoTokenizer.from_pretrained(source, **where),
    )


def with_frames(model: Any, parts: Any) -> SimpleNamespace:
    """The parts of PE-AV, and how a picture becomes a frame for it."""
    vision = model.config.audio_video_config.video_config.vision_config
    side = getattr(vision, "image_size", None) or (getattr(vision, "model_args", None) or {}).get("img_size")
    side = (side[0] if isinstance(side, (list, tuple)) else side) or FRAME_SIDE
    frames = getattr(parts, "image_processor", None)
    if frames is None:
        frames = FramePreparation.from_processor(getattr(parts, "video_processor", None), side)
    return SimpleNamespace(
        feature_extractor=parts.feature_extractor, tokenizer=parts.tokenizer, image_processor=frames
    )


__all__ = ["check_joint", "load_model_and_processor", "matcher_of"]
