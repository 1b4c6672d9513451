"""Changing pictures by sounds without a browser and without Gradio: uploads and wishes in, answers out."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_audio_token
import tiny_page
import torch
from PIL import Image

from unibrivl.app import workshop as workshops
from unibrivl.app.limits import Limits, Refusal
from unibrivl.app.picturing import read_picture
from unibrivl.app.studio import Studio
from unibrivl.audio import load_audio
from unibrivl.data.pictures import open_picture
from unibrivl.pipelines.edit_receipt_audio_token import replay_edit
from unibrivl.pipelines.fitting_audio_token import fitted, grid_of
from unibrivl.pipelines.receipt_unibrivl import read_receipt

QUICK = {"method": "p2p", "steps": 2}


@pytest.fixture(scope="module")
def workshop():
    return tiny_page.workshop(Studio(tiny_page.pipeline(), Limits(megabytes=0.2)))


@pytest.fixture
def sound(tmp_path):
    return tiny_page.write_sound(tmp_path / "dog.wav")


@pytest.fixture
def picture(tmp_path):
    tiny_audio_token.picture(side=48).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


def told(answer) -> str:
    return re.sub(r"<[^>]+>", "", answer.status)


def shown(answer) -> list[str]:
    """Texts of the pictures of an answer."""
    return re.findall(r'alt="([^"]*)"', answer.best)


def test_a_picture_is_shown_before_and_after(workshop, sound, picture):
    steps = []
    listening, heard, done = workshop.edit(
        sound, picture, "a cat", "a <audio>", QUICK, lambda step, of: steps.append((step, of))
    )
    assert told(listening) == "Listening ..." and told(heard).startswith("Heard: ") and "<table" in heard.heard
    assert told(done).startswith("Done: your picture, and what the sound made of it.")
    assert shown(done) == ["Your picture, before the change", "Generated picture, asked for as: a &lt;audio&gt;"]
    assert 'download="cat changed.png"' in done.best and done.best.count("Fit to the sound") == 2
    assert steps == [(1, 2), (2, 2)]


def test_what_is_shown_is_what_the_pipeline_draws(workshop, sound, picture):
    from unibrivl.app.changing import Settings, edit, style

    pipe, heard = workshop.pipe, load_audio(sound, rate_hz=16000)
    embeds = workshop.studio.ear.listen(heard).embeds_1E
    seen = fitted(Image.open(picture), *grid_of(pipe))
    call = {"audio": heard, "num_inference_steps": 2, "guidance_scale": 5.0}
    for method, mine, theirs in (
        ("p2p", {"places": 0.5, "words": 0.5}, {"self_replace_steps": 0.5, "cross_replace_steps": 0.5}),
        ("sdedit", {"strength": 0.9}, {"strength": 0.9}),
    ):
        settings = Settings(method=method, steps=2, seed=3, **mine)
        found = edit(pipe, heard, embeds, seen, "a <audio>", "a cat", settings)
        how = {**call, **theirs, "edit_method": method, "generator": torch.Generator().manual_seed(3)}
        wanted = pipe("a <audio>", seen, source_prompt="a cat", **how)
        assert np.array_equal(np.asarray(found.after), np.asarray(wanted.images[0]))
        assert found.before is seen and len(found.scores) == 2
    found = style(pipe, heard, embeds, None, "a cat", Settings(steps=2, seed=3))
    wanted = pipe.stylize("a cat", generator=torch.Generator().manual_seed(3), **call)
    assert np.array_equal(np.asarray(found.after), np.asarray(wanted.images[0])) and found.before is None
    assert found.scores == pytest.approx((pipe.embed_pictures(wanted.images) @ embeds[0]).tolist(), abs=1e-5)


def test_a_saved_picture_is_made_again_from_its_receipt(workshop, sound, picture, tmp_path):
    """Of edits and of styles, with a picture and without one, as the commands write it."""
    seen = open_picture(picture)

    def saved(answer) -> dict:
        *_, address = re.findall(r'download="[^"]*" href="data:image/png;base64,([^"]*)"', answer.best)
        (tmp_path / "saved.png").write_bytes(base64.b64decode(address))
        return read_receipt(tmp_path / "saved.png")

    for kind, shown_first in (("edit", seen), ("edit", None), ("stylize", seen), ("stylize", None)):
        upload = None if shown_first is None else picture
        asked = ("a cat", "a <audio>") if kind == "edit" else ("a cat",)
        press = workshop.edit if kind == "edit" else workshop.style
        *_, done = press(sound, upload, *asked, QUICK, lambda step, of: None)
        receipt = saved(done)
        assert receipt["kind"] == kind and receipt["replayable"], receipt["why_not"]
        assert (receipt["image"] or {}).get("name") == (upload and "cat.png")
        again, _, different = replay_edit(workshop.pipe, receipt, shown_first)
        assert different == [] and np.array_equal(np.asarray(again), np.asarray(Image.open(tmp_path / "saved.png")))


def test_without_a_picture_both_are_drawn_and_a_seed_is_a_pair(workshop, sound):
    def best(seed):
        *_, done = workshop.edit(sound, None, "a cat", "a <audio>", {**QUICK, "seed": seed})
        return done.best

    assert best(1) == best(1) != best(2)
    assert 'alt="Generated picture, asked for as: a cat"' in best(1)


def test_styles_of_words_and_of_pictures(workshop, sound, picture):
    *_, alone = workshop.style(sound, None, "a cat", QUICK)
    assert shown(alone) == ["Generated picture, asked for as: a cat in the style of &lt;audio&gt;"]
    assert "Done: 1 picture." in told(alone) and "Before" not in alone.best
    *_, changed = workshop.style(sound, picture, "", {**QUICK, "method": "sdedit", "strength": 100})
    assert "Generated picture, asked for as: a photo in the style of &lt;audio&gt;" in shown(changed)
    assert len(shown(changed)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sound": None}, "There is no sound yet"),
        ({"source": " "}, "Say what is in the picture before the change"),
        ({"source": "a <audio>"}, "is said without the sound: leave out &lt;audio&gt;"),
        ({"prompt": "a dog"}, "must speak of the sound once: write &lt;audio&gt;"),
        ({"prompt": "<audio:0> and <audio:1>"}, "must speak of the sound once"),
        ({"prompt": f"{'long ' * 70}<audio>"}, "letters long: 300 are read"),
        ({"prompt": f"{'a dog ' * 45}<audio>"}, "a sound would be cut off"),
        ({"method": "sdedit", "picture": None}, "needs a picture: choose one"),
        ({"method": "magic"}, "cannot change pictures in this way"),
        ({"steps": 1000}, "Steps must be a whole number from 2 to 50"),
        ({"seed": -1}, "Seed must be"),
        ({"method": "sdedit", "strength": 30}, "a strength of 0.3 leaves 0 of 2 steps"),
        ({"strength": 101}, "How much may change must be from 0 to 100"),
        ({"weight": float("nan")}, "How strongly the sound counts must be"),
        ({"guidance": None}, "Guidance must be a number"),
    ],
)
def test_what_a_visitor_can_mend_is_told(workshop, sound, picture, change, words):
    given = {"sound": sound, "picture": picture, "source": "a cat", "prompt": "a <audio>", **change}
    upload = {name: given.pop(name) for name in ("sound", "picture", "source", "prompt")}
    *_, answer = workshop.edit(*upload.values(), {**QUICK, **given})
    assert "Not done" in answer.status and words in answer.status and answer.best is None


def test_style_needs_words_or_a_picture(workshop, sound):
    *_, answer = workshop.style(sound, None, "  ", QUICK)
    assert "Say what to draw" in answer.status


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bad.png", b"this is no picture", "cannot be read: choose a PNG, JPEG or WebP"),
        ("empty.jpg", b"", "cannot be read"),
        ("big.png", bytes(300_000), "larger than 0.2 MB"),
        ("gone.png", None, "no longer here"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read"),
    ],
)
def test_a_bad_picture_is_a_sentence_without_folders(workshop, sound, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    *_, answer = workshop.edit(sound, tmp_path / name, "a cat", "a <audio>", QUICK)
    assert words in answer.status and name in answer.status and str(tmp_path) not in answer.status


def test_a_cut_or_enormous_picture_is_refused(picture, tmp_path, monkeypatch):
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:2000])
    with pytest.raises(Refusal, match=r"\(cut.png\) cannot be read"):
        read_picture(tmp_path / "cut.png", Limits())
    monkeypatch.setattr("unibrivl.app.picturing.MOST_PIXELS", 1000)
    with pytest.raises(Refusal, match="48 x 48 pixels, which are too many"):
        read_picture(picture, Limits())


def test_pictures_are_made_as_large_as_the_model_draws(workshop):
    assert grid_of(workshop.pipe) == (workshop.side, workshop.step) == (32, 8)
    assert fitted(Image.new("RGB", (4000, 3000)), 64, 8).size == (72, 56)
    assert fitted(Image.new("RGB", (4000, 3000)), 64, 16).size == (64, 48)
    assert fitted(Image.new("RGB", (50, 5000)), 64, 8).size == (48, 96)
    assert fitted(Image.new("RGB", (9, 9)), 64, 16).size == (64, 64)


def test_ledits_needs_no_words_for_what_is_there(workshop, sound, picture):
    *_, done = workshop.edit(sound, picture, "", "a <audio>", {"method": "ledits++", "steps": 6})
    assert "Done: your picture, and what the sound made of it." in told(done)


def test_ways_are_those_of_the_base(workshop):
    from diffusers import AutoencoderTiny

    assert list(workshop.methods) == ["p2p", "sdedit", "ledits++"]
    small = tiny_audio_token.pipeline(type(workshop.pipe), vae=AutoencoderTiny(latent_channels=4))
    assert list(workshops.Workshop(small, workshop.studio).methods) == ["p2p", "sdedit"]
    with pytest.raises(ValueError, match="needs a base with an AutoencoderKL, and this one has AutoencoderTiny"):
        small("a <audio>", tiny_audio_token.picture(), audio=np.ones(8000), edit_method="ledits++")


def test_a_fault_of_ours_hides_its_traceback(workshop, sound, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("secret of /srv")

    monkeypatch.setattr(workshops, "edit", broken)
    *_, answer = workshop.edit(sound, None, "a cat", "a <audio>", QUICK)
    assert "on our side" in answer.status and "secret" not in answer.status and "secret of /srv" in caplog.text
