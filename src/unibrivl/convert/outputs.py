"""What our models give, under the original codes' names: what a parity report compares."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from unibrivl.modeling import (
    AudioTokenAdapter,
    BriVLModel,
    CAVMAEForAudioVisualClassification,
    CAVMAEForPreTraining,
    CAVMAEModel,
    SpeechLMForCTC,
    SpeechLMForPreTraining,
    SpeechLMModel,
)
from unibrivl.modeling.configuration_cavmae import CLASSIFIER_MODES
from unibrivl.modeling.modeling_brivl import BriVLTowerOutput

SPEECHLM_INPUTS = ("source", "padding_mask", "unit_ids")
CAVMAE_INPUTS = ("input_values", "pixel_values", "audio_noise", "image_noise")
AUDIO_TOKEN_INPUTS = ("features",)
BRIVL_INPUTS = ("pixel_values", "boxes", "box_mask", "input_ids", "attention_mask")


@torch.inference_mode()
def speech_outputs(
    model: SpeechLMModel, source: torch.Tensor, padding_mask: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """What SpeechLM's audio path gives (conv_out is channels first)."""
    attention_mask = None if padding_mask is None else (~padding_mask.bool()).long()
    output = model(source, attention_mask, output_hidden_states=True)
    named = {
        "conv_out": output.extract_features.transpose(1, 2),
        "projected_features": output.projected_features,
        "speech_transformer_out": output.speech_hidden_state,
        "shared_input": output.shared_input,
        "last_hidden": output.last_hidden_state,
    }
    for index, states in enumerate(output.hidden_states[1:], start=1):
        named[f"layer{index:02d}"] = states
    if output.frame_mask is not None:
        named["frame_padding_mask"] = output.frame_mask == 0
    return named


@torch.inference_mode()
def unit_outputs(model: SpeechLMModel, unit_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What SpeechLM's unit path gives."""
    output = model(input_ids=unit_ids, output_hidden_states=True)
    named = {f"state{index:02d}": states for index, states in enumerate(output.hidden_states)}
    named["last_hidden"] = output.last_hidden_state
    return named


def speechlm_outputs(
    model: SpeechLMModel | SpeechLMForPreTraining | SpeechLMForCTC, reference: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Our outputs for the inputs of a reference file.

    `reference` holds `source` (B, S) with an optional `padding_mask` (True where padded), or `unit_ids`.
    """
    tower = model if isinstance(model, SpeechLMModel) else model.speechlm
    mode, tower.config.padding_mode = tower.config.padding_mode, "fairseq"
    try:
        if "source" in reference:
            return speech_outputs(tower, reference["source"].float(), reference.get("padding_mask"))
        if "unit_ids" in reference:
            return unit_outputs(tower, reference["unit_ids"].long())
        raise ValueError("the reference file has neither 'source' (samples) nor 'unit_ids': nothing to compare")
    finally:
        tower.config.padding_mode = mode


def tower_outputs(output: BriVLTowerOutput) -> dict[str, torch.Tensor]:
    """What one of BriVL's towers gives; `embedding_raw` is the embedding before it is normalised."""
    named = {"embedding_raw": output.projection, "embedding": output.pooler_output}
    if output.regions is None:
        named["bert"] = output.backbone_output
    else:
        named |= {"cnn": output.backbone_output, "pooled": output.regions}
    for index, states in enumerate((output.hidden_states or ())[1:]):
        named[f"sa_layer{index}"] = states
    return named


@torch.inference_mode()
def brivl_outputs(model: BriVLModel, reference: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our outputs for the inputs of a reference file, as `image.NAME` and `text.NAME`.

    `reference` holds `pixel_values` (B, 3, S, S) with optional `boxes` and `box_mask`, or `input_ids` with an optional
    `attention_mask`, or both.
    """
    named: dict[str, torch.Tensor] = {}
    if "pixel_values" in reference:
        output = model.get_image_features(
            reference["pixel_values"].float(),
            reference.get("boxes"),
            reference.get("box_mask"),
            output_hidden_states=True,
        )
        named |= {f"image.{name}": tensor for name, tensor in tower_outputs(output).items()}
    if "input_ids" in reference:
        output = model.get_text_features(
            reference["input_ids"].long(), reference.get("attention_mask"), output_hidden_states=True
        )
        named |= {f"text.{name}": tensor for name, tensor in tower_outputs(output).items()}
    if not named:
        raise ValueError("the reference file has neither 'pixel_values' nor 'input_ids': nothing to compare")
    return named


@torch.inference_mode()
def cavmae_outputs(model, reference: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our outputs for the inputs of a reference file.

    `reference` holds `input_values` (B, T, 128) and, but for a model of sound alone, `pixel_values` (B, 3, S, S). With
    `audio_noise` and `image_noise` (B, N) a model in pre-training hides tokens. Named are the un-pooled `feat_a`,
    `feat_v` and `feat_av`, their means `pool_...`; `pred_a`, `pred_v`, `mask_a`, `mask_v`, `enc.x`, `enc.ca`, `enc.cv`
    and the losses; and `logits.MODE`.
    """
    sounds, pictures = reference["input_values"].float(), reference.get("pixel_values")
    trunk = model if model.base_model is model else model.cavmae
    named: dict[str, torch.Tensor] = {}
    if pictures is None or not isinstance(trunk, CAVMAEModel):
        output = trunk.get_audio_features(sounds) if isinstance(trunk, CAVMAEModel) else trunk(sounds)
        named |= {"feat_a": output.last_hidden_state, "pool_a": output.pooler_output}
        if hasattr(model, "classifier") and not isinstance(trunk, CAVMAEModel):
            named["logits.audioonly"] = model(sounds).logits
        return named
    pictures = pictures.float()
    output = trunk(sounds, pictures)
    for ours, original in (("audio", "a"), ("image", "v"), ("joint", "av")):
        named[f"feat_{original}"] = output[f"{ours}_last_hidden_state"]
        named[f"pool_{original}"] = output[f"{ours}_embeds"]
    if isinstance(model, CAVMAEForPreTraining) and "audio_noise" in reference:
        named |= pretraining_outputs(model, sounds, pictures, reference["audio_noise"], reference["image_noise"])
    if isinstance(model, CAVMAEForAudioVisualClassification):
        named |= {f"logits.{mode}": model(sounds, pictures, mode=mode).logits for mode in CLASSIFIER_MODES}
    return named


@torch.inference_mode()
def pretraining_outputs(model: CAVMAEForPreTraining, sounds, pictures, audio_noise, image_noise) -> dict:
    """What CAV-MAE's pre-training gives; `loss_c` is weighted, as the original returns it."""
    output = model(sounds, pictures, audio_noise=audio_noise, image_noise=image_noise)
    return {
        "mask_a": output.audio_mask,
        "mask_v": output.image_mask,
        "enc.x": output.joint_last_hidden_state,
        "enc.ca": output.audio_last_hidden_state,
        "enc.cv": output.image_last_hidden_state,
        "enc.ca_pool": output.audio_embeds,
        "enc.cv_pool": output.image_embeds,
        "pred_a": output.audio_prediction,
        "pred_v": output.image_prediction,
        "loss": output.loss,
        "loss_mae": output.reconstruction_loss,
        "loss_mae_a": output.audio_reconstruction_loss,
        "loss_mae_v": output.image_reconstruction_loss,
        "loss_c": output.contrastive_loss,
        "c_acc": output.contrastive_accuracy,
    }


@torch.inference_mode()
def audio_token_outputs(model: AudioTokenAdapter, reference: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What an attentive adapter of one word makes of the `features` (B, T, A) of a reference file."""
    if "features" not in reference:
        raise ValueError("the reference file has no 'features': nothing to compare")
    (head,) = model.heads.values()
    heard = head(reference["features"].float())
    named = {"token": heard.words, "weights": heard.weights, "unary": heard.unary, "self": heard.pairwise}
    return {"hidden": heard.hidden, **{name: tensor[:, 0] for name, tensor in named.items()}}
