"""A CAV-MAE that begins at a ViT-MAE of transformers: what is taken, what is new, and that it computes as MAE does."""

from __future__ import annotations

import pytest
import torch
from tiny_cavmae import close, pictures
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel

from unibrivl.modeling import CAVMAEConfig, CAVMAEForPreTraining, CAVMAEModel
from unibrivl.modeling.layers_cavmae import run_layers, sincos_positions
from unibrivl.modeling.start_cavmae import from_image_mae

FIELDS = {
    **{"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48},
    **{"image_size": 32, "patch_size": 8, "decoder_hidden_size": 24, "decoder_num_hidden_layers": 2},
    **{"decoder_num_attention_heads": 2, "decoder_intermediate_size": 40, "layer_norm_eps": 1e-5, "mask_ratio": 0.75},
}
SOUNDS = {"num_mel_bins": 32, "max_audio_frames": 64}


@pytest.fixture
def mae() -> ViTMAEForPreTraining:
    torch.manual_seed(0)
    model = ViTMAEForPreTraining(ViTMAEConfig(**FIELDS))
    for weight in model.parameters():  # as if trained: nothing is zero or one
        weight.data.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def test_a_picture_is_what_mae_makes_of_it_without_its_class_token(mae):
    """The image layers and the last one in a row, against MAE's own layers on the same tokens."""
    model = from_image_mae(mae, **SOUNDS).eval().cavmae
    seen = model.embed_image(pictures()) - model.image_embeddings.modality
    theirs = mae.vit.embeddings.patch_embeddings(pictures()) + mae.vit.embeddings.position_embeddings[:, 1:]
    close(seen, theirs)
    ours = model.image_norm(run_layers(model.joint_layers, run_layers(model.image_layers, seen), "image"))
    layers = mae.vit.layers if hasattr(mae.vit, "layers") else mae.vit.encoder.layer
    for layer in layers:
        found = layer(theirs)
        theirs = found[0] if isinstance(found, tuple) else found
    close(ours, mae.vit.layernorm(theirs))


def test_each_part_is_what_the_authors_made_of_it(mae):
    ours, theirs = from_image_mae(mae, **SOUNDS).state_dict(), mae.state_dict()
    own = {key.removeprefix("cavmae.audio_layers."): key for key in ours if key.startswith("cavmae.audio_layers.")}
    assert len(own) == 2 * 16
    for key, name in own.items():
        assert torch.equal(ours[name], ours[f"cavmae.image_layers.{key}"])
    assert not torch.equal(ours["cavmae.audio_layers.0.fc1.weight"], ours["cavmae.audio_layers.1.fc1.weight"])
    for stream in ("audio", "image"):
        plain = ours["cavmae.joint_layers.0.mlp_norm.plain.bias"]
        assert torch.equal(plain, ours[f"cavmae.joint_layers.0.mlp_norm.{stream}.bias"])
        assert torch.equal(ours[f"cavmae.{stream}_norm.weight"], theirs["vit.layernorm.weight"])
    kernel = theirs["vit.embeddings.patch_embeddings.projection.weight"]
    close(ours["cavmae.audio_embeddings.projection.weight"][:, 0], kernel[:, 0] + kernel[:, 1] + kernel[:, 2])
    assert torch.equal(ours["decoder.audio_prediction.weight"], theirs["decoder.decoder_pred.weight"][:64])
    assert torch.equal(ours["decoder.image_prediction.bias"], theirs["decoder.decoder_pred.bias"])
    assert torch.equal(ours["decoder.image_positions.weight"], theirs["decoder.decoder_pos_embed"][:, 1:])
    assert torch.equal(ours["decoder.mask_token"], theirs["decoder.mask_token"])
    for name, width in (("cavmae.audio_embeddings.positions.weight", 32), ("decoder.audio_positions.weight", 24)):
        close(ours[name], sincos_positions((4, 8), width))
    for name in ("cavmae.audio_embeddings.modality", "decoder.image_modality"):
        assert 0 < ours[name].abs().max() < 0.2


@pytest.mark.parametrize("fields", [{"keep_unused_norms": True}, {"num_joint_layers": 2}])
def test_other_numbers_of_joint_layers_and_all_norms(mae, fields):
    model = from_image_mae(mae, **SOUNDS, **fields)
    last = mae.state_dict()["vit.layernorm.bias"]
    assert torch.equal(model.cavmae.joint_norm.bias, last)
    norms = {id(one): one for layer in model.cavmae.joint_layers for one in layer.attention_norm.values()}
    assert len(norms) == 3 * model.config.num_joint_layers


def test_from_folders_with_a_decoder_and_without(mae, tmp_path):
    mae.save_pretrained(tmp_path / "whole")
    close(
        from_image_mae(str(tmp_path / "whole"), **SOUNDS).decoder.embed.weight, mae.decoder.decoder_embed.weight.data
    )
    mae.vit.save_pretrained(tmp_path / "encoder")
    assert ViTMAEModel.from_pretrained(tmp_path / "encoder")
    torch.manual_seed(5)
    model = from_image_mae(str(tmp_path / "encoder"), **SOUNDS)
    assert torch.equal(model.cavmae.image_norm.bias, mae.vit.layernorm.bias.data)
    assert model.decoder.embed.bias.abs().max() == 0  # new
    assert model.config.layer_norm_eps == CAVMAEConfig().layer_norm_eps
    model.save_pretrained(tmp_path / "cavmae")
    CAVMAEForPreTraining.from_pretrained(tmp_path / "cavmae")


def test_what_is_no_image_mae_is_refused(mae, tmp_path):
    with pytest.raises(ValueError, match="hidden_size is the image MAE's own, 32"):
        from_image_mae(mae, hidden_size=64)
    with pytest.raises(ValueError, match="CAVMAEModel is no ViTMAEForPreTraining"):
        from_image_mae(CAVMAEModel(CAVMAEConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)))
    CAVMAEConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a 'cavmae' and no 'vit_mae'"):
        from_image_mae(str(tmp_path))
    with pytest.raises(ValueError, match="without qkv_bias"):
        from_image_mae(ViTMAEForPreTraining(ViTMAEConfig(**FIELDS, qkv_bias=False)))
