"""`unibrivl caption`: what it prints is what the model writes, a line for each sound; what it cannot hear is told."""

from __future__ import annotations

import json

import pytest
import tiny_datasets
import torch
from tiny_towers import unibrivl_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from unibrivl.cli import main
from unibrivl.embedder.writing import load_captioner
from unibrivl.modeling import SpeechLMFeatureExtractor, UniBriVLForAudioCaptioning, UniBriVLProcessor

WORDS = ("<end>", "<unk>", "a", "dog", "barks", "heavy", "rain", "falls", "down")
LANGUAGE = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "bos_token_id": 0,
            "eos_token_id": 0, "vocab_size": len(WORDS)}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("captioner")
    torch.manual_seed(0)
    config = unibrivl_config("speechlm", decoder_config=dict(LANGUAGE), prefix_length=4)
    captioner = UniBriVLForAudioCaptioning(config).eval()
    with torch.no_grad():
        for weight in [*captioner.decoder.parameters(), *captioner.prefix.parameters()]:
            if weight.dim() == 2:  # else every caption is one word over and over
                weight.normal_(std=0.4)
    captioner.save_pretrained(folder)
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<end>")
    UniBriVLProcessor(SpeechLMFeatureExtractor(), tokenizer=tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def folder(tmp_path):
    for name, pitch in (("high", 60), ("low", 0)):
        tiny_datasets.sound(tmp_path / "sounds" / f"{name}.wav", pitch, 0.5)
    return tmp_path / "sounds"


def test_it_prints_what_the_model_writes(model, folder, capsys):
    paths = [str(folder / f"{name}.wav") for name in ("high", "low")]
    wanted = load_captioner(model).caption(paths)
    assert all(wanted)
    capsys.readouterr()
    assert main(["caption", str(folder), "--model", model, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}\t{text}" for path, text in zip(paths, wanted, strict=True)
    ]
    assert main(["caption", *paths, "--model", model, "--device", "cpu", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["caption"] for line in lines] == wanted
    assert [line["sound"] for line in lines] == paths
    assert lines[0]["language_model"]["kind"] == "gpt2" and lines[0]["language_model"]["vocabulary"] == len(WORDS)
    assert lines[0]["fingerprint"] == load_captioner(model).fingerprint


def test_what_cannot_be_heard_is_told_and_stops_nobody(model, folder, capsys):
    (folder / "broken.wav").write_bytes(b"no sound")
    named = [str(folder), str(folder / "gone.wav")]
    assert main(["caption", *named, "--model", model, "--device", "cpu", "--quiet"]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert "broken.wav: " in printed.err and "gone.wav: " in printed.err


def test_wrong_questions_are_answered_in_words(model, folder, tmp_path, capsys):
    assert main(["caption", str(folder), "--model", "embedded"]) == 2
    assert "writes nothing" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["caption", str(tmp_path / "empty"), "--model", model]) == 2
    assert "no sounds" in capsys.readouterr().err
