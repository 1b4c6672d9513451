"""BriVL-1.0 checkpoints (EfficientNet and BERT towers with their momentum copies) -> safetensors.

The query encoders are taken and the momentum copies ignored. Every key of the query encoders is renamed, dropped for a
stated reason, or an error. The config is inferred from the shapes; the size of pictures is in no file and is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import BertTokenizer

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
from unibrivl.modeling import BriVLConfig, BriVLImageProcessor, BriVLModel, BriVLTextConfig, BriVLVisionConfig

CNN_SCALES = {(2048, 39): (1.6, 2.2), (2560, 55): (2.0, 3.1)}  # (channels, blocks) -> width, depth: B5 and B7
NUM_STAGES = 7
TOLERANCES = {"embedding_raw": 5e-5, "embedding": 5e-5, "": 1e-4}  # by output, "" for all others
INTEGERS = ("num_batches_tracked", "position_ids")
SPECIAL_TOKENS = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}

# original part of a block -> ours, and ours in stage 0, where nothing is expanded and conv_pw projects
BLOCK_PARTS = {
    "conv_pw": ("expansion.expand_conv", "projection.project_conv"),
    "bn1": ("expansion.expand_bn", "depthwise_conv.depthwise_norm"),
    "conv_dw": ("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_conv"),
    "bn2": ("depthwise_conv.depthwise_norm", "projection.project_bn"),
    "conv_pwl": ("projection.project_conv", None),
    "bn3": ("projection.project_bn", None),
    "se.conv_reduce": ("squeeze_excite.reduce", "squeeze_excite.reduce"),
    "se.conv_expand": ("squeeze_excite.expand", "squeeze_excite.expand"),
}
CNN_ENDS = {
    "conv_stem": "embeddings.convolution",
    "bn1": "embeddings.batchnorm",
    "conv_head": "encoder.top_conv",
    "bn2": "encoder.top_bn",
}
LAYER_PARTS = {
    "linear1": "fc1",
    "linear2": "fc2",
    "norm1": "attention_norm",
    "norm2": "output_norm",
    "self_attn.out_proj": "attention.out_proj",
}
TOWERS = {"img": "vision_model", "text": "text_model"}
DROPPED = [
    (r"(img|text)encoder_mom\.", "a momentum copy, which only training uses"),
    (r"(img|text)_queue(_ptr)?$", "a queue of negatives, which only training uses"),
    (r"imgencoder\.backbone\.classifier\.", "EfficientNet's ImageNet classifier, which BriVL does not use"),
    (r"textencoder\.backbone\.bert\.pooler\.", "BERT's pooler, which BriVL does not use"),
    (r"textencoder\.backbone\.bert\.embeddings\.position_ids$", "a counter, not a weight"),
]


def reason_to_drop(key: str) -> str | None:
    return next((why for pattern, why in DROPPED if re.match(pattern, key)), None)


def stage_starts(keys) -> list[int]:
    """Index of the first block of every stage, counted through, and the number of all blocks."""
    repeats = [count_matches(keys, rf"imgencoder\.backbone\.blocks\.{stage}\.(\d+)\.") for stage in range(NUM_STAGES)]
    return [sum(repeats[:stage]) for stage in range(NUM_STAGES + 1)]


def convert_tensor(key: str, tensor: torch.Tensor, starts: list[int]) -> dict[str, torch.Tensor] | None:
    """Our names and tensors of one original key; None if the rules do not know it."""
    if match := re.fullmatch(r"imgencoder\.backbone\.blocks\.([0-6])\.(\d{1,3})\.(.+)\.(\w+)", key):
        stage, repeat, part, leaf = int(match[1]), int(match[2]), match[3], match[4]
        ours = BLOCK_PARTS.get(part, (None, None))[stage == 0]
        block = f"vision_model.backbone.encoder.blocks.{starts[stage] + repeat}"
        return {f"{block}.{ours}.{leaf}": tensor} if ours else None
    if match := re.fullmatch(r"imgencoder\.backbone\.(\w+)\.(\w+)", key):
        ours = CNN_ENDS.get(match[1])
        return {f"vision_model.backbone.{ours}.{match[2]}": tensor} if ours else None
    if match := re.fullmatch(r"textencoder\.backbone\.bert\.((?:embeddings|encoder)\..+)", key):
        return {f"text_model.backbone.{match[1]}": tensor}
    if match := re.fullmatch(r"imgencoder\.learnable\.max_pool\.0\.(weight|bias)", key):
        return {f"vision_model.region_projection.{match[1]}": tensor.flatten(1) if match[1] == "weight" else tensor}
    if match := re.fullmatch(r"(img|text)encoder\.learnable\.\1FC\.(fc[12])\.(weight|bias)", key):
        return {f"{TOWERS[match[1]]}.projection.{match[2]}.{match[3]}": tensor}
    if match := re.fullmatch(r"(img|text)encoder\.learnable\.\1Att\.layers\.(\d+)\.(.+)", key):
        return _attention_layer(f"{TOWERS[match[1]]}.attention_pool.layers.{match[2]}", match[3], tensor)
    return None


def _attention_layer(prefix: str, part: str, tensor: torch.Tensor) -> dict[str, torch.Tensor] | None:
    if match := re.fullmatch(r"self_attn\.in_proj_(weight|bias)", part):  # packed: queries, keys, values
        names = [f"{prefix}.attention.{name}_proj.{match[1]}" for name in "qkv"]
        return dict(zip(names, (piece.contiguous() for piece in tensor.tensor_split(3)), strict=True))
    name, _, leaf = part.rpartition(".")
    return {f"{prefix}.{LAYER_PARTS[name]}.{leaf}": tensor} if name in LAYER_PARTS else None


def infer_config(state: Mapping[str, torch.Tensor], image_size: int) -> BriVLConfig:
    """The config of a checkpoint, from the shapes of its query encoders."""
    try:
        channels = state["imgencoder.learnable.max_pool.0.weight"].shape[0]
        bert = "textencoder.backbone.bert."
        vocab_size, hidden_size = state[f"{bert}embeddings.word_embeddings.weight"].shape
        intermediate_size = state[f"{bert}encoder.layer.0.intermediate.dense.weight"].shape[0]
        projection_dim = state["textencoder.learnable.textFC.fc2.weight"].shape[0]
        positions = state[f"{bert}embeddings.position_embeddings.weight"].shape[0]
        sa_width = {
            side: state[f"{side}encoder.learnable.{side}Att.layers.0.linear1.weight"].shape[0] for side in TOWERS
        }
    except KeyError as error:
        raise ConversionError(f"this is no BriVL checkpoint: it has no {error.args[0]!r}") from error
    num_blocks = stage_starts(state)[-1]
    if (channels, num_blocks) not in CNN_SCALES:
        raise ConversionError(
            f"an EfficientNet of {channels} channels and {num_blocks} blocks is neither B5 (2048, 39) nor B7 "
            "(2560, 55): the file is cut off or of another model"
        )
    width, depth = CNN_SCALES[channels, num_blocks]
    return BriVLConfig(
        vision_config=BriVLVisionConfig(
            width_coefficient=width,
            depth_coefficient=depth,
            hidden_size=channels,
            image_size=image_size,
            num_sa_layers=count_matches(state, r"imgencoder\.learnable\.imgAtt\.layers\.(\d+)\."),
            sa_intermediate_size=sa_width["img"],
        ),
        text_config=BriVLTextConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=count_matches(state, r"textencoder\.backbone\.bert\.encoder\.layer\.(\d+)\."),
            num_attention_heads=hidden_size // 64,
            intermediate_size=intermediate_size,
            max_position_embeddings=positions,
            projection_dim=projection_dim,
            num_sa_layers=count_matches(state, r"textencoder\.learnable\.textAtt\.layers\.(\d+)\."),
            sa_intermediate_size=sa_width["text"],
        ),
    )


def convert_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The query encoders' state dict -> ours. Keys that the rules do not know are an error that lists them."""
    converted: dict[str, torch.Tensor] = {}
    starts, unknown = stage_starts(state), []
    for key, tensor in state.items():
        ours = convert_tensor(key, tensor, starts)
        if ours is None:
            unknown.append(key)
            continue
        if twice := ours.keys() & converted.keys():
            raise ConversionError(f"{key} and another key both become {listing(sorted(twice))}")
        converted.update(ours)
    if unknown:
        raise ConversionError(f"{len(unknown)} keys are not BriVL's: {listing(unknown)}")
    return converted


def convert_brivl(
    checkpoint: str | Path,
    out: str | Path,
    *,
    image_size: int = 380,
    center_square: bool = False,
    vocab: str | Path | None = None,
    reference: str | Path | None = None,
) -> ConversionReport:
    """Convert a checkpoint file to a folder that `BriVLModel.from_pretrained` loads.

    Args:
        checkpoint: the original file, nested under "learnable" or bare; prefixes of wrappers are tolerated.
        out: the folder to write: model.safetensors, config, image processor, tokenizer where `vocab` is given, and
            conversion.json.
        image_size (`int`, *optional*): side of the pictures: the public config's 380; until September 2021, 456.
        center_square (`bool`, *optional*): the image processor cuts the middle square out first, as UniBriVL does.
        vocab (*optional*): vocab.txt of hfl/chinese-roberta-wwm-ext, for the tokenizer.
        reference (*optional*): a safetensors file with inputs and outputs of the original code; see `convert.outputs`.
    """
    if image_size < 64:
        raise ValueError(f"image_size is the side of the pictures in pixels, at least 64; got {image_size}")
    state, dropped = _query_encoders(load_checkpoint(checkpoint), str(checkpoint))
    check_tensors(state, str(checkpoint), INTEGERS)
    try:
        config = infer_config(state, image_size)
        converted = convert_state(state)
        model = load_into(BriVLModel, config, converted)
    except ConversionError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, StrictDataclassError) as error:
        raise ConversionError(f"{checkpoint}: its sizes are malformed: {error}") from error
    report = ConversionReport(
        Path(checkpoint).name, sha256(checkpoint), "BriVLModel", len(converted), dropped, _advice(config.text_config)
    )
    if reference is not None:
        original = read_reference(reference)
        named = outputs.brivl_outputs(model, original)
        report.differences = parity.against_reference(named, original, outputs.BRIVL_INPUTS, TOLERANCES)
    tokenizer = None
    if vocab is not None:
        tokenizer = _read_tokenizer(vocab, config.text_config)
        report.tokenizer = f"BertTokenizer: {Path(vocab).name}; call it with padding='max_length', truncation=True"
    processor = BriVLImageProcessor(size={"height": image_size, "width": image_size}, do_center_square=center_square)
    with written_whole(Path(out)) as folder:
        for part in (model, processor, tokenizer):
            if part is not None:
                part.save_pretrained(folder)
        report.save(folder)
    return report


def _query_encoders(content, origin: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors that count, without prefixes of wrappers; and the others with the reason they are dropped for."""
    nested = content.get("learnable", content)
    if not isinstance(nested, dict):
        raise ConversionError(f"{origin}: 'learnable' holds a {type(nested).__name__}, not a state dict")
    state: dict[str, torch.Tensor] = {}
    dropped: dict[str, str] = {}
    for original, tensor in nested.items():
        key = re.sub(r"^(?:module\.|learnable\.)+", "", str(original))
        if key in state or key in dropped:
            raise ConversionError(f"{origin}: {key} is there twice, with and without a prefix")
        reason = reason_to_drop(key)
        if reason is None:
            state[key] = tensor
        else:
            dropped[key] = reason
    if not any(key.startswith("imgencoder.") for key in state):
        raise ConversionError(f"{origin} is no BriVL checkpoint: no key starts with 'imgencoder.'")
    return state, dropped


def _advice(config) -> str:
    return (
        "none: use BertTokenizer of hfl/chinese-roberta-wwm-ext with padding='max_length', truncation=True, "
        f"max_length={config.max_length}, or convert again with --vocab vocab.txt"
    )


def _read_tokenizer(path: str | Path, config) -> BertTokenizer:
    """BERT's tokenizer of a vocab.txt: one token a line, and a line ends with a newline only, not at U+2028."""
    try:
        tokens = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ConversionError(f"{path} is not a vocab.txt: {error}") from error
    ids = {token.removesuffix("\r"): index for index, token in enumerate(tokens)}
    if len(tokens) != config.vocab_size or len(ids) != len(tokens):
        raise ConversionError(
            f"{path} holds {len(ids)} different tokens in {len(tokens)} lines, the model has {config.vocab_size}"
        )
    if lost := sorted(SPECIAL_TOKENS - ids.keys()):
        raise ConversionError(f"{path} is not BERT's vocabulary: it lacks {listing(lost)}")
    if ids["[PAD]"] != config.pad_token_id:
        raise ConversionError(
            f"{path} has [PAD] in line {ids['[PAD]'] + 1}, and the model pads with 0, its first line"
        )
    return BertTokenizer(vocab=ids, model_max_length=config.max_length)
