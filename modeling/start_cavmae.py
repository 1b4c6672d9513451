"""Where CAV-MAE's pre-training begins: at a masked autoencoder of pictures alone, a ViT-MAE of transformers.

As CAV-MAE's authors began at ImageNet's MAE:

    layers               the first ones twice, for sounds and for pictures; the last ones are the joint layers
    norms of a stream    those of the layer, for every stream; the last norm too
    patches of a sound   the sum over the colours of the kernel
    positions            a picture's are MAE's without that of the class token; a sound's are new, sines and cosines
    decoder              MAE's; a sound's patches are predicted by the rows for as many numbers at the front
    modalities           new: MAE has none, and its class token has no place here

Norms keep CAV-MAE's own eps, 1e-5.
"""

import re

import torch
from torch import nn
from transformers import AutoConfig, ViTMAEForPreTraining

from .configuration_cavmae import CAVMAEConfig
from .layers_cavmae import STREAMS
from .modeling_cavmae_pretraining import CAVMAEForPreTraining

# fields of the configuration that an image MAE decides, under the names that both have
DECIDED = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "patch_size",
    "image_size", "num_channels", "decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads",
    "decoder_intermediate_size",
)  # fmt: skip
# MAE's names in a layer, of today's transformers and of 5.4 -> ours
LAYER_PARTS = {
    r"attention\.(q_proj|attention\.query)": "attention.q_proj",
    r"attention\.(k_proj|attention\.key)": "attention.k_proj",
    r"attention\.(v_proj|attention\.value)": "attention.v_proj",
    r"attention\.(o_proj|output\.dense)": "attention.out_proj",
    r"(mlp\.fc1|intermediate\.dense)": "fc1",
    r"(mlp\.fc2|output\.dense)": "fc2",
    r"layernorm_before": "attention_norm",
    r"layernorm_after": "mlp_norm",
}
PARTS = {
    "vit.embeddings.patch_embeddings.projection.weight": ("cavmae.image_embeddings.projection.weight",),
    "vit.embeddings.patch_embeddings.projection.bias": (
        "cavmae.image_embeddings.projection.bias",
        "cavmae.audio_embeddings.projection.bias",
    ),
    "decoder.mask_token": ("decoder.mask_token",),
    **{
        f"vit.layernorm.{leaf}": tuple(f"cavmae.{stream}_norm.{leaf}" for stream in ("audio", "image", "joint"))
        for leaf in ("weight", "bias")
    },
    **{
        f"decoder.decoder_{theirs}.{leaf}": (f"decoder.{ours}.{leaf}",)
        for theirs, ours in (("embed", "embed"), ("norm", "norm"), ("pred", "image_prediction"))
        for leaf in ("weight", "bias")
    },
}  # fmt: skip
NEW = re.compile(r"(audio_positions\.weight|audio_embeddings\.positions\.weight|modality)$")


@torch.no_grad()
def from_image_mae(source: str | nn.Module, **config_fields) -> CAVMAEForPreTraining:
    """A CAV-MAE that is to be pre-trained, with the weights of an image MAE.

    Args:
        source: name, folder or model of a ViT-MAE, such as facebook/vit-mae-base. Of one that was saved without its
            decoder the decoder is new.
        config_fields: of `CAVMAEConfig`, such as `max_audio_frames=512`; sizes are those of the MAE.
    """
    mae, has_decoder = read_mae(source)
    given = sorted(config_fields.keys() & set(DECIDED))
    if given:
        raise ValueError(f"{given[0]} is the image MAE's own, {getattr(mae.config, given[0])}: leave it out")
    config = CAVMAEConfig(**{name: getattr(mae.config, name) for name in DECIDED}, **config_fields)
    model = CAVMAEForPreTraining(config)
    ours, found = model.state_dict(), {}
    for key, tensor in mae.state_dict().items():
        if key.startswith("decoder.") and not has_decoder:
            continue
        for name in names_of(key, config):
            if name in ours:  # norms of a stream that a layer has not
                found[name] = tensor
    found |= made_anew(mae.state_dict(), config, has_decoder)
    new = {name for name in ours if NEW.search(name) or (not has_decoder and name.startswith("decoder."))}
    wrong = {name for name, tensor in found.items() if tensor.shape != ours[name].shape}
    if wrong or found.keys() | new != ours.keys():
        fault = sorted(wrong | (ours.keys() - new).symmetric_difference(found))[0]
        raise ValueError(f"{type(mae).__name__} does not fill {fault}: it is another ViT-MAE than transformers has")
    model.load_state_dict(found, strict=False)
    return model


def read_mae(source: str | nn.Module) -> tuple[nn.Module, bool]:
    """The MAE, and whether its decoder is one that was trained."""
    if isinstance(source, ViTMAEForPreTraining):
        mae, missing = source, set()
    elif isinstance(source, nn.Module):
        raise ValueError(f"{type(source).__name__} is no ViTMAEForPreTraining: pass one, or its folder")
    else:
        kind = AutoConfig.from_pretrained(source).model_type
        if kind != "vit_mae":
            raise ValueError(f"{source} is a {kind!r} and no 'vit_mae': name a masked autoencoder of pictures")
        mae, info = ViTMAEForPreTraining.from_pretrained(source, output_loading_info=True, dtype=torch.float32)
        missing = set(info["missing_keys"])
    lost = sorted(key for key in missing if not key.startswith("decoder."))
    if lost:
        raise ValueError(f"{source} lacks {len(lost)} weights of its encoder, {lost[0]} first: download it again")
    if not mae.config.qkv_bias:
        raise ValueError("an image MAE without qkv_bias does not fit: CAV-MAE's queries, keys and values have biases")
    return mae, not missing


def names_of(key: str, config: CAVMAEConfig) -> tuple[str, ...]:
    """Our names of one of MAE's keys whose numbers are taken as they are; those that we may not have among them."""
    match = re.fullmatch(r"(vit|decoder)\.(?:layers|encoder\.layer|decoder_layers)\.(\d+)\.(.+)\.(weight|bias)", key)
    if match is None:
        return PARTS.get(key, ())
    part = next((ours for theirs, ours in LAYER_PARTS.items() if re.fullmatch(theirs, match[3])), None)
    number, own = int(match[2]), config.num_modality_layers
    if match[1] == "decoder":
        places = [f"decoder.layers.{number}"]
    elif number < own:
        places = [f"cavmae.{stack}_layers.{number}" for stack in ("audio", "image")]
    else:
        places = [f"cavmae.joint_layers.{number - own}"]
    parts = [f"{part}.{stream}" for stream in STREAMS] if str(part).endswith("_norm") else [str(part)]
    return tuple(f"{place}.{one}.{match[4]}" for place in places for one in parts)


def made_anew(mae: dict[str, torch.Tensor], config: CAVMAEConfig, has_decoder: bool) -> dict[str, torch.Tensor]:
    """What is not taken as it is."""
    kernel_DCPP = mae["vit.embeddings.patch_embeddings.projection.weight"]
    found = {
        "cavmae.audio_embeddings.projection.weight": kernel_DCPP.sum(1, keepdim=True),
        "cavmae.image_embeddings.positions.weight": mae["vit.embeddings.position_embeddings"][:, 1:],
    }
    if has_decoder:
        found["decoder.image_positions.weight"] = mae["decoder.decoder_pos_embed"][:, 1:]
        for leaf in ("weight", "bias"):
            rows = mae[f"decoder.decoder_pred.{leaf}"]
            found[f"decoder.audio_prediction.{leaf}"] = rows[: config.patch_size**2]
    return found


__all__ = ["from_image_mae"]
