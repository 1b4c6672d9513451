"""The recipe `captioner` at toy size: its loss, what is kept of sounds, and a folder that captions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_datasets
import torch
from tiny_towers import unibrivl_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from unibrivl.audio import load_audio
from unibrivl.cli import main
from unibrivl.embedder.writing import load_captioner
from unibrivl.modeling import SpeechLMFeatureExtractor, UniBriVLForAudioCaptioning, UniBriVLModel, UniBriVLProcessor
from unibrivl.training.config import ConfigError, override
from unibrivl.training.loop import train
from unibrivl.training.objectives import CaptioningLoss, captioning
from unibrivl.training.recipes import captioner, load_recipe
from unibrivl.training.sampler import Draw

SAID = {"low": "A dog barks.", "high": "Heavy rain falls down!"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A UniBriVL and a language model that knows the words, each with what prepares its input."""
    root = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    UniBriVLModel(unibrivl_config("speechlm", "clip")).save_pretrained(root / "ears")
    UniBriVLProcessor(SpeechLMFeatureExtractor()).save_pretrained(root / "ears")
    words = ["<end>", "<unk>", "a", "dog", "barks", "heavy", "rain", "falls", "down"]
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<end>")
    tokenizer.save_pretrained(root / "language")
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": len(words)}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(root / "language")
    tokenizer.save_pretrained(root / "layered")
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "ffn_dim": 32, "vocab_size": len(words)}  # fmt: skip
    layered = OPTForCausalLM(OPTConfig(**sizes, bos_token_id=0, eos_token_id=0, pad_token_id=1))
    layered.save_pretrained(root / "layered")
    return root


@pytest.fixture
def folder(tmp_path):
    """Clotho of two sounds a split, one low and one high."""
    root = tmp_path / "clotho"
    for split in ("development", "validation", "evaluation"):
        rows = [(f"{name}.wav", *[text] * 5) for name, text in SAID.items()]
        header = ["file_name", *(f"caption_{number}" for number in range(1, 6))]
        tiny_datasets.table(root / f"clotho_captions_{split}.csv", header, rows)
        for name, pitch in (("low", 0), ("high", 60)):
            tiny_datasets.sound(root / split / f"{name}.wav", pitch, 0.5)
    return root


def configured(parts, folder, *settings):
    given = [f"data.folder={folder}", f"model.matcher={parts / 'ears'}", f"model.language={parts / 'language'}",
             f"data.cache={folder.parent / 'targets'}", f"output_dir={folder.parent / 'run'}", "steps=60",
             "batch_size=10", "learning_rate=0.01", "warmup=5", "evaluate_every=30", "save_every=30",
             "log_every=1"]  # fmt: skip
    return override(captioner.config(), [*given, *settings])


def test_a_run_learns_to_say_what_it_hears(parts, folder, capsys):
    config = configured(parts, folder)
    outcome = train(config, captioner.build)
    rows = [json.loads(line) for line in (Path(config.output_dir) / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train"]["loss"] for row in rows if "train" in row]
    assert losses[-1] < losses[0] / 4
    assert outcome.metrics["bleu4"] == pytest.approx(1.0, abs=1e-3) and outcome.metrics["cider"] > 5
    speaks = load_captioner(outcome.model)
    paths = [str(folder / "evaluation" / f"{name}.wav") for name in SAID]
    assert speaks.caption(paths) == [captioner.plain(text) for text in SAID.values()]
    assert speaks.fingerprint != load_captioner(Path(config.output_dir) / "checkpoints/step_00000060").fingerprint
    before = UniBriVLModel.from_pretrained(parts / "ears").audio_model.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in speaks.model.audio_model.state_dict().items())
    given = ["eval", "clotho", "--model", str(outcome.model), "--data", str(folder), "--device", "cpu"]
    assert main([*given, "--out", str(folder.parent / "eval")]) == 0
    assert "0.4340 UniBriVL (UniBriVL) | 1.0000" in capsys.readouterr().out  # BLEU-1


def test_what_is_kept_is_what_the_model_hears(parts, folder):
    """A batch of kept stretches and the same captions after live sounds: one loss, one caption."""
    built = captioner.build(configured(parts, folder))
    built.prepare()
    batch = built.collate([built.data[Draw(index, 0, 1)] for index in (0, 5)])
    assert set(batch) == {"stretches", "labels"} and batch["labels"][0].tolist() == [2, 3, 4, 0, -100]
    sounds = [load_audio(folder / "development" / f"{name}.wav").samples for name in SAID]
    live = dict(built.processor(audio=sounds, sampling_rate=16_000, return_tensors="pt"))
    model = built.model.eval()
    with torch.no_grad():
        kept, heard = (model(**given, labels=batch["labels"]) for given in ({"stretches": batch["stretches"]}, live))
        assert torch.allclose(kept.loss, heard.loss, atol=1e-5)
        assert torch.allclose(built.objective(model, batch)["words"], kept.loss, atol=1e-6)
        assert torch.equal(model.generate(stretches=batch["stretches"]), model.generate(**live))
        with pytest.raises(ValueError, match="one of the two"):
            model(stretches=batch["stretches"], **live)
    with pytest.raises(ValueError, match="no labels"):
        CaptioningLoss(model)(model, {"stretches": batch["stretches"]})


def test_two_processes_lose_what_one_does(parts, folder, monkeypatch):
    """Captions of unlike length, one a process: each token counts the same, whoever holds it."""
    built = captioner.build(configured(parts, folder))
    built.prepare()
    examples = [built.data[Draw(index, 0, 1)] for index in (0, 5)]
    model = built.model.eval()
    with torch.no_grad():
        whole = built.objective(model, built.collate(examples))["words"]
        monkeypatch.setattr(captioning, "num_processes", lambda: 2)
        monkeypatch.setattr(captioning, "sum_over_processes", lambda count: torch.tensor(4 + 5))
        halves = [built.objective(model, built.collate([one]))["words"] for one in examples]
    assert torch.allclose(sum(halves) / 2, whole, atol=1e-6)


def test_the_evaluation_split_is_never_looked_at(parts, folder):
    for one in (folder / "evaluation").iterdir():
        one.write_bytes(b"no sound")
    listing, learns, held = captioner.listings(configured(parts, folder).data, 0)
    assert (listing.splits, learns.splits, held.splits) == (
        ("development", "validation"), ("development",), ("validation",)
    )  # fmt: skip
    (folder / "clotho_captions_validation.csv").unlink()
    _, learns, held = captioner.listings(configured(parts, folder).data, 0)  # the first version: a share is held out
    assert learns.splits == held.splits == ("development",) and len(learns) == len(held) == 1


def test_the_prefix_alone_trains_on_request(parts, folder):
    built = captioner.build(configured(parts, folder, "model.freeze_language=true"))
    names = {name.split(".")[0] for name, weight in built.model.named_parameters() if weight.requires_grad}
    assert names == {"prefix"} and built.model.config.freeze_decoder


def test_a_run_goes_on_from_a_captioner(parts, folder):
    config = configured(parts, folder, "steps=2", "evaluate_every=0", "primary=none")
    model = train(config, captioner.build).model
    again = captioner.build(configured(parts, folder, f"model.base={model}"))
    saved = UniBriVLForAudioCaptioning.from_pretrained(model)
    assert all(torch.equal(one, saved.state_dict()[name]) for name, one in again.model.state_dict().items())
    assert any(weight.requires_grad for weight in again.model.decoder.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.folder="], "where are the sounds"),
        (["batch_size=11"], "10 captions to train on"),
        (["adapter.method=lora"], "adapter.towers=decoder"),
    ],
)
def test_settings_that_cannot_be_are_refused(parts, folder, settings, message):
    with pytest.raises(ConfigError, match=message):
        captioner.build(configured(parts, folder, *settings))


def test_an_adapter_is_for_the_language_model(parts, folder):
    settings = ["adapter.method=lora", "adapter.towers=decoder", "steps=2", "evaluate_every=2"]
    config = configured(parts, folder, f"model.language={parts / 'layered'}", *settings)
    outcome = train(config, captioner.build)
    assert "cider" in outcome.metrics and (outcome.model / "adapter_config.json").is_file()


def test_captions_are_plain_and_end(parts, folder):
    assert captioner.plain("It's a Dog, barking_loudly - twice!") == "it's a dog barking loudly twice"
    built = captioner.build(replace_data(configured(parts, folder), max_tokens=3))
    assert built.data.rows[0][1] == [2, 3, 0] and len(built.data) == 10
    assert load_recipe("captioner") is captioner and np.isfinite(captioner.config().learning_rate)


def replace_data(config, **fields):
    return replace(config, data=replace(config.data, **fields))
