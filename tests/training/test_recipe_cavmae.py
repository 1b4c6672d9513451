"""The recipe of CAV-MAE's pre-training on a few pairs: from nothing, from an image MAE, on from there; refusals."""

import math

import pytest
import tiny_datasets
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from unibrivl.modeling import CAVMAEForPreTraining
from unibrivl.training.config import ConfigError, override
from unibrivl.training.loop import train
from unibrivl.training.recipes import cavmae
from unibrivl.training.sampler import Draw

QUICK = ("steps=2", "batch_size=4", "warmup=1", "save_every=2", "log_every=1", "evaluate_every=2", "data.seconds=0.5")
SMALL_MAE = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
    **{"image_size": 32, "patch_size": 16, "decoder_hidden_size": 24, "decoder_num_hidden_layers": 1},
    **{"decoder_num_attention_heads": 2, "decoder_intermediate_size": 40},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("vggsound")
    rows = []
    for number in range(9):
        name = f"clip{number:07d}"
        rows.append((name, 10, f"label {number % 3}", "train" if number < 6 else "test"))
        tiny_datasets.sound(root / f"clips/{name}_000010.wav", number, 0.6)
        tiny_datasets.picture(root / f"frames/{name}_000010.jpg", number)
    tiny_datasets.table(root / "vggsound.csv", None, rows)
    return root


def configured(folder, out, *more):
    return override(cavmae.config(), [f"data.folder={folder}", f"output_dir={out}", *QUICK, *more])


def test_from_an_image_mae_and_on_from_there(folder, tmp_path):
    torch.manual_seed(0)
    mae = ViTMAEForPreTraining(ViTMAEConfig(**SMALL_MAE))
    mae.save_pretrained(tmp_path / "mae")
    given = [f"model.start={tmp_path / 'mae'}", "model.mel_bins=32", "model.frames=64", "data.mean=-4.0"]
    config = configured(folder, tmp_path / "run", *given)
    begun = cavmae.build(config).model
    assert torch.equal(
        begun.cavmae.image_embeddings.projection.bias, mae.vit.embeddings.patch_embeddings.projection.bias
    )
    done = train(config, cavmae.build)
    assert {"recall", "r1", "medr_picture_to_sound"} <= set(done.metrics)
    assert all(math.isfinite(value) for value in done.metrics.values())
    trained = CAVMAEForPreTraining.from_pretrained(done.model)
    assert trained.config.max_audio_frames == 64 and trained.config.patch_size == 16
    parts = cavmae.build(configured(folder, tmp_path / "on", f"model.start={done.model}"))
    assert torch.equal(parts.model.decoder.embed.weight, trained.decoder.embed.weight)


def test_from_nothing_pairs_look_for_each_other_and_labels_say_nothing(folder, tmp_path):
    parts = cavmae.build(configured(folder, tmp_path, "model.start=tiny", "data.std=2.5"))
    parts.prepare()
    assert parts.processor.feature_extractor.std == 2.5
    batch = parts.collate([parts.data[Draw(index, 0, index)] for index in range(4)])
    assert batch["input_values"].shape == (4, 64, 32) and batch["pixel_values"].shape == (4, 3, 32, 32)
    assert "label" not in batch and len(set(batch["sample_id"].tolist())) == 4
    torch.manual_seed(0)
    terms = parts.objective(parts.model.train(), batch)
    assert terms.keys() == {"rebuilt", "audio_image"}
    sum(terms.values()).backward()
    assert all(one.grad is not None for one in parts.model.parameters() if one.requires_grad)


def test_what_cannot_be_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="set batch_size=6 or less"):
        cavmae.build(configured(folder, tmp_path, "model.start=tiny", "batch_size=7"))
    cavmae.model_for(cavmae.CAVMAERecipeModel("tiny")).save_pretrained(tmp_path / "cavmae")
    with pytest.raises(ConfigError, match=r"knows its sounds: leave model\.frames out"):
        cavmae.build(configured(folder, tmp_path, f"model.start={tmp_path / 'cavmae'}", "model.frames=32"))
