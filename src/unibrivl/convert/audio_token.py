"""AudioToken's embedder (`embedder_learned_embeds.bin`) -> an attentive audio-token adapter in safetensors.

The file is a plain state dict. Every key is renamed or an error, 1x1 convolutions become linear layers, and both
widths are read off the shapes. Which base an embedder was trained for is in no file: by its width it is Stable
Diffusion 1.4 (768) or 2 (1024), and with the base's folder at hand its token table is recorded.
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
    listing,
    load_checkpoint,
    load_into,
    read_reference,
    sha256,
    written_whole,
)
from unibrivl.modeling import AudioTokenAdapter, AudioTokenAdapterConfig
from unibrivl.modeling.token_table_audio_token import mean_norm, table_fingerprint, table_of

ENCODER = "text_encoder"  # the one of Stable Diffusion 1 and 2
BASES = {768: "CompVis/stable-diffusion-v1-4", 1024: "stabilityai/stable-diffusion-2"}  # AudioToken's two
FEATURES = "BEATs (AudioSet-2M), layers 3, 7 and 11 side by side"
TOLERANCES = {"unary": 2e-5, "": 2e-6}
# original part -> ours
GRAPH_PARTS = {
    "un_models.0.embed": "embed",
    "un_models.0.feature_reduce": "reduce",
    "pp_models.0.embed_X": "left",
    "pp_models.0.embed_Y": "right",
    "reduce_potentials.0": "mix",
}


def convert_tensor(key: str, tensor: torch.Tensor) -> dict[str, torch.Tensor] | None:
    """Our name and tensor of one original key; None if the rules do not know it."""
    if re.fullmatch(r"fc[12]\.(weight|bias)", key):
        return {f"heads.{ENCODER}.{key}": tensor}
    if match := re.fullmatch(r"fga\.(.+)\.(weight|bias)", key):
        ours = GRAPH_PARTS.get(match[1])
        if ours is not None:
            flat = tensor.flatten(1) if match[2] == "weight" else tensor  # kernels of size one
            return {f"heads.{ENCODER}.graphs.0.{ours}.{match[2]}": flat}
    return None


def infer_config(state: Mapping[str, torch.Tensor], text_encoder: Any = None, base: str | None = None):
    """The configuration of an embedder, from the shapes of its two layers."""
    try:
        width, audio_width = state["fc2.weight"].shape
    except KeyError as error:
        raise ConversionError("this is no AudioToken embedder: it has no 'fc2.weight'") from error
    # of a folder its own name: what is converted goes to others
    named = Path(base).resolve().name if base and Path(base).is_dir() else base
    fields: dict[str, Any] = {"base_name": named or BASES.get(width)}
    if text_encoder is not None:
        table_VD = table_of(text_encoder)
        if table_VD.shape[1] != width:
            raise ConversionError(
                f"the embedder makes words of {width} numbers and {base} reads words of {table_VD.shape[1]}: name the "
                "base it was trained for"
            )
        fields["token_norms"] = {ENCODER: mean_norm(table_VD)}
        fields["token_fingerprints"] = {ENCODER: table_fingerprint(table_VD)}
    return AudioTokenAdapterConfig(
        mode="attentive",
        audio_width=audio_width,
        token_widths={ENCODER: width},
        features_name=FEATURES if audio_width == 2304 else None,
        **fields,
    )


def convert_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """AudioToken's state dict -> ours. Keys that the rules do not know are an error that lists them."""
    converted: dict[str, torch.Tensor] = {}
    unknown = []
    for key, tensor in state.items():
        ours = convert_tensor(key, tensor)
        if ours is None:
            unknown.append(key)
        else:
            converted |= ours
    if unknown:
        raise ConversionError(f"{len(unknown)} keys are not those of AudioToken's embedder: {listing(unknown)}")
    return converted


def convert_audio_token(
    checkpoint: str | Path,
    out: str | Path,
    *,
    base: str | None = None,
    reference: str | Path | None = None,
) -> ConversionReport:
    """Convert an embedder to a folder that `AudioTokenAdapter.from_pretrained` loads.

    Args:
        checkpoint: the original file, `embedder_learned_embeds.bin`.
        out: the folder to write: model.safetensors, config and conversion.json.
        base (*optional*): name or folder of the Stable Diffusion it was trained for; its token table is recorded.
        reference (*optional*): a safetensors file with `features` and outputs of the original code.
    """
    state = load_checkpoint(checkpoint)
    state = {re.sub(r"^(?:module\.)+", "", str(key)): tensor for key, tensor in state.items()}
    check_tensors(state, str(checkpoint))
    text_encoder = None if base is None else read_text_encoder(base)
    try:
        config = infer_config(state, text_encoder, base)
        converted = convert_state(state)
        model = load_into(AudioTokenAdapter, config, converted)
    except ConversionError:
        raise
    except (TypeError, ValueError, LookupError, RuntimeError, StrictDataclassError) as error:
        raise ConversionError(f"{checkpoint}: its sizes are malformed: {error}") from error
    advice = f"none: it speaks to the text encoder of {config.base_name or 'a base that is not known'}"
    report = ConversionReport(
        Path(checkpoint).name, sha256(checkpoint), "AudioTokenAdapter", len(converted), {}, advice
    )
    if reference is not None:
        original = read_reference(reference)
        named = outputs.audio_token_outputs(model, original)
        report.differences = parity.against_reference(named, original, outputs.AUDIO_TOKEN_INPUTS, TOLERANCES)
    with written_whole(Path(out)) as folder:
        model.save_pretrained(folder)
        report.save(folder)
    return report


def read_text_encoder(base: str):
    """The text encoder of a base of Stable Diffusion 1 or 2, by name or folder."""
    from transformers import CLIPTextModel

    try:
        return CLIPTextModel.from_pretrained(base, subfolder=ENCODER)
    except OSError as error:
        raise ConversionError(f"{base} has no folder {ENCODER}: name a base of Stable Diffusion ({error})") from error
