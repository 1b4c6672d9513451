"""The recipe for VGGSound on a copy of a few clips: from nothing, from a saved CAV-MAE, and what it refuses."""

import math

import pytest
import tiny_cavmae
import tiny_datasets
import torch
from tiny_cavtmae import TEXT
from transformers import CLIPTextConfig, CLIPTextModel

import unibrivl
from unibrivl.modeling import CAVMAEForPreTraining
from unibrivl.training.config import ConfigError, override
from unibrivl.training.loop import train
from unibrivl.training.recipes import cavtmae
from unibrivl.training.sampler import Draw

QUICK = ("steps=2", "batch_size=4", "warmup=1", "save_every=2", "log_every=1", "evaluate_every=2", "data.seconds=0.5")
LABELS = ("dog barking", "bird chirping, tweeting", "playing banjo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("vggsound")
    rows = []
    for number in range(9):
        name = f"clip{number:07d}"
        rows.append((name, 10, LABELS[number % 3], "train" if number < 6 else "test"))
        tiny_datasets.sound(root / f"clips/{name}_000010.wav", number, 0.6)
        tiny_datasets.picture(root / f"frames/{name}_000010.jpg", number)
    tiny_datasets.table(root / "vggsound.csv", None, rows)
    return root


def configured(folder, out, *more):
    given = [f"data.folder={folder}", f"output_dir={out}", f"data.cache={out}/targets", *QUICK, *more]
    return override(cavtmae.config(), given)


def test_from_nothing_everything_but_the_words_trains(folder, tmp_path):
    done = train(configured(folder, tmp_path, "model.cavmae=tiny", "model.text=tiny"), cavtmae.build)
    assert {"recall", "r1", "medr_picture_to_sound", "text_accuracy"} <= set(done.metrics)
    assert all(math.isfinite(value) for value in done.metrics.values())
    embedder = unibrivl.load(str(done.model))
    read = embedder.encode_text(["playing banjo", "dog barking"])
    assert embedder.similarity(read, read).shape == (2, 2)


@pytest.mark.parametrize("kept", [True, False])
def test_from_a_saved_cavmae_pictures_are_seen_once(folder, tmp_path, kept):
    fields = {"num_hidden_layers": 2, "num_joint_layers": 1, "max_audio_frames": 64}
    tiny_cavmae.build(CAVMAEForPreTraining, **fields).save_pretrained(tmp_path / "cavmae")
    config = configured(folder, tmp_path, f"model.cavmae={tmp_path / 'cavmae'}", "model.text=tiny",
                        *([] if kept else ["data.cache=none"]))  # fmt: skip
    parts = cavtmae.build(config)
    assert parts.model.config.freeze_vision_model
    parts.prepare()
    batch = parts.collate([parts.data[Draw(index, 0, index)] for index in range(4)])
    assert ("image_embeds" in batch) == kept and ("pixel_values" in batch) != kept
    assert batch["text_embeds"].shape == (4, 32) and len(set(batch["sample_id"].tolist())) == 4
    assert torch.equal(batch["text_embeds"][0], batch["text_embeds"][3])  # of one label
    parts.objective.before_step(parts.model, 0)
    terms = parts.objective(parts.model.train(), batch)
    assert torch.isfinite(sum(terms.values())) and "distillation" in terms
    with torch.no_grad():
        assert 0 <= parts.evaluate(parts.model.eval())["text_accuracy"] <= 1


def test_a_text_encoder_comes_from_a_folder(folder, tmp_path):
    fields = {name: value for name, value in TEXT.items() if name != "model_type"}
    _, tokenizer = cavtmae.text_encoder(cavtmae.CAVTMAERecipeModel(text="tiny"), LABELS)
    fields |= {"vocab_size": len(tokenizer), "max_position_embeddings": 32, "eos_token_id": tokenizer.eos_token_id}
    CLIPTextModel(CLIPTextConfig(**fields)).save_pretrained(tmp_path / "sd" / "text_encoder")
    tokenizer.save_pretrained(tmp_path / "sd" / "tokenizer")
    size = cavtmae.CAVTMAERecipeModel(text=str(tmp_path / "sd"), text_folder="text_encoder")
    tower, read = cavtmae.text_encoder(size, ())
    assert type(tower) is CLIPTextModel and read("dog barking")["input_ids"] == tokenizer("dog barking")["input_ids"]


def test_what_cannot_be_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.freeze_image=false"):
        cavtmae.build(configured(folder, tmp_path, "model.cavmae=tiny", "model.text=tiny", "model.freeze_image=true"))
    with pytest.raises(ConfigError, match="set batch_size=6 or less"):
        cavtmae.build(configured(folder, tmp_path, "model.cavmae=tiny", "model.text=tiny", "batch_size=7"))
