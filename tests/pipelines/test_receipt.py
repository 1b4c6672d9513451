"""Receipts: plain values that make the same picture again, bit for bit, or say what is different."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_diffusion
from diffusers import EulerAncestralDiscreteScheduler
from PIL import Image, PngImagePlugin

from unibrivl.pipelines.fingerprint_unibrivl import fingerprint_of, mark_of
from unibrivl.pipelines.receipt_unibrivl import (
    arguments_of,
    differences,
    pixel_difference,
    public_name,
    read_receipt,
    replay,
    save_png,
)

SMALL = {"num_inference_steps": 4, "height": 32, "width": 32, "sampling_rate": tiny_diffusion.RATE_HZ}
HEARD = (tiny_diffusion.RATE_HZ, tiny_diffusion.sound(seconds=0.3))


@pytest.fixture(scope="module")
def pipe():
    return tiny_diffusion.pipeline(reads="native")


@pytest.fixture(scope="module")
def drawn(pipe):
    return pipe(audio=HEARD, num_candidates=4, generator=tiny_diffusion.generator(3), **SMALL)


def through_a_file(image, receipt, tmp_path):
    save_png(image, receipt, tmp_path / "picture.png")
    return Image.open(tmp_path / "picture.png"), read_receipt(tmp_path / "picture.png")


CALLS = {
    "halving": {"num_candidates": 6},
    "one candidate of the global generator": {"strategy": "rerank", "num_candidates": 1, "generator": None},
    "one prompt, two pictures": {
        "prompt": "a dog",
        "strategy": "rerank",
        "num_candidates": 3,
        "num_images_per_prompt": 2,
    },
    "windows": {"windows": True, "num_candidates": 2},
    "volume": {"volume": [-20, 0], "num_candidates": 2},
    "text": {"text": "at night", "text_weight": 0.3, "negative_prompt": "blurred", "num_candidates": 2},
    "readings of unequal shares": {"label_bank": [["a dog", "a dog", "a dog", "rain"]], "num_candidates": 8},
    "cut into pieces": {"max_rows": 3, "num_candidates": 4},
    "a generator that has moved": {"num_candidates": 1, "prompt": "a dog", "generator": "moved"},
}


@pytest.mark.parametrize("name", CALLS)
def test_a_receipt_makes_the_same_pixels(name, pipe, tmp_path):
    call = {"generator": tiny_diffusion.generator(7), **CALLS[name]}
    if call["generator"] == "moved":
        call["generator"] = tiny_diffusion.generator(7)
        torch.randn(3, generator=call["generator"])
    heard = (tiny_diffusion.RATE_HZ, tiny_diffusion.sound(seconds=11)) if "windows" in call else HEARD
    output = pipe(audio=heard, **SMALL, **call)
    assert len(output.receipts) == len(output.images)
    for image, receipt in zip(output.images, output.receipts, strict=True):
        saved, found = through_a_file(image, receipt, tmp_path)
        assert found == json.loads(json.dumps(receipt))
        again, new, different = replay(pipe, found, heard)
        assert different == []
        assert pixel_difference(saved, again) == ""
        assert new["picture"] == found["picture"]


@pytest.mark.parametrize("strategy", ["guide", "guide+halving"])
def test_a_receipt_of_sdxl_makes_the_same_pixels(strategy):
    xl = tiny_diffusion.xl_pipeline(reads="native")
    call = {"strategy": strategy, "num_candidates": 2, "crops_coords_top_left": (0, 4), "prompt_2": "a cat"}
    output = xl("a dog", audio=HEARD, generator=tiny_diffusion.generator(5), **SMALL, **call)
    again, _, different = replay(xl, json.loads(json.dumps(output.receipts[0])), HEARD)
    assert different == [] and pixel_difference(output.images[0], again) == ""
    assert output.receipts[0]["strategy"]["name"] == strategy


def test_the_scheduler_and_the_vae_are_those_of_the_receipt_and_then_ones_own_again(pipe, tmp_path):
    own = pipe.scheduler
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(own.config)
    pipe.vae.enable_slicing()
    output = pipe("a dog", audio=HEARD, num_candidates=2, generator=tiny_diffusion.generator(1), **SMALL)
    pipe.scheduler = own
    pipe.vae.disable_slicing()
    again, new, different = replay(pipe, output.receipts[0], HEARD)
    assert different == [] and pixel_difference(output.images[0], again) == ""
    assert new["scheduler"]["class"] == "EulerAncestralDiscreteScheduler"
    assert pipe.scheduler is own and not pipe.vae.use_slicing


def test_embeddings_travel_inside_the_receipt(pipe):
    embeds = 2 * pipe.encode_query(HEARD).embeds
    output = pipe("a dog", audio_embeds=embeds, num_candidates=2, generator=tiny_diffusion.generator(), **{
        name: value for name, value in SMALL.items() if name != "sampling_rate"
    })  # fmt: skip
    again, _, different = replay(pipe, json.loads(json.dumps(output.receipts[0])))
    assert different == [] and pixel_difference(output.images[0], again) == ""


def test_a_sweep_of_gains_draws_from_the_same_random_numbers(pipe):
    output = pipe("a dog", audio=HEARD, volume=[-20, 0, 10], num_candidates=2, strategy="rerank", keep_candidates=True,
                  generator=tiny_diffusion.generator(2), **SMALL)  # fmt: skip
    assert output.labels == ["-20 dB", "0 dB", "+10 dB"]
    by_gain = [
        {one.seed: np.asarray(one.image) for one in output.candidates if one.sound == gain} for gain in range(3)
    ]
    assert by_gain[0].keys() == by_gain[1].keys() == by_gain[2].keys()
    for seed, image in by_gain[0].items():
        apart = np.asarray(image, dtype=int) - np.asarray(by_gain[2][seed], dtype=int)
        assert np.abs(apart).max() <= 1  # the same candidates, ranked by each loudness


def test_it_says_what_a_reader_wants_to_know(drawn, pipe):
    receipt = drawn.receipts[0]
    assert receipt["replayable"] and receipt["why_not"] == []
    assert receipt["call"]["num_inference_steps"] == 4 and receipt["call"]["height"] == 32
    assert receipt["call"]["guidance_scale"] == 7.5  # the pipeline's own default
    assert receipt["strategy"]["name"] == "halving" and receipt["strategy"]["num_candidates"] == 4
    assert {"unet", "vae", "text_encoder", "matcher"} <= receipt["models"].keys()
    assert receipt["versions"]["torch"] == torch.__version__
    assert receipt["machine"]["dtype"] == "float32"
    assert len(receipt["candidates"]) == 4
    best = receipt["candidates"][0]
    assert best == {key: receipt["picture"][key] for key in ("prompt", "seed", "score")}
    assert drawn.scores[0] == receipt["picture"]["score"]


def test_it_holds_no_private_place(pipe, tmp_path):
    import soundfile

    path = tmp_path / "secret-client" / "dog.wav"
    path.parent.mkdir()
    soundfile.write(path, HEARD[1], HEARD[0])
    pipe.save_pretrained(tmp_path / "secret-client" / "model")
    loaded = tiny_diffusion.quiet(type(pipe).from_pretrained(tmp_path / "secret-client" / "model"))
    output = loaded("a dog", audio=path, num_candidates=1, **SMALL | {"sampling_rate": None})
    said = json.dumps(output.receipts[0])
    assert "secret-client" not in said and str(tmp_path) not in said
    assert output.receipts[0]["audio"]["sounds"][0]["name"] == "dog.wav"
    assert output.receipts[0]["base"] == "model"
    assert replay(pipe, output.receipts[0], path)[2][:1] == []  # the same weights, from memory and from files


class Named:
    def __init__(self, name, commit=None):
        self.config = type("Config", (), {"_name_or_path": name, "_commit_hash": commit})()


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("org/model", "org/model"),
        ("hub/models--org--model/snapshots/0a1b2c/unet", "org/model@0a1b2c"),
        ("somewhere/private/base/unet", "base"),
        ("C:\\Users\\anna\\base\\unet", "base"),
        ("./base", "base"),
        ("", None),
    ],
)
def test_names_of_models_say_where_they_are_for_everybody(name, public):
    assert public_name(Named(name), "unet") == public


def test_a_name_on_the_hub_has_its_revision():
    assert public_name(Named("org/model", "0a1b")) == "org/model@0a1b"


# ---- what cannot be written down


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"callback_on_step_end": lambda pipe, step, time, tensors: tensors}, "callback_on_step_end"),
        ({"latents": torch.randn(1, 4, 16, 16)}, "latents"),
        ({"prompt": None, "prompt_embeds": torch.randn(1, 77, 32), "guidance_scale": 1.0}, "prompt_embeds"),
    ],
    ids=["callback", "latents", "prompt_embeds"],
)
def test_arguments_that_cannot_be_written_down_say_so(arguments, why, pipe):
    output = pipe(**{"prompt": "a dog", "audio": HEARD, "num_candidates": 1, **SMALL, **arguments})
    receipt = json.loads(json.dumps(output.receipts[0]))
    assert not receipt["replayable"] and why in receipt["why_not"][0]
    with pytest.raises(ValueError, match=f"cannot be made again.*{why}"):
        replay(pipe, receipt, HEARD)


def test_a_callback_that_only_watches_does_no_harm(pipe):
    seen = []

    def watch(pipe, step, timestep, tensors):
        seen.append(len(tensors["latents"]))
        return tensors

    watch.only_watches = True
    output = pipe("a dog", audio=HEARD, num_candidates=5, callback_on_step_end=watch, **SMALL)
    assert output.receipts[0]["replayable"] and len(seen) == 4 and seen[-1] == 1


# ---- differences


def test_another_sound_is_named(drawn, pipe):
    other = (tiny_diffusion.RATE_HZ, tiny_diffusion.sound(9, 0.4))
    _, _, different = replay(pipe, drawn.receipts[0], other)
    assert len(different) == 1 and "another sound" in different[0] and "0.4 s instead of 0.3 s" in different[0]


def test_as_many_sounds_are_wanted_as_were_heard(pipe):
    output = pipe("a dog", audio=[HEARD, HEARD], num_candidates=1, **SMALL)
    with pytest.raises(ValueError, match=r"heard 2 \(sound 0, sound 1\), and 1 are given"):
        replay(pipe, output.receipts[0], HEARD)
    assert replay(pipe, output.receipts[1], [HEARD, HEARD])[2] == []


def test_other_weights_are_named(drawn, pipe):
    other = tiny_diffusion.pipeline(seed=1, reads="native")
    image, _, different = replay(other, drawn.receipts[0], HEARD)
    assert [line.split(":")[0] for line in different] == ["text_encoder", "unet", "vae"]
    assert "% of the pixels differ" in pixel_difference(drawn.images[0], image)


def test_versions_and_machines_are_named(drawn):
    before = copy.deepcopy(drawn.receipts[0])
    now = copy.deepcopy(before)
    now["versions"]["torch"], now["machine"]["chip"], now["models"]["matcher"]["fingerprint"] = "9.9", "an abacus", "f"
    said = "\n".join(differences(before, now))
    assert (
        "torch: 9.9 instead of" in said and "chip: an abacus instead of" in said and "matcher: other weights" in said
    )
    del now["models"]["vae"]
    assert "vae: missing now" in "\n".join(differences(before, now))


def test_a_scheduler_that_is_none_is_refused(drawn, pipe):
    receipt = copy.deepcopy(drawn.receipts[0])
    for name in ("AutoencoderKL", "os", "Nowhere"):
        receipt["scheduler"]["class"] = name
        with pytest.raises(ValueError, match="is none of diffusers"):
            replay(pipe, receipt, HEARD)


def test_pixels_apart_in_words():
    black, other = Image.new("RGB", (10, 10)), Image.new("RGB", (10, 10))
    other.putpixel((0, 0), (0, 30, 0))
    assert pixel_difference(black, other).startswith("1.0 % of the pixels differ, by 0.10 of 255 on average and 30")
    assert pixel_difference(black, Image.new("RGB", (5, 10))) == "5x10 pixels instead of 10x10"


# ---- files


def test_a_picture_without_a_receipt_says_so(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(ValueError, match="carries no receipt"):
        read_receipt(tmp_path / "plain.png")
    for text, what in (("{", "no JSON"), ("[]", "not of version"), ('{"receipt": 99}', "not of version")):
        about = PngImagePlugin.PngInfo()
        about.add_text("unibrivl", text)
        Image.new("RGB", (4, 4)).save(tmp_path / "odd.png", pnginfo=about)
        with pytest.raises(ValueError, match=what):
            read_receipt(tmp_path / "odd.png")


def test_a_file_is_whole_or_not_there(drawn, tmp_path):
    class Breaks:
        def save(self, *args, **kwargs):
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        save_png(Breaks(), drawn.receipts[0], tmp_path / "picture.png")
    assert list(tmp_path.iterdir()) == []


# ---- fingerprints


def test_a_fingerprint_follows_the_weights_and_not_the_place():
    layer = torch.nn.Linear(40, 30)
    twin = copy.deepcopy(layer)
    first = fingerprint_of(layer)
    assert fingerprint_of(twin) == first
    with torch.no_grad():
        layer.weight.add_(1)
    second = fingerprint_of(layer)
    layer.weight.data.copy_(twin.weight.data)  # as averages of weights are swapped in, behind autograd's back
    assert second != first and fingerprint_of(layer) == first
    assert fingerprint_of(twin.half()) != first


def test_a_fingerprint_is_computed_once(monkeypatch):
    from unibrivl.pipelines import fingerprint_unibrivl

    layer, sampled = torch.nn.Linear(4, 3), []
    original = fingerprint_unibrivl.sample_of
    monkeypatch.setattr(fingerprint_unibrivl, "sample_of", lambda tensor: sampled.append(1) or original(tensor))
    first = fingerprint_of(layer)
    assert fingerprint_of(layer) == first and len(sampled) == 2
    mark = mark_of(layer)
    layer.weight.data = layer.weight.data.clone()  # as a move to another device does
    assert mark_of(layer) == mark


def test_a_lora_is_part_of_the_fingerprint():
    pytest.importorskip("peft")
    from peft import LoraConfig

    unet = tiny_diffusion.unet()
    plain = fingerprint_of(unet)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights="gaussian"), "style")
    with_lora = fingerprint_of(unet)
    unet.set_adapters(["style"], [0.5])
    assert len({plain, with_lora, fingerprint_of(unet)}) == 3
    unet.disable_adapters()
    assert fingerprint_of(unet) != with_lora


def test_arguments_of_a_receipt_are_a_call(drawn):
    call = arguments_of(json.loads(json.dumps(drawn.receipts[0])), HEARD)
    assert call["audio"] == [HEARD] and call["strategy"].name == "halving"
    assert len(call["generator"]) == 4 and call["label_bank"] == drawn.receipts[0]["prompts"]
