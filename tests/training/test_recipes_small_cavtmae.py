"""The small CAV-MAE and CAVT-MAE in miniature: from packs to a folder that the embedder takes."""

import json
import math

import numpy as np
import pytest
import torch
from small_packs import write_packs

import unibrivl
from unibrivl.training.config import ConfigError, override
from unibrivl.training.embedded import run_stages
from unibrivl.training.loop import train
from unibrivl.training.recipes import load_recipe
from unibrivl.training.sampler import Draw

QUICK = ("steps=2", "batch_size=6", "warmup=1", "save_every=2", "log_every=1", "precision=no", "evaluate_every=2")
SHORT = ("data.seconds=0.6",)
SIZE = ("hidden_size=32", "num_hidden_layers=2", "num_attention_heads=2", "num_mel_bins=32", "frames=64",
        "image_size=32", "decoder_hidden_size=16", "decoder_num_hidden_layers=1")  # fmt: skip


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    return write_packs(tmp_path_factory.mktemp("packs"))


@pytest.fixture(scope="module")
def words(packs, tmp_path_factory):
    """A text encoder as wide as the CAV-MAE."""
    out = tmp_path_factory.mktemp("stages")
    quick = [f"{stage}.{key}" for stage in ("pictures", "words")
             for key in ("steps=2", "batch_size=6", "warmup=1", "save_every=2", "evaluate_every=0")]  # fmt: skip
    quick += ["pictures.precision=no", "words.primary=none", "words.model.hidden_size=32",
              "words.model.num_hidden_layers=1"]  # fmt: skip
    run_stages("open", packs, out, quick, ("pictures", "words"))
    return out / "open" / "words" / "model"


def settings(packs, out, *more):
    return [f"data.folder={packs}", f"output_dir={out}", *QUICK, *SHORT, *more]


def of(name, given):
    recipe = load_recipe(name)
    config = override(recipe.config(), given)
    torch.manual_seed(0)
    return recipe, config


@pytest.fixture(scope="module")
def cavmae(packs, tmp_path_factory):
    out = tmp_path_factory.mktemp("cavmae")
    recipe, config = of("small_cavmae", settings(packs, out, *(f"model.{one}" for one in SIZE)))
    return train(config, recipe.build)


def batch_of(parts, count=6):
    return parts.collate([parts.data[Draw(index % len(parts.data), 0, index)] for index in range(count)])


def test_pretraining_pairs_sounds_with_pictures_of_their_class(cavmae, packs, tmp_path):
    assert set(cavmae.metrics) == {"mrr", "r1"} and 0 < cavmae.metrics["mrr"] <= 1
    recipe, config = of("small_cavmae", settings(packs, tmp_path, *(f"model.{one}" for one in SIZE)))
    parts = recipe.build(config)
    data = parts.data
    for seed in range(40):
        one = data[Draw(0, 0, seed)]
        assert data.labels[one["label"]] != "chainsaw"  # which has no picture
        assert one["picture"].size == (64, 64)
    batch = batch_of(parts)
    assert batch["input_values"].shape == (6, 64, 32) and batch["pixel_values"].shape == (6, 3, 32, 32)
    terms = parts.objective(parts.model.train(), batch)
    assert set(terms) == {"rebuilt", "audio_image"} and torch.isfinite(sum(terms.values()))


@pytest.mark.parametrize("more", [(), ("objective.momentum=none",)], ids=["momentum", "without m"])
def test_sounds_are_aligned_and_pictures_and_words_stay(cavmae, words, packs, tmp_path, more):
    given = settings(packs, tmp_path, f"model.cavmae={cavmae.model}", f"model.words={words}", *more)
    recipe, config = of("small_cavtmae", given)
    before, _ = recipe.model_for(config)
    done = train(config, recipe.build)
    assert set(done.metrics) == {"esc10", "digits", "mrr", "r1"}
    assert all(math.isfinite(value) for value in done.metrics.values())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ("distillation" in rows[0]["train"]) == (not more)
    embedder = unibrivl.load(str(done.model))
    model = embedder.matcher.model
    for name, weight in before.state_dict().items():
        moved = not torch.equal(weight, model.state_dict()[name])
        if not name.startswith("audio_model.") and name != "temperature":
            assert not moved, name
    assert not torch.equal(before.audio_model.audio_norm.weight, model.audio_model.audio_norm.weight)
    heard = embedder.encode_audio([str(packs / "sounds_and_pictures" / "audio" / "dog" / "3.ogg")])
    assert np.isfinite(np.asarray(heard.vectors)).all()


def test_a_batch_has_words_pictures_and_masked_frames(cavmae, words, packs, tmp_path):
    given = settings(packs, tmp_path, f"model.cavmae={cavmae.model}", f"model.words={words}")
    recipe, config = of("small_cavtmae", given)
    parts = recipe.build(config)
    batch = batch_of(parts, 24)
    assert torch.equal(batch_of(parts, 24)["input_values"], batch["input_values"])  # all from the draws
    assert torch.equal(batch["text_embeds"], parts.data.words_LV[batch["label"]])
    without = [row for row, label in enumerate(batch["label"]) if parts.data.labels[label] == "chainsaw"]
    for row in without:
        assert torch.equal(batch["image_embeds"][row], batch["text_embeds"][row])
    assert set(parts.objective(parts.model.train(), batch)) == {"audio_text", "audio_image", "distillation"}


def test_what_is_missing_is_named(packs, tmp_path):
    recipe, config = of("small_cavtmae", settings(packs, tmp_path, f"model.cavmae={tmp_path / 'none'}"))
    with pytest.raises(ConfigError, match="train --recipe small_cavmae makes it"):
        recipe.build(config)
