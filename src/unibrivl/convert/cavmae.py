"""CAV-MAE checkpoints (pre-trained, fine-tuned on both modalities or on sound) -> safetensors, and back again.

The file says by its keys what it is. Every key is renamed, dropped for a stated reason, or an error; norms that the
original has and never uses are dropped, or kept where the file must be had back byte for byte. How many heads there
are is in no file: 64 numbers a head in the encoder and 32 in the decoder, unless told otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError

from unibrivl.convert import outputs, parity
from unibrivl.convert.checkpoint import (
    ConversionError,
    ConversionReport,
    check_tensors,
    count_matches,
    listing,
    load_checkpoint,
    load_into,
    read_reference,
    sha256,
    written_whole,
)
from unibrivl.modeling import (
    CAVMAEAudioConfig,
    CAVMAEAudioModel,
    CAVMAEConfig,
    CAVMAEFeatureExtractor,
    CAVMAEForAudioClassification,
    CAVMAEForAudioVisualClassification,
    CAVMAEForPreTraining,
    CAVMAEImageProcessor,
    CAVMAEModel,
    UniBriVLProcessor,
)

MEL_ROWS = 8  # patches of 16 bins in 128
HEAD_WIDTH, DECODER_HEAD_WIDTH = 64, 32
TOLERANCES = {"loss": 1e-6, "loss_mae_a": 1e-6, "loss_mae_v": 1e-6, "loss_c": 1e-6, "": 8e-6}
NORM = "a norm that the original has and never uses"
DROPPED = [(r"cls_token_(a|v|av)$", "a class token of the file that training began with, which CAV-MAE does not use")]

# original part -> ours: of the trunk, of its layers, of the decoder, of the classifiers
STACKS = {"blocks_a": "audio_layers", "blocks_v": "image_layers", "blocks_u": "joint_layers"}
TRUNK = {
    "pos_embed_a": "audio_embeddings.positions.weight",
    "pos_embed_v": "image_embeddings.positions.weight",
    "modality_a": "audio_embeddings.modality",
    "modality_v": "image_embeddings.modality",
    "patch_embed_a.proj": "audio_embeddings.projection",
    "patch_embed_v.proj": "image_embeddings.projection",
    "norm_a": "audio_norm",
    "norm_v": "image_norm",
    "norm": "joint_norm",
}
HEADS = {
    "decoder_embed": "decoder.embed",
    "mask_token": "decoder.mask_token",
    "decoder_modality_a": "decoder.audio_modality",
    "decoder_modality_v": "decoder.image_modality",
    "decoder_pos_embed_a": "decoder.audio_positions.weight",
    "decoder_pos_embed_v": "decoder.image_positions.weight",
    "decoder_norm": "decoder.norm",
    "decoder_pred_a": "decoder.audio_prediction",
    "decoder_pred_v": "decoder.image_prediction",
    "mlp_head.0": "classifier_norm",
    "mlp_head.1": "classifier",
}
LAYER_PARTS = {"attn.proj": "attention.out_proj", "mlp.fc1": "fc1", "mlp.fc2": "fc2"}
LAYER_PARTS |= {
    f"norm{number}{suffix}": f"{place}_norm.{stream}"
    for number, place in ((1, "attention"), (2, "mlp"))
    for suffix, stream in (("", "plain"), ("_a", "audio"), ("_v", "image"))
}
QKV = tuple(f"attention.{name}_proj" for name in "qkv")


def our_names(key: str) -> tuple[str, ...] | None:
    """Our names of one original key, without the trunk's prefix: three for queries, keys and values together."""
    if match := re.fullmatch(r"(blocks_[avu]|decoder_blocks)\.(\d{1,3})\.(.+)\.(weight|bias)", key):
        stack, part, leaf = STACKS.get(match[1], "decoder.layers"), match[3], match[4]
        ours = QKV if part == "attn.qkv" else (LAYER_PARTS[part],) if part in LAYER_PARTS else ()
        return tuple(f"{stack}.{match[2]}.{name}.{leaf}" for name in ours) or None
    part, _, leaf = key.rpartition(".")
    for table in (TRUNK, HEADS):
        if key in table:
            return (table[key],)
        if part in table and leaf in ("weight", "bias"):
            return (f"{table[part]}.{leaf}",)
    return None


def is_trunk(name: str) -> bool:
    return not name.startswith(("decoder.", "classifier"))


def kind_of(state: Mapping[str, torch.Tensor]):
    """The class that a state dict is of, and of its configuration."""
    if "pos_embed_a" not in state:
        raise ConversionError("this is no CAV-MAE checkpoint: it has no 'pos_embed_a'")
    hears_only = "pos_embed_v" not in state
    if any(key.startswith("decoder_") for key in state):
        return CAVMAEForPreTraining, CAVMAEConfig
    if "mlp_head.1.weight" in state:
        if hears_only:
            return CAVMAEForAudioClassification, CAVMAEAudioConfig
        return CAVMAEForAudioVisualClassification, CAVMAEConfig
    return (CAVMAEAudioModel, CAVMAEAudioConfig) if hears_only else (CAVMAEModel, CAVMAEConfig)


def unused_norms(state: Mapping[str, torch.Tensor]) -> list[str]:
    """The keys of norms that no forward pass of the original reads."""
    hears_only = "pos_embed_v" not in state
    pattern = r"(blocks_[av]|decoder_blocks)\.\d+\.norm[12]_[av]\."
    if hears_only:
        pattern += r"|blocks_u\.\d+\.norm[12](_v)?\.|norm\."
    return [key for key in state if re.match(pattern, key)]


def infer_config(
    state: Mapping[str, torch.Tensor],
    *,
    num_attention_heads: int | None = None,
    decoder_num_attention_heads: int | None = None,
    **fields,
) -> CAVMAEConfig | CAVMAEAudioConfig:
    """The configuration of a checkpoint from its shapes; `fields` are those that no shape tells."""
    _, config_class = kind_of(state)
    try:
        _, num_tokens, width = state["pos_embed_a"].shape
        patch = state["patch_embed_a.proj.weight"].shape[-1]
        own, joint = (count_matches(state, rf"{name}\.(\d+)\.") for name in ("blocks_a", "blocks_u"))
        found: dict = {
            "hidden_size": width,
            "num_hidden_layers": own + joint,
            "num_joint_layers": joint,
            "num_attention_heads": num_attention_heads or heads_of(width, HEAD_WIDTH),
            "intermediate_size": state["blocks_a.0.mlp.fc1.weight"].shape[0],
            "patch_size": patch,
            "num_mel_bins": MEL_ROWS * patch,
            "max_audio_frames": num_tokens // MEL_ROWS * patch,
        }
        if config_class is CAVMAEConfig:
            found["image_size"] = math.isqrt(state["pos_embed_v"].shape[1]) * patch
            found["num_channels"] = state["patch_embed_v.proj.weight"].shape[1]
        if "decoder_embed.weight" in state:
            deep = state["decoder_embed.weight"].shape[0]
            found |= {
                "decoder_hidden_size": deep,
                "decoder_num_hidden_layers": count_matches(state, r"decoder_blocks\.(\d+)\."),
                "decoder_num_attention_heads": decoder_num_attention_heads or heads_of(deep, DECODER_HEAD_WIDTH),
                "decoder_intermediate_size": state["decoder_blocks.0.mlp.fc1.weight"].shape[0],
            }
        if "mlp_head.1.weight" in state:
            found["num_labels"] = state["mlp_head.1.weight"].shape[0]
    except KeyError as error:
        raise ConversionError(f"this is no CAV-MAE checkpoint: it has no {error.args[0]!r}") from error
    return config_class(**found, **fields)


def heads_of(width: int, head_width: int) -> int:
    if width % head_width:
        raise ConversionError(
            f"how many heads a width of {width} has is in no file and no multiple of {head_width}: tell it with "
            "num_attention_heads and decoder_num_attention_heads"
        )
    return width // head_width


def convert_state(state: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """An original state dict -> ours; the trunk under `prefix`. Keys that the rules do not know are listed."""
    converted: dict[str, torch.Tensor] = {}
    unknown = []
    for key, tensor in state.items():
        names = our_names(key)
        if names is None:
            unknown.append(key)
            continue
        pieces = tensor.tensor_split(3) if len(names) == 3 else (tensor,)
        for name, piece in zip(names, pieces, strict=True):
            converted[prefix + name if is_trunk(name) else name] = piece.contiguous()
    if unknown:
        raise ConversionError(f"{len(unknown)} keys are not CAV-MAE's: {listing(unknown)}")
    return converted


def original_state(model) -> dict[str, torch.Tensor]:
    """A model of ours under the original's names: what `convert_state` took apart is put together again."""
    ours = {name.removeprefix("cavmae."): tensor for name, tensor in model.state_dict().items()}
    state: dict[str, torch.Tensor] = {}
    for name, tensor in ours.items():
        if name in BACK:
            state[BACK[name]] = tensor
        elif match := re.fullmatch(r"(\w+_layers|decoder\.layers)\.(\d+)\.(.+)\.(weight|bias)", name):
            stack, part = f"{STACKS_BACK[match[1]]}.{match[2]}", match[3]
            if part in PARTS_BACK:
                state[f"{stack}.{PARTS_BACK[part]}.{match[4]}"] = tensor
            elif part == QKV[0]:
                packed = [ours[f"{match[1]}.{match[2]}.{one}.{match[4]}"] for one in QKV]
                state[f"{stack}.attn.qkv.{match[4]}"] = torch.cat(packed)
            elif part not in QKV:
                raise ConversionError(f"{name} has no name in the original")
        else:
            part, _, leaf = name.rpartition(".")
            if part not in BACK:
                raise ConversionError(f"{name} has no name in the original")
            state[f"{BACK[part]}.{leaf}"] = tensor
    return state


BACK = {ours: original for table in (TRUNK, HEADS) for original, ours in table.items()}
STACKS_BACK = {ours: original for original, ours in STACKS.items()} | {"decoder.layers": "decoder_blocks"}
PARTS_BACK = {ours: original for original, ours in LAYER_PARTS.items()}


def convert_cavmae(
    checkpoint: str | Path,
    out: str | Path,
    *,
    keep_unused_norms: bool = False,
    norm_pix_loss: bool = True,
    num_attention_heads: int | None = None,
    decoder_num_attention_heads: int | None = None,
    reference: str | Path | None = None,
) -> ConversionReport:
    """Convert a checkpoint file to a folder that `from_pretrained` loads.

    Args:
        checkpoint: the original file; the prefix of DataParallel is tolerated.
        out: the folder to write: model.safetensors, config, processor and conversion.json.
        keep_unused_norms (`bool`, *optional*): keep the norms that are never used, so that `original_state` of the
            model gives the file back, byte for byte.
        norm_pix_loss (`bool`, *optional*): False for the in-painting weights, which rebuild patches as they are.
        num_attention_heads, decoder_num_attention_heads (`int`, *optional*): where they are not 64 and 32 numbers.
        reference (*optional*): a safetensors file with inputs and outputs of the original code; see `convert.outputs`.
    """
    state, dropped = _trained(load_checkpoint(checkpoint), str(checkpoint))
    check_tensors(state, str(checkpoint))
    fields = {"num_attention_heads": num_attention_heads, "keep_unused_norms": keep_unused_norms}
    try:
        architecture, config_class = kind_of(state)
        if config_class is CAVMAEConfig:
            fields |= {"decoder_num_attention_heads": decoder_num_attention_heads, "norm_pix_loss": norm_pix_loss}
        config = infer_config(state, **fields)
        if not keep_unused_norms:
            dropped |= dict.fromkeys(unused_norms(state), NORM)
            state = {key: tensor for key, tensor in state.items() if key not in dropped}
        is_trunk_alone = architecture in (CAVMAEModel, CAVMAEAudioModel)
        converted = convert_state(state, "" if is_trunk_alone else "cavmae.")
        model = load_into(architecture, config, converted)
    except ConversionError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, StrictDataclassError) as error:
        raise ConversionError(f"{checkpoint}: its sizes are malformed: {error}") from error
    report = ConversionReport(
        Path(checkpoint).name,
        sha256(checkpoint),
        architecture.__name__,
        len(converted),
        dropped,
        "none: it has no text",
    )
    if reference is not None:
        original = read_reference(reference)
        named = outputs.cavmae_outputs(model, original)
        report.differences = parity.against_reference(named, original, outputs.CAVMAE_INPUTS, TOLERANCES)
    extractor = CAVMAEFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_audio_frames)
    pictures = None
    if isinstance(config, CAVMAEConfig):
        pictures = CAVMAEImageProcessor(size={"shortest_edge": config.image_size}, crop_size=config.image_size)
    processor = extractor if pictures is None else UniBriVLProcessor(extractor, pictures)
    with written_whole(Path(out)) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        report.save(folder)
    return report


def _trained(content, origin: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors that count, without DataParallel's prefix; and the others with the reason they are dropped for."""
    state: dict[str, torch.Tensor] = {}
    dropped: dict[str, str] = {}
    for original, tensor in content.items():
        key = re.sub(r"^(?:module\.)+", "", str(original))
        if key in state or key in dropped:
            raise ConversionError(f"{origin}: {key} is there twice, with and without a prefix")
        reason = next((why for pattern, why in DROPPED if re.match(pattern, key)), None)
        if reason is None:
            state[key] = tensor
        else:
            dropped[key] = reason
    return state, dropped
