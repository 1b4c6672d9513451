"""`unibrivl explain`: the files it writes hold what the embedder says, and wrong questions end in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_datasets
import torch
from PIL import Image
from tiny_towers import unibrivl_config
from transformers import CLIPImageProcessorPil

from unibrivl.cli import main
from unibrivl.embedder import load
from unibrivl.modeling import SpeechLMFeatureExtractor, UniBriVLModel, UniBriVLProcessor


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    UniBriVLModel(unibrivl_config("speechlm", "clip")).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    UniBriVLProcessor(
        SpeechLMFeatureExtractor(), CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square)
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def files(tmp_path):
    tiny_datasets.sound(tmp_path / "dog.wav", 0, 0.5)
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "dog.png")
    return str(tmp_path / "dog.wav"), str(tmp_path / "dog.png")


def test_it_writes_what_the_embedder_says(model, files, tmp_path, capsys):
    out, numbers = tmp_path / "why.png", tmp_path / "why.json"
    call = ["--model", model, "--device", "cpu", "--regions", "2", "--out", str(out), "--json", str(numbers)]
    assert main(["explain", *files, *call]) == 0
    printed = capsys.readouterr().out
    found = load(model).evidence(*files, regions=2)
    assert json.loads(numbers.read_text()) == json.loads(found.to_json())
    assert f"score {found.score:.4f}" in printed and str(out) in printed
    with Image.open(out) as page:
        assert page.size == found.picture().size
        assert np.array_equal(np.asarray(page), np.asarray(found.picture()))


def test_wrong_questions_end_in_one_line(model, files, tmp_path, capsys):
    sound, picture = files
    for words, message in (
        ([sound], "name a picture"),
        ([sound, picture, "--text", "a dog"], "not both"),
        ([sound, "--text", "a dog", "--model", model, "--device", "cpu"], "takes audio and text"),
        ([sound, picture, "--out", str(tmp_path / "why.txt")], "no suffix of a picture"),
    ):
        given = words if "--out" in words else [*words, "--out", str(tmp_path / "why.png")]
        assert main(["explain", *given]) == 2
        printed = capsys.readouterr().err
        assert message in printed and printed.count("\n") == 1
