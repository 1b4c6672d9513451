"""Receipts of pictures with sounds as words: they hold the words, and the picture is drawn again from them alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")

import soundfile  # noqa: E402
import tiny_audio_token  # noqa: E402
import tiny_diffusion  # noqa: E402
from tiny_diffusion import RATE_HZ, SIDE, generator, sound  # noqa: E402

from unibrivl.cli import main  # noqa: E402
from unibrivl.pipelines import AudioTokenPipeline  # noqa: E402
from unibrivl.pipelines.receipt_unibrivl import replay, save_png  # noqa: E402

DRAWN = {"num_inference_steps": 2, "height": SIDE, "width": SIDE}
HEARD = {**DRAWN, "audio_sampling_rate": RATE_HZ}


@pytest.fixture(scope="module")
def pipe():
    return tiny_audio_token.pipeline()


@pytest.mark.parametrize(
    "call",
    [
        {"prompt": "a <audio>", "audio_weights": 1.5, "negative_prompt": "bad"},
        {"prompt": ["a <audio>", "big <audio>"], "num_candidates": 3},
        {"prompt": "<audio:0> and <audio:1>", "audio": [sound(1), sound(2)], "audio_weights": [1.0, 0.5]},
        {"prompt": "a <audio>", "negative_prompt": "no <audio>", "negative_audio": sound(3)},
    ],
    ids=["weighted", "prompts", "sounds", "negative"],
)
def test_receipts_hold_the_words_and_replay_to_the_bit(pipe, call):
    """Also by a pipeline that has neither adapter nor ears: the words are in the receipt."""
    call = {"audio": sound(), "num_candidates": 2, "generator": generator(), **HEARD, **call}
    output = pipe(**call)
    bare = tiny_diffusion.quiet(AudioTokenPipeline(**{**pipe.components, "audio_adapter": None}))
    for number, receipt in enumerate(output.receipts):
        receipt = json.loads(json.dumps(receipt))
        assert receipt["replayable"]
        given = [(RATE_HZ, sound())] * len(receipt["audio"].get("sounds", []))
        image, again, different = replay(bare, receipt, given)
        assert np.array_equal(np.asarray(image), np.asarray(output.images[number]))
        assert different == [] and again["words"] == receipt["words"]
    with pytest.raises(ValueError, match="drawn again by AudioTokenPipeline, and this is UniBriVLPipeline"):
        replay(tiny_diffusion.pipeline(), receipt, given)


def test_words_of_another_base_are_not_replayed(pipe, monkeypatch):
    call = {"num_candidates": 1, "generator": generator(), **HEARD}
    receipt = pipe("a <audio>", audio=sound(), **call).receipts[0]
    with pytest.raises(ValueError, match="words for text_encoder, and this base has text_encoder, text_encoder_2"):
        replay(tiny_audio_token.xl_pipeline(), receipt, [(RATE_HZ, sound())])
    monkeypatch.setattr("unibrivl.pipelines.words_receipt_unibrivl.FIT_IN_A_RECEIPT", 8)
    receipt = pipe("a <audio>", audio=sound(), **call).receipts[0]
    assert not receipt["replayable"] and "too many for a receipt" in receipt["why_not"][0]


def test_the_command_replays_a_picture_with_a_sound_in_its_prompt(pipe, tmp_path, capsys):
    soundfile.write(tmp_path / "dog.wav", sound(), RATE_HZ, subtype="FLOAT")
    pipe.save_pretrained(tmp_path / "model")
    call = {**DRAWN, "num_candidates": 2, "generator": generator()}
    output = pipe("a <audio>", audio=str(tmp_path / "dog.wav"), **call)
    save_png(output.images[0], output.receipts[0], tmp_path / "dog.png")
    asked = ["replay", str(tmp_path / "dog.png"), "--model", str(tmp_path / "model"), "--device", "cpu", "--quiet"]
    assert main([*asked, "--audio", str(tmp_path / "dog.wav")]) == 0, capsys.readouterr()
    assert "the pixels are equal bit for bit" in capsys.readouterr().out
