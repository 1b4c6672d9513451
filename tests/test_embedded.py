"""The embedded model: where it lies, what is said of it once, and that it loads from there. A tiny one stands in."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest

import unibrivl
from unibrivl.embedded import OVERRIDE, say_licence

here = sys.modules["unibrivl.embedded"]
TERMS = "Weights of a test\n\nThey were trained on noise, and are\nlicensed under CC0.\n\nCC0 (1 works)\n"


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv(OVERRIDE, raising=False)
    say_licence.cache_clear()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "LICENSE-WEIGHTS").write_text(TERMS)
    return tmp_path


def test_the_module_and_the_function_may_both_be_called():
    code = """
import unibrivl
{}
import os, pathlib
os.environ["UNIBRIVL_EMBEDDED"] = "nowhere"
try:
    unibrivl.embedded("open")
except FileNotFoundError as error:
    print("UNIBRIVL_EMBEDDED names nowhere" in str(error))
"""
    for before in ("", "import unibrivl.embedded", "unibrivl.embedded; import unibrivl.embedded", "dir(unibrivl)"):
        done = subprocess.run([sys.executable, "-c", code.format(before)], text=True, capture_output=True, check=True)
        assert done.stdout.strip() == "True", before


def test_it_lies_in_the_package_unless_the_environment_says_otherwise(folder, monkeypatch):
    monkeypatch.setattr(here, "HERE", folder.parent)
    monkeypatch.setattr(here, "VARIANTS", (folder.name,))
    assert unibrivl.embedded(folder.name) == folder
    monkeypatch.setattr(here, "VARIANTS", ("open", "research"))
    monkeypatch.setenv(OVERRIDE, str(folder))
    assert unibrivl.embedded() == unibrivl.embedded("research") == folder


def test_without_weights_it_says_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.setattr(here, "HERE", tmp_path)
    with pytest.raises(FileNotFoundError, match="make embedded VARIANT=research"):
        unibrivl.embedded("research")
    with pytest.raises(FileNotFoundError, match="make embedded VARIANT=open"):
        unibrivl.load("embedded")
    monkeypatch.setenv(OVERRIDE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no model_index.json"):
        unibrivl.embedded()
    with pytest.raises(ValueError, match="take open or research"):
        unibrivl.embedded("closed")


def test_the_licence_is_said_once_in_one_line(folder, monkeypatch, caplog):
    monkeypatch.setenv(OVERRIDE, str(folder))
    with caplog.at_level(logging.INFO, logger="unibrivl.embedded"):
        for _ in range(3):
            unibrivl.embedded()
    (line,) = caplog.messages
    assert "licensed under CC0" in line and str(folder / "LICENSE-WEIGHTS") in line and "\n" not in line
    (folder / "LICENSE-WEIGHTS").unlink()
    say_licence.cache_clear()
    unibrivl.embedded()
    assert "without LICENSE-WEIGHTS" in caplog.messages[-1]


def test_the_pipeline_and_the_embedder_come_from_it(tmp_path, monkeypatch):
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    import tiny_diffusion
    import torch

    pipe = tiny_diffusion.pipeline(reads="native", label_banks={"photo": {"a dog": "a photo of a dog"}})
    for part in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.matcher):
        part.half()
    pipe.save_pretrained(tmp_path)
    monkeypatch.setenv(OVERRIDE, str(tmp_path))
    loaded = tiny_diffusion.quiet(unibrivl.UniBriVLPipeline.from_pretrained(unibrivl.embedded()))
    call = {"num_inference_steps": 2, "num_candidates": 2, "height": 32, "width": 32, "audio": tiny_diffusion.sound()}
    output = loaded(**call, sampling_rate=16000)
    assert output.candidates[0].prompt == "a photo of a dog"
    assert output.receipts[0]["base"] == tmp_path.name

    embedder = unibrivl.load("embedded")
    sound = unibrivl.Waveform(tiny_diffusion.sound(), 16000)
    vectors = embedder.encode_audio([sound]).vectors
    assert embedder.matcher.model.dtype == torch.float32
    assert np.allclose(vectors, loaded.encode_query(tiny_diffusion.sound(), sampling_rate=16000).embeds, atol=1e-6)
    assert np.array_equal(vectors, unibrivl.load(tmp_path).encode_audio([sound]).vectors)  # any pipeline's folder
    assert unibrivl.load("embedded", dtype=torch.bfloat16).matcher.model.dtype == torch.bfloat16


def test_a_picture_of_it_is_replayed_without_a_name(tmp_path, monkeypatch, capsys):
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    import soundfile
    import tiny_diffusion

    from unibrivl.cli import main

    monkeypatch.setattr(here, "HERE", tmp_path / "embedded")
    banks = {"photo": {"rain": "a photo of rain"}, "drawing": {"a dog": "a drawing of a dog"}}
    tiny_diffusion.pipeline(reads="native", label_banks=banks).save_pretrained(tmp_path / "embedded" / "open")
    dog, out = tmp_path / "dog.wav", tmp_path / "out"
    soundfile.write(dog, tiny_diffusion.sound(), 16000)
    call = ["--steps", "2", "-n", "2", "--size", "32", "--label-bank", "drawing", "--out", str(out), "--quiet"]
    assert main(["generate", str(dog), "--model", "embedded", *call]) == 0
    assert main(["replay", str(out / "dog.png"), "--audio", str(dog), "--quiet"]) == 0
    assert "equal bit for bit" in capsys.readouterr().out


def test_a_pipeline_without_a_matcher_embeds_nothing(folder):
    with pytest.raises(ValueError, match="a pipeline without a matcher"):
        unibrivl.load(folder)
