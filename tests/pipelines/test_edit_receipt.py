"""Receipts of edited pictures: to the bit what the plain call gives, and again, without adapter, ears or sound."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_audio_token  # noqa: E402
import tiny_diffusion  # noqa: E402
import torch  # noqa: E402
from diffusers import DDIMScheduler, EulerDiscreteScheduler  # noqa: E402
from tiny_audio_token import picture  # noqa: E402
from tiny_diffusion import RATE_HZ, SIDE, generator, sound  # noqa: E402

from unibrivl.pipelines import AudioTokenEditPipeline, AudioTokenPipeline  # noqa: E402
from unibrivl.pipelines.edit_receipt_audio_token import replay_edit, with_receipt  # noqa: E402
from unibrivl.pipelines.receipt_unibrivl import replay  # noqa: E402

HEARD = {"audio_sampling_rate": RATE_HZ, "num_inference_steps": 2}
SMALL = {"height": SIDE, "width": SIDE}


@pytest.fixture(scope="module")
def pipe():
    return tiny_audio_token.pipeline(AudioTokenEditPipeline)


@pytest.fixture(scope="module")
def bare(pipe):
    """Without what hears."""
    parts = {**pipe.components, "audio_adapter": None, "matcher": None, "matcher_processor": None}
    return tiny_diffusion.quiet(AudioTokenEditPipeline(**parts))


SEEN = {"image": picture(), "source_prompt": "a dog"}
CALLS = {
    "p2p": ("edit", {**SEEN, "audio_weights": 1.5, "negative_prompt": "bad", "local_blend": ("dog", "<audio>")}),
    "mixed": ("edit", {**SEEN, "audio": [sound(1), sound(2)], "audio_mix": "lerp"}),
    "chance": ("edit", {"source_prompt": "a dog", "prompt": "a <audio>", **SMALL}),
    "no sound": ("edit", {**SEEN, "prompt": "a cat", "audio": None}),
    "sdedit": ("edit", {"image": picture(), "edit_method": "sdedit", "prompt": "a <audio>", "strength": 0.7}),
    "ledits": ("edit", {"image": picture(side=64), "edit_method": "ledits++", "prompt": "<audio>"}),
    "drawn": ("stylize", {"prompt": "a dog", **SMALL}),
    "style": ("stylize", {"image": picture()}),
}


@pytest.mark.parametrize(("kind", "call"), CALLS.values(), ids=list(CALLS))
def test_an_edit_comes_again_to_the_bit(pipe, bare, kind, call):
    call = {"audio": sound(), **HEARD, **call}
    output, receipt = with_receipt(pipe, kind, "seen.png", **call, generator=generator())
    plain = (pipe if kind == "edit" else pipe.stylize)(**call, generator=generator())
    assert np.array_equal(np.asarray(plain.images[0]), np.asarray(output.images[0]))
    receipt = json.loads(json.dumps(receipt, allow_nan=False))
    assert receipt["replayable"] and receipt["picture"]["seed"] == generator().initial_seed()
    image, again, different = replay_edit(bare, receipt, call.get("image"))
    assert np.array_equal(np.asarray(image), np.asarray(output.images[0]))
    assert different == [] and json.loads(json.dumps(again)).get("words") == receipt.get("words")
    heard = [] if call["audio"] is None else call["audio"] if isinstance(call["audio"], list) else [call["audio"]]
    assert len({one["sha256"] for one in receipt["audio"]["sounds"]}) == len(heard)


@pytest.mark.parametrize("method", ["p2p", "ledits++"])
def test_a_scheduler_of_defaults_comes_again_as_it_was(method):
    """diffusers' pipeline mends its config, and a receipt has the mended one."""
    other = tiny_audio_token.pipeline(AudioTokenEditPipeline, scheduler=DDIMScheduler())
    call = {"image": picture(side=64), "source_prompt": "a dog", "audio": sound(), "edit_method": method, **HEARD}
    output, receipt = with_receipt(other, **call, generator=generator())
    image, _, different = replay_edit(other, json.loads(json.dumps(receipt)), picture(side=64))
    assert np.array_equal(np.asarray(image), np.asarray(output.images[0])) and different == []


def test_without_a_generator_the_state_is_kept(pipe, bare):
    torch.manual_seed(11)
    call = {"image": picture(), "edit_method": "sdedit", "audio": sound(), **HEARD}
    output, receipt = with_receipt(pipe, **call)
    torch.manual_seed(12)
    image, _, different = replay_edit(bare, json.loads(json.dumps(receipt)), picture())
    assert np.array_equal(np.asarray(image), np.asarray(output.images[0])) and different == []


def test_the_picture_has_to_be_the_one_that_was_changed(pipe, bare):
    call = {**SEEN, "audio": sound(), **HEARD}
    _, receipt = with_receipt(pipe, name="seen.png", **call)
    assert "seen.png" in json.dumps(receipt) and receipt["image"]["size"] == [SIDE, SIDE]
    with pytest.raises(ValueError, match="seen.png was changed here"):
        replay_edit(bare, receipt)
    with pytest.raises(ValueError, match=f"not the picture that was changed .seen.png, {SIDE} x {SIDE}"):
        replay_edit(bare, receipt, picture(1))
    one_less = picture()
    one_less.putpixel((0, 0), tuple(255 - value for value in one_less.getpixel((0, 0))))
    with pytest.raises(ValueError, match="its pixels are others"):
        replay_edit(bare, receipt, one_less)
    planted = {**receipt, "call": {**receipt["call"], "negative_audio": "secret.wav"}}
    with pytest.raises(ValueError, match="tampered"):
        replay_edit(bare, planted, picture())
    _, receipt = with_receipt(pipe, source_prompt="a dog", audio=sound(), **HEARD, **SMALL)
    with pytest.raises(ValueError, match="changed none"):
        replay_edit(bare, receipt, picture())


def test_what_is_different_is_said(pipe):
    call = {**SEEN, "audio": sound(), **HEARD}
    output, receipt = with_receipt(pipe, **call, generator=generator())
    other = tiny_audio_token.pipeline(AudioTokenEditPipeline, seed=1)
    image, _, different = replay_edit(other, receipt, picture())
    assert not np.array_equal(np.asarray(image), np.asarray(output.images[0]))
    assert any(one.startswith("unet: other weights") for one in different)
    scheduler = pipe.scheduler
    try:  # the receipt's own scheduler draws, whatever the pipeline has by now
        pipe.scheduler = EulerDiscreteScheduler.from_config(scheduler.config)
        image, _, different = replay_edit(pipe, receipt, picture())
    finally:
        pipe.scheduler = scheduler
    assert np.array_equal(np.asarray(image), np.asarray(output.images[0])) and different == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"callback_on_step_end": lambda pipe, step, timestep, tensors: tensors}, "callback_on_step_end may have"),
        ({"source_audio": sound(2), "source_prompt": None}, "source_audio was a ndarray"),
        ({"image": torch.rand(1, 3, SIDE, SIDE)}, "no RGB picture of Pillow"),
    ],
)
def test_what_cannot_be_written_down_is_not_replayable(pipe, bare, more, words):
    call = {**SEEN, "audio": sound(), **HEARD, **more}
    output, receipt = with_receipt(pipe, **call)
    assert np.array_equal(np.asarray(pipe(**call).images[0]), np.asarray(output.images[0]))
    assert not receipt["replayable"] and words in receipt["why_not"][0]
    with pytest.raises(ValueError, match="cannot be made again"):
        replay_edit(bare, receipt, picture())


def test_receipts_are_of_one_picture_and_of_one_kind(pipe, bare):
    call = {"source_prompt": "a dog", "audio": sound(), **HEARD, **SMALL}
    for more, words in (
        ({"prompt": ["a <audio>"] * 2}, "2 prompts"),
        ({"generator": [generator()] * 2}, "2 generators"),
    ):
        with pytest.raises(ValueError, match=words):
            with_receipt(pipe, **call, **more)
    with pytest.raises(ValueError, match="kind is one of edit, stylize"):
        with_receipt(pipe, "draw", **call)
    _, receipt = with_receipt(pipe, **call)
    spoken = tiny_audio_token.pipeline(AudioTokenPipeline)
    with pytest.raises(ValueError, match="made again by AudioTokenEditPipeline, and this is AudioTokenPipeline"):
        replay_edit(spoken, receipt)
    with pytest.raises(ValueError, match="replay_edit"):
        replay(spoken, receipt)
    ranked = spoken("a <audio>", audio=sound(), num_candidates=1, generator=generator(), **HEARD, **SMALL).receipts[0]
    with pytest.raises(ValueError, match="not edited"):
        replay_edit(bare, ranked)
