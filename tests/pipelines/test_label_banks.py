"""Label banks of a pipeline's own: what the matcher reads is one thing, what is drawn another, and both are saved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_diffusion  # noqa: E402
from diffusers import StableDiffusionPipeline  # noqa: E402
from tiny_diffusion import RATE_HZ, SIDE, generator, sound  # noqa: E402

from unibrivl.cli import main  # noqa: E402
from unibrivl.pipelines import UniBriVLPipeline, UniBriVLXLPipeline  # noqa: E402
from unibrivl.pipelines.prompts_unibrivl import bank_named, nearest_prompts, read_bank  # noqa: E402
from unibrivl.pipelines.receipt_unibrivl import pixel_difference, read_receipt, replay  # noqa: E402

PHOTO = {"rain": "a photo of rain", "a dog": "a photo of a dog"}
DRAWING = {"seven": "a handwritten 7", "a dog": "a drawing of a dog", "a cat": "a drawing of a cat"}
BANKS = {"photo": PHOTO, "drawing": DRAWING}  # neither names nor labels are in the order of the alphabet
CALL = {"num_inference_steps": 2, "num_candidates": 2, "height": SIDE, "width": SIDE}


@pytest.fixture(scope="module")
def pipe():
    return tiny_diffusion.pipeline(reads="native", label_banks=BANKS)


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory) -> str:
    place = tmp_path_factory.mktemp("banks") / "tiny"
    pipe.save_pretrained(place)
    return str(place)


def prompts(pipe, **call) -> list[str]:
    output = pipe(audio=sound(), sampling_rate=RATE_HZ, **{**CALL, **call}, generator=generator())
    return [one.prompt for one in output.candidates]


@pytest.mark.parametrize(
    ("bank", "drawn"),
    [
        (None, PHOTO.values()),
        ("photo", PHOTO.values()),
        ("drawing", DRAWING.values()),
        ({"a cow": "oil on canvas"}, ["oil on canvas"]),
        (["a cow"], ["a photo of a cow"]),
        ([["a finished prompt"]], ["a finished prompt"]),
    ],
    ids=["none", "first", "second", "mapping", "list", "finished"],
)
def test_a_call_says_which_bank(pipe, bank, drawn):
    assert set(prompts(pipe, label_bank=bank)) <= set(drawn)


def test_labels_are_read_and_prompts_are_drawn(pipe):
    """The same labels in the same order give the same places, whatever is drawn for them."""
    queries = pipe.encode_query(sound(), sampling_rate=RATE_HZ).embeds
    labels = nearest_prompts(pipe.listener, queries, 3, 3, list(DRAWING), template="{}")[0]
    assert nearest_prompts(pipe.listener, queries, 3, 3, DRAWING)[0] == [DRAWING[label] for label in labels]


def test_a_pipeline_without_banks_draws_from_the_projects_labels():
    plain = tiny_diffusion.pipeline(reads="native")
    assert plain.label_banks == {}
    assert all(prompt in read_bank().values() for prompt in prompts(plain))
    with pytest.raises(ValueError, match="'photo' is no bank of this pipeline: it has none of its own"):
        prompts(plain, label_bank="photo")


def test_an_unknown_name_is_refused_with_those_there_are(pipe):
    with pytest.raises(ValueError, match="'photos' is no bank of this pipeline: it has photo, drawing"):
        prompts(pipe, label_bank="photos")
    assert bank_named("labels.txt", BANKS) == "labels.txt"  # a file


@pytest.mark.parametrize(
    "banks",
    [["photo"], {"photo": ["a dog"]}, {"photo": {"a dog": 1}}, {"photo": {}}, {"photo.txt": PHOTO}, {"": PHOTO}],
    ids=["list", "labels", "number", "empty", "file", "nameless"],
)
def test_what_is_no_bank_is_refused_when_the_pipeline_is_made(banks):
    with pytest.raises(ValueError, match="label bank|label_bank"):
        tiny_diffusion.pipeline(reads="native", label_banks=banks)


def test_banks_are_saved_in_their_order_and_come_back(pipe, folder):
    written = json.loads((Path(folder) / "model_index.json").read_text())["label_banks"]
    loaded = UniBriVLPipeline.from_pretrained(folder)
    for banks in (written, loaded.label_banks):
        assert banks == BANKS and list(banks) == list(BANKS)
        assert [list(bank) for bank in banks.values()] == [list(bank) for bank in BANKS.values()]
    assert prompts(tiny_diffusion.quiet(loaded)) == prompts(pipe)
    assert UniBriVLPipeline.from_pretrained(folder, label_banks={"one": PHOTO}).label_banks == {"one": PHOTO}
    assert UniBriVLPipeline.from_pipe(pipe).label_banks == BANKS
    assert set(StableDiffusionPipeline.from_pretrained(folder).components) < set(pipe.components)


def test_the_other_pipelines_carry_banks_too(tmp_path):
    pipe = tiny_diffusion.xl_pipeline(reads="native", label_banks=BANKS)
    assert set(prompts(pipe, label_bank="drawing")) <= set(DRAWING.values())
    pipe.save_pretrained(tmp_path)
    assert list(UniBriVLXLPipeline.from_pretrained(tmp_path).label_banks) == list(BANKS)


@pytest.mark.parametrize("strategy", ["rerank", "halving"])
def test_a_receipt_of_a_bank_is_replayed(pipe, strategy):
    call = {**CALL, "num_candidates": 4, "label_bank": "drawing", "strategy": strategy}
    output = pipe(audio=sound(), sampling_rate=RATE_HZ, **call, generator=generator())
    receipt = json.loads(json.dumps(output.receipts[0]))
    assert receipt["picture"]["prompt"] in DRAWING.values()
    other = tiny_diffusion.pipeline(reads="native")  # the receipt needs no bank
    again, _, different = replay(other, receipt, (RATE_HZ, sound()))
    assert different == [] and pixel_difference(output.images[0], again) == ""


def test_a_file_may_hold_prompts(pipe, tmp_path):
    (tmp_path / "bank.json").write_text(json.dumps(DRAWING))
    assert read_bank(tmp_path / "bank.json") == DRAWING


def test_the_command_takes_a_banks_name(folder, tmp_path, capsys):
    soundfile.write(tmp_path / "dog.wav", sound(), RATE_HZ)
    call = ["generate", str(tmp_path / "dog.wav"), "--model", folder, "--out", str(tmp_path / "out"), "--quiet"]
    call += ["--steps", "2", "-n", "2", "--size", str(SIDE)]
    assert main([*call, "--label-bank", "photos"]) == 2
    assert "it has photo, drawing" in capsys.readouterr().err
    assert main([*call, "--label-bank", "drawing"]) == 0
    assert read_receipt(tmp_path / "out" / "dog.png")["picture"]["prompt"] in DRAWING.values()
    assert main([*call, "--label-bank", "photo"]) == 2
    assert "other settings (label_bank)" in capsys.readouterr().err


def test_half_precision_on_disk_is_float32_in_memory(pipe, tmp_path):
    """Towers of transformers beside a UNet of diffusers: what is loaded without a dtype works as it is."""
    half = tiny_diffusion.pipeline(reads="native", label_banks=BANKS)
    for part in (half.unet, half.vae, half.text_encoder, half.matcher):
        part.half()
    half.save_pretrained(tmp_path)
    loaded = tiny_diffusion.quiet(UniBriVLPipeline.from_pretrained(tmp_path))
    parts = ("unet", "vae", "text_encoder", "matcher")
    assert {str(getattr(loaded, part).dtype) for part in parts} == {"torch.float32"}
    picture = loaded(audio=sound(), sampling_rate=RATE_HZ, **CALL, output_type="np", generator=generator()).images
    assert np.isfinite(picture).all()
    told = UniBriVLPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {getattr(told, part).dtype for part in parts} == {torch.bfloat16}
    other = UniBriVLPipeline.from_pretrained(tmp_path, dtype={"unet": torch.float16, "default": torch.float32})
    assert (other.unet.dtype, other.matcher.dtype) == (torch.float16, torch.float32)
