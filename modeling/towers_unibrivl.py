"""Towers: any audio, image or text encoder, built from its configuration, loaded, run and read the same way.

Dispatch is on the string `model_type`: in a flat copy from the Hub the classes of our configurations exist twice.
What a tower needs beyond the rule stands in one of the tables below.

Shapes: B batch, S samples, T frames, M mel bands, D hidden, E embedding.
"""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    ClapAudioModel,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
    Siglip2TextModel,
    Siglip2VisionModel,
    SiglipTextModel,
    SiglipVisionModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .configuration_unibrivl import OWN_CONFIGS
from .loading_unibrivl import CheckedLoading, CheckpointMismatch
from .modeling_brivl import BriVLTextModel, BriVLVisionModel
from .modeling_cavmae import CAVMAEAudioModel, CAVMAEImageModel
from .modeling_mel_encoder import MelEncoderModel
from .modeling_speechlm import SpeechLMModel

# model_type -> class, where AutoModel would not give the tower that is wanted, or not in every version
TOWERS: dict[str, Any] = {
    "speechlm": SpeechLMModel,
    "mel_encoder": MelEncoderModel,
    "cavmae_audio": CAVMAEAudioModel,
    "cavmae_image": CAVMAEImageModel,
    "brivl_vision": BriVLVisionModel,
    "brivl_text": BriVLTextModel,
    "whisper": WhisperEncoder,
    "clap_audio_model": ClapAudioModel,
    "clip_vision_model": CLIPVisionModelWithProjection,
    "clip_text_model": CLIPTextModelWithProjection,
    "siglip_text_model": SiglipTextModel,
    "siglip2_text_model": Siglip2TextModel,
}
TOWER_FIELDS = dict.fromkeys(("vit", "deit", "yolos"), {"add_pooling_layer": False})  # poolers nobody has trained

# model_type of a whole model -> where in it the audio tower is
AUDIO_PARTS = {
    "whisper": "encoder",
    "clap": "audio_model",
    "pe_audio": "audio_encoder",
    "pe_audio_video": "audio_model.audio_encoder",
}
# model_type of a whole model -> the class that reads its audio side out of it: its parts are shared between modalities
AUDIO_SIDES: dict[str, Any] = {"cavmae": CAVMAEAudioModel}
# model_type of a whole model -> the classes that read its image and its text tower
IMAGE_PARTS: dict[str, tuple[type, type]] = {
    "clip": (CLIPVisionModelWithProjection, CLIPTextModelWithProjection),
    "siglip": (SiglipVisionModel, SiglipTextModel),
    "siglip2": (Siglip2VisionModel, Siglip2TextModel),
    "brivl": (BriVLVisionModel, BriVLTextModel),
}
WHOLE = ({"unibrivl"} | AUDIO_PARTS.keys() | AUDIO_SIDES.keys() | IMAGE_PARTS.keys()) - TOWERS.keys()
REFUSED = {"vit_mae": "hides most of a picture, at random: load its weights as a ViTModel(add_pooling_layer=False)"}
INPUTS = {"audio": ("input_values", "input_features"), "image": ("pixel_values",), "text": ("input_ids",)}
UNUSED = ("masked_spec_embed", "mask_token")  # vectors for masking in pre-training, which many checkpoints lack

# tokens before the frames: in the last hidden state, and in the layers' outputs
FIRST_FRAME = {"audio-spectrogram-transformer": 2}
FIRST_FRAME_IN_LAYERS = {**FIRST_FRAME, "pe_audio_encoder": 1}
MASK_NAME = {"pe_audio_encoder": "padding_mask"}
UNMIXED = ("mel_encoder", "sew", "sew-d")  # layers of many widths, or of half the frames
UNMASKED = (
    "audio-spectrogram-transformer",
    "clap_audio_model",
    "cavmae_audio",
)  # encoders of one length, which take no mask


def tower_class(config: PreTrainedConfig, kind: str) -> Any:
    """The class of a tower; `kind` is "audio", "image" or "text"."""
    model_class = TOWERS.get(config.model_type) or MODEL_MAPPING.get(type(config), None)
    if model_class is None:
        raise ValueError(
            f"AutoModel knows no model for a {config.model_type!r} configuration: register its class "
            "(AutoModel.register), or pip install --upgrade transformers"
        )
    if config.model_type in REFUSED:
        raise ValueError(f"{model_class.__name__} {REFUSED[config.model_type]}")
    whole = config.model_type in WHOLE or (config.is_encoder_decoder and config.model_type not in TOWERS)
    takes = getattr(model_class, "main_input_name", None)
    if whole or takes not in INPUTS[kind]:
        raise ValueError(
            f"{model_class.__name__} ({config.model_type!r}) {'is a whole model' if whole else f'takes {takes}'} and "
            f"no {kind} tower, which takes {' or '.join(INPUTS[kind])}: name its encoder, or another"
        )
    return model_class


def build_tower(config: PreTrainedConfig, kind: str) -> PreTrainedModel:
    """A new tower. A composite model asks all its towers for one attention: those that have no sdpa run eager."""
    model_class = tower_class(config, kind)
    if config._attn_implementation == "sdpa" and not model_class._supports_sdpa:
        config._attn_implementation = "eager"
    return model_class._from_config(config, **TOWER_FIELDS.get(config.model_type, {}))


def adopt_tower(tower: PreTrainedModel, kind: str) -> PreTrainedModel:
    """A tower that is there already: one that can be saved and built again, whose weights no `post_init` will draw."""
    wanted = tower_class(tower.config, kind)
    if wanted.__name__ not in (base.__name__ for base in type(tower).__mro__):
        raise ValueError(
            f"the {kind} tower is a {type(tower).__name__} and would be built again as a {wanted.__name__}: pass one, "
            "or the name or folder of the checkpoint"
        )
    fields = TOWER_FIELDS.get(tower.config.model_type)
    if fields and getattr(tower, "pooler", None) is not None:
        raise ValueError(
            f"the pooler of this {wanted.__name__} would not be built again: pass {wanted.__name__}.from_pretrained("
            "..., add_pooling_layer=False), or the name or folder of the checkpoint"
        )
    for module in tower.modules():
        module._is_hf_initialized = True
    return tower


def layers_to_mix(tower: PreTrainedModel) -> list:
    """The layers a mix averages, in the order they run; none where they differ in width or in frames."""
    config = tower.config
    if config.model_type == "speechlm":
        return [*tower.encoder.layers, *tower.shared_encoder.layers]
    if config.model_type == "cavmae_audio":
        return [*tower.audio_layers, *tower.joint_layers]
    if config.model_type in UNMIXED or getattr(config, "depths", None) or getattr(config, "add_adapter", False):
        return []
    number = getattr(config, "num_hidden_layers", None)
    for name, module in tower.named_modules():
        is_layers = isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in ("layers", "layer")
        if is_layers and len(module) == number:
            return list(module)
    return []


def run_audio_tower(tower: PreTrainedModel, input_values, attention_mask=None, **kwargs):
    """Sound, as the tower's own feature extractor prepares it, through the tower: its output."""
    model_type = tower.config.model_type
    if attention_mask is not None and model_type not in UNMASKED:
        name = MASK_NAME.get(model_type, "attention_mask")
        if name not in inspect.signature(tower.forward).parameters:
            raise ValueError(f"{type(tower).__name__} takes no {name}: leave it out, or take an encoder that does")
        kwargs[name] = attention_mask
    output = tower(input_values.to(tower.dtype), return_dict=True, **kwargs)
    if getattr(output, "last_hidden_state", None) is None:
        raise ValueError(f"{type(tower).__name__} gives no last_hidden_state, so it is no encoder: take another")
    return output


def frames_of(tower: PreTrainedModel, states: torch.Tensor, in_layers: bool = False) -> torch.Tensor:
    """The frames (B, T, D) in hidden states: without class tokens, of a map the mean over frequency."""
    if states.dim() == 4:  # CLAP: (B, D, frequency, T)
        return states.mean(2).transpose(1, 2)
    if tower.config.model_type == "cavmae_audio":  # rows of frequency, of as many columns as the sound has
        return states.unflatten(1, (tower.config.audio_grid[0], -1)).mean(1)
    first = FIRST_FRAME_IN_LAYERS if in_layers else FIRST_FRAME
    return states[:, first.get(tower.config.model_type, 0) :]


def frame_mask_of(tower: PreTrainedModel, output, frames: int, attention_mask=None) -> torch.Tensor | None:
    """Which frames are real, (B, T), from the mask of the input; None where all are."""
    for name in ("frame_mask", "output_mask", "attention_mask"):
        if getattr(output, name, None) is not None:
            return getattr(output, name).long()
    if attention_mask is None or tower.config.model_type in UNMASKED:
        return None
    length = attention_mask.shape[-1]
    if length == frames:
        return attention_mask.long()
    if hasattr(tower, "_get_feature_vector_attention_mask"):  # HuBERT, wav2vec 2.0 and their kin
        # their own mask calls all frames real where the clip is too short for one
        lengths_B = tower._get_feat_extract_output_lengths(attention_mask.long().sum(-1))
        return (torch.arange(frames, device=lengths_B.device) < lengths_B[:, None]).long()
    if length % frames == 0:  # Whisper: two spectra a frame
        return attention_mask[:, :: length // frames].long()
    raise ValueError(
        f"a {tower.config.model_type} tower made {frames} frames of {length} inputs, and how its mask shrinks is not "
        "known: leave the attention_mask out, or add the tower to towers_unibrivl.py"
    )


def image_embedding(tower: PreTrainedModel, output) -> torch.Tensor:
    """The embedding (B, E) in an image tower's output: projected, else pooled, else the class token, else the mean."""
    for name in ("image_embeds", "pooler_output"):
        if getattr(output, name, None) is not None:
            return getattr(output, name).flatten(1)
    states = output.last_hidden_state
    if states.dim() == 4:  # a map (B, E, H, W)
        return states.flatten(2).mean(-1)
    has_class = any(name.endswith("cls_token") for name, _ in tower.named_parameters())
    return states[:, 0] if has_class else states.mean(1)


def text_embedding(output) -> torch.Tensor:
    """The embedding (B, E) in a native text tower's output."""
    for name in ("text_embeds", "pooler_output"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    raise ValueError("this text tower gives neither text_embeds nor pooler_output: it shares no space with pictures")


def load_audio_tower(source, **kwargs) -> PreTrainedModel:
    """The audio encoder of a checkpoint (name or folder) or of a model, alone or inside a whole one."""
    if _is_model(source):
        model = source.base_model  # of a model with a head the one under it
        part = AUDIO_PARTS.get(model.config.model_type)
        inside = part is not None and hasattr(model, part.split(".")[0])
        return adopt_tower(model.get_submodule(part) if inside else model, "audio")
    config = _config_of(source, **kwargs)
    if config.model_type in AUDIO_SIDES:
        return _load(AUDIO_SIDES[config.model_type], source, **kwargs)
    own, part = TOWERS.get(config.model_type), AUDIO_PARTS.get(config.model_type)
    if part is None or (own is not None and own.__name__ in (config.architectures or ())):
        return _load(own or AutoModel, source, **kwargs)
    return _load(AutoModel, source, part, **kwargs).get_submodule(part)


def load_image_towers(source, text: bool, **kwargs) -> tuple[PreTrainedModel, PreTrainedModel | None]:
    """The image encoder of a checkpoint, or a model as it is; and the text encoder of its space, if there is one."""
    if _is_model(source):
        return adopt_tower(source, "image"), None
    model_type = _config_of(source, **kwargs).model_type
    if model_type in IMAGE_PARTS:
        image_class, text_class = IMAGE_PARTS[model_type]
        return _load(image_class, source, **kwargs), _load(text_class, source, **kwargs) if text else None
    kwargs = {**TOWER_FIELDS.get(model_type, {}), **kwargs}
    return _load(TOWERS.get(model_type, AutoModel), source, **kwargs), None


def load_text_tower(source, **kwargs) -> PreTrainedModel:
    """The text encoder of a checkpoint that has one beside pictures, or one that was saved alone; or a model."""
    if _is_model(source):
        return adopt_tower(source, "text")
    model_type = _config_of(source, **kwargs).model_type
    if model_type in IMAGE_PARTS:
        return _load(IMAGE_PARTS[model_type][1], source, **kwargs)
    return _load(TOWERS.get(model_type, AutoModel), source, **kwargs)


def tower_of(config, kind: str, tower: PreTrainedModel | None) -> PreTrainedModel:
    """A new tower, or the one that is there."""
    return build_tower(config, kind) if tower is None else adopt_tower(tower, kind)


def _is_model(source) -> bool:
    if isinstance(source, nn.Module) and not isinstance(source, PreTrainedModel):
        raise ValueError(
            f"a tower must be a transformers model, got {type(source).__name__}. Of a PEFT model pass "
            "model.get_base_model(), and of a compiled one the model before torch.compile"
        )
    return isinstance(source, nn.Module)


def _load(model_class: Any, source, part: str = "", **kwargs) -> PreTrainedModel:
    """From a checkpoint that has every weight of the tower: transformers would draw missing ones and go on."""
    if issubclass(model_class, CheckedLoading):
        return model_class.from_pretrained(source, **kwargs)
    model, info = model_class.from_pretrained(source, output_loading_info=True, **kwargs)
    missing = sorted(
        key for key in info["missing_keys"] if key.startswith(part) and key.rpartition(".")[2] not in UNUSED
    )
    if missing:
        raise CheckpointMismatch(
            f"{source} lacks {len(missing)} weights of {type(model).__name__}: {', '.join(missing[:12])}. If they may "
            "start anew, load it yourself and pass the model"
        )
    return model


def _config_of(source, **kwargs) -> PreTrainedConfig:
    names = ("revision", "token", "cache_dir", "local_files_only", "trust_remote_code", "subfolder", "force_download")
    kwargs = {name: kwargs[name] for name in names if name in kwargs}
    fields, _ = PreTrainedConfig.get_config_dict(source, **kwargs)
    return OWN_CONFIGS.get(fields.get("model_type"), AutoConfig).from_pretrained(source, **kwargs)


__all__ = [
    "adopt_tower", "build_tower", "frame_mask_of", "frames_of", "image_embedding", "layers_to_mix", "load_audio_tower",
    "load_image_towers", "load_text_tower", "run_audio_tower", "text_embedding", "tower_of",
]  # fmt: skip
