"""The recipe `audio_token`: from folders to an adapter that knows its base, with a LoRA or without, and resumed."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")
import tiny_diffusion
import tiny_pairs
import tiny_words
from small_packs import write_packs
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from unibrivl.cli import main
from unibrivl.modeling import AudioTokenAdapter
from unibrivl.training.config import ConfigError, override
from unibrivl.training.journal import read_rows
from unibrivl.training.loop import train
from unibrivl.training.recipes import audio_token
from unibrivl.training.sampler import Draw

SMALL = ["batch_size=4", "log_every=1", "save_every=100", "evaluate_every=0", "primary=none", "model.hidden_size=16"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A base, ears, a folder of pairs: what a user names."""
    root = tmp_path_factory.mktemp("words")
    tiny_words.stock().save_pretrained(root / "base")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = HubertConfig(**sizes, conv_dim=[8] * 7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)
    HubertModel(config).save_pretrained(root / "ears")
    Wav2Vec2FeatureExtractor().save_pretrained(root / "ears")
    tiny_pairs.by_stem(root / "mine", 8)
    return root


def configured(places, out, *settings):
    named = [f"model.base={places / 'base'}", f"model.audio={places / 'ears'}", f"data.cache={places / 'cache'}"]
    named += [f"data.folder={places / 'mine'}", f"output_dir={out}"]
    return override(audio_token.config(), [*SMALL, *named, *settings])


def test_an_adapter_is_trained_for_its_base(places, tmp_path):
    config = configured(places, tmp_path / "run", "steps=3", "evaluate_every=3", "primary=held_out_loss")
    outcome = train(config, audio_token.build)
    assert outcome.metrics["held_out_loss"] > 0
    pipe = tiny_words.stock()
    adapter = AudioTokenAdapter.from_pretrained(outcome.model, text_encoders={"text_encoder": pipe.text_encoder})
    assert adapter.config.base_name == "base" and adapter.config.features_name == "ears"
    assert adapter.heads["text_encoder"].fc2.weight.abs().sum() > 0  # it began at nothing
    with pytest.raises(ValueError, match="made for base"):
        other = tiny_words.stock(seed=4)
        AudioTokenAdapter.from_pretrained(outcome.model, text_encoders={"text_encoder": other.text_encoder})
    told = json.loads((outcome.model / "training.json").read_text())
    assert told["towers"]["backbone"]["model"].endswith("base")


def test_attention_over_tokens_with_a_lora_goes_on_where_it_was_killed(places, tmp_path):
    pytest.importorskip("peft")
    settings = ["model.mode=attentive", "model.lora_rank=2", "steps=4", "save_every=2", "objective.snr_gamma=5"]
    whole = train(configured(places, tmp_path / "whole", *settings), audio_token.build)
    half = tmp_path / "half"
    shutil.copytree(tmp_path / "whole", half)
    shutil.rmtree(half / "model")
    shutil.rmtree(half / "checkpoints" / "step_00000004")
    again = train(configured(places, half, *settings), audio_token.build, resume=True)
    for name in ("model.safetensors", "pytorch_lora_weights.safetensors"):
        assert (whole.model / name).read_bytes() == (again.model / name).read_bytes(), name
    pipe = tiny_words.stock()
    pipe.load_lora_weights(str(whole.model))
    assert AudioTokenAdapter.from_pretrained(whole.model).config.mode == "attentive"


def test_what_is_heard_and_seen_is_computed_once(places, tmp_path, monkeypatch):
    train(configured(places, tmp_path / "one", "steps=1"), audio_token.build)

    def refuse(*_):
        raise AssertionError("it was asked again")

    monkeypatch.setattr("unibrivl.training.diffusion_base.DiffusionBase.latents", refuse)
    monkeypatch.setattr("unibrivl.modeling.features_audio_token.ModelFeatures.heard", refuse)
    train(configured(places, tmp_path / "two", "steps=1"), audio_token.build)
    rows = [[row["train"]["loss"] for row in read_rows(tmp_path / name / "metrics.jsonl")] for name in ("one", "two")]
    assert rows[0] == rows[1]


def test_the_small_world_brings_photographs_drawings_and_digits(places, tmp_path):
    packs = write_packs(tmp_path / "packs")
    model, processor = tiny_diffusion.matcher()
    pipe = tiny_diffusion.pipeline()
    pipe.save_pretrained(tmp_path / "whole")
    settings = [f"data.folder={packs}", "data.source=small_world", "data.seconds=0.5", "steps=1"]
    config = override(
        configured(places, tmp_path / "run", *settings), ["model.audio=none", f"model.base={tmp_path / 'whole'}"]
    )
    parts = audio_token.build(config)
    parts.prepare()
    examples = [parts.data[Draw(index, 0, index)] for index in range(len(parts.data))]
    assert {one["text"] for one in examples} == {"a photo of <audio>", "a drawing of <audio>", "a handwritten <audio>"}
    assert {"a dog", "seven"} <= {one["label_text"] for one in examples}
    assert examples[0]["features"].shape == (1, model.config.native_dim)
    assert examples[0]["latent"].shape == (4, 16, 16)
    batch = parts.collate(examples[:4])
    assert all(term.isfinite() for term in parts.objective(parts.model, batch).values())


def test_it_goes_on_with_an_adapter_of_the_base(places, tmp_path):
    first = train(configured(places, tmp_path / "one", "steps=1"), audio_token.build).model
    parts = audio_token.build(configured(places, tmp_path / "two", f"model.start={first}"))
    saved = AudioTokenAdapter.from_pretrained(first).state_dict()
    assert all(torch.equal(saved[name], weight) for name, weight in parts.model.state_dict().items())


def test_the_command_says_what_would_train(places, capsys):
    words = [f"{key}={value}" for key, value in (("model.base", places / "base"), ("model.audio", places / "ears"))]
    words += [f"data.folder={places / 'mine'}", f"data.cache={places / 'cache'}", "batch_size=4"]
    assert main(["train", "--recipe", "audio_token", "--dry-run", *(f"--set={word}" for word in words)]) == 0
    told = capsys.readouterr().out
    assert "6 examples an epoch" in told and "weights" in told


def test_what_cannot_be_is_said_before_anything_is_computed(places, tmp_path):
    with pytest.raises(ConfigError, match="brings no ears"):
        audio_token.build(configured(places, tmp_path / "x", "model.audio=none"))
    with pytest.raises(ConfigError, match="each holds <audio>"):
        audio_token.build(configured(places, tmp_path / "x", "data.texts=a photo"))
    with pytest.raises(ConfigError, match="6 sounds to train on"):
        audio_token.build(configured(places, tmp_path / "x", "batch_size=64"))
