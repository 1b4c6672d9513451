"""`load(model)`: a name or folder -> an embedder, whatever family the model is of.

Dispatch is on the configuration's `model_type`: our own models, PE-AV, and models of transformers that put pictures
and texts into one space.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from unibrivl.embedder.embedder import Embedder

SETTINGS = ("window_s", "hop_s", "batch_size", "workers", "calibration")
JOINT = ("unibrivl", "pe_audio_video", "clip", "siglip", "siglip2", "align", "altclip")  # model types
FRAME_SIDE = 336  # of PE's vision tower, where its configuration does not say


def load(model: str | os.PathLike | Any, processor: Any = None, *, space: str = "match", **kwargs) -> Embedder:
    """An embedder of a model on the Hub or in a folder: UniBriVL, PE-AV (`facebook/pe-av-*`), CLIP, SigLIP.

    Args:
        model: name, folder, or a loaded model; a loaded one needs its `processor` too.
        processor (*optional*): what prepares the model's input, where it does not lie beside the model.
        space (`str`): of UniBriVL's vectors: `"match"`, `"shared"` or `"native"`; see `UniBriVLMatcher`.
        kwargs: settings of `Embedder` (window_s, hop_s, batch_size, workers, calibration); all else is for
            `from_pretrained`: revision, dtype, device_map, token, local_files_only, ...
    """
    settings = {name: kwargs.pop(name) for name in SETTINGS if name in kwargs}
    return Embedder(make_matcher(model, processor, space, kwargs), **settings)


def make_matcher(model, processor, space: str, kwargs: dict):
    """The matcher of a model; dispatched on its model_type."""
    from transformers import AutoConfig, AutoModel, AutoProcessor

    from unibrivl.modeling import CLIPMatcher, PEAVMatcher, UniBriVLMatcher

    source, where = "", {}
    if isinstance(model, (str, os.PathLike)):
        source = os.fspath(model)
        places = ("revision", "token", "cache_dir", "local_files_only", "subfolder", "trust_remote_code")
        where = {name: kwargs[name] for name in places if name in kwargs}
        model_type = AutoConfig.from_pretrained(source, **where).model_type
        check_can_embed(model_type, source)
        model = AutoModel.from_pretrained(source, **kwargs)
    else:
        model_type = model.config.model_type
        check_can_embed(model_type, type(model).__name__)
        if processor is None:
            raise ValueError("a loaded model needs its processor too: load(model, processor)")
    if model_type == "pe_audio_video":
        parts = processor or pe_av_parts(source, where)
        return PEAVMatcher(model, with_frames(model, parts))
    if processor is None:
        processor = AutoProcessor.from_pretrained(source, **where)
    if model_type == "unibrivl":
        return UniBriVLMatcher(model, processor, space)
    return CLIPMatcher(model, processor)


def check_can_embed(model_type: str, name: str) -> None:
    """Refuses, before weights are fetched, models that put no two kinds of things into one space."""
    if model_type not in JOINT:
        raise ValueError(
            f"{name} is a {model_type!r} model, which does not put sounds, pictures or texts into one space as load "
            f"needs it. It takes {', '.join(JOINT)}; towers are joined by UniBriVLModel.from_pretrained_towers"
        )


def pe_av_parts(source: str, where: dict) -> SimpleNamespace:
    """PE-AV's feature extractor and tokenizer, without its video processor, which needs torchvision."""
    from transformers import AutoFeatureExtractor, AutoTokenizer

    return SimpleNamespace(
        feature_extractor=AutoFeatureExtractor.from_pretrained(source, **where),
        tokenizer=AutoTokenizer.from_pretrained(source, **where),
        video_processor=None,
    )


def with_frames(model, parts) -> SimpleNamespace:
    from unibrivl.modeling import FramePreparation

    vision = model.config.audio_video_config.video_config.vision_config
    side = getattr(vision, "image_size", None) or (getattr(vision, "model_args", None) or {}).get("img_size")
    side = (side[0] if isinstance(side, (list, tuple)) else side) or FRAME_SIDE
    frames = getattr(parts, "image_processor", None)
    if frames is None:
        frames = FramePreparation.from_processor(getattr(parts, "video_processor", None), side)
    return SimpleNamespace(
        feature_extractor=parts.feature_extractor, tokenizer=parts.tokenizer, image_processor=frames
    )
