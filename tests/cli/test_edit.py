"""`unibrivl edit` and `unibrivl stylize` on tiny components: pictures come out, what is wrong is said in a line."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_audio_token  # noqa: E402
from tiny_pairs import tone  # noqa: E402

from unibrivl.cli import main  # noqa: E402
from unibrivl.modeling import AudioCue  # noqa: E402


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edit")
    pipe = tiny_audio_token.pipeline()
    pipe.save_pretrained(folder / "base")
    tiny_audio_token.picture().save(folder / "seen.png")
    tone(folder / "tone.wav", 440.0)
    words = pipe.encode_audio(folder / "tone.wav")["text_encoder"][0]
    AudioCue.for_base({"text_encoder": words}, {"text_encoder": pipe.text_encoder}).save(folder / "cue.safetensors")
    return folder


def asked(place, *words: str) -> int:
    return main([*words, "--model", str(place / "base"), "--steps", "3", "--quiet"])


def drawn(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.float32)


@pytest.mark.parametrize("method", ["p2p", "sdedit"])
def test_a_sound_or_its_cue_edits_a_picture(place, method):
    call = ["edit", str(place / "seen.png"), "--source-prompt", "a dog", "--method", method]
    assert asked(place, *call, "--audio", str(place / "tone.wav"), "--out", str(place / f"{method}.png")) == 0
    assert asked(place, *call, "--cue", str(place / "cue.safetensors"), "--out", str(place / f"{method}_cue.png")) == 0
    assert np.array_equal(drawn(place / f"{method}.png"), drawn(place / f"{method}_cue.png"))


def test_styles_are_drawn(place):
    call = ["stylize", "--audio", str(place / "tone.wav")]
    assert asked(place, *call, "a dog", "--out", str(place / "new.png")) == 0
    assert asked(place, *call, "--image", str(place / "seen.png"), "--out", str(place / "changed.jpg")) == 0
    assert not np.array_equal(drawn(place / "new.png"), drawn(place / "changed.jpg"))


def test_a_picture_is_made_as_large_as_the_base_draws(place):
    tiny_audio_token.picture(side=128).resize((128, 64)).save(place / "wide.png")
    call = [str(place / "wide.png"), "--audio", str(place / "tone.wav"), "--out", str(place / "fitted.png")]
    assert asked(place, "edit", *call, "--source-prompt", "a dog") == 0
    assert drawn(place / "fitted.png").shape == (24, 48, 3)  # about 32 x 32, on a grid of 8
    assert asked(place, "edit", *call, "--source-prompt", "a dog", "--keep-size") == 0
    assert drawn(place / "fitted.png").shape == (64, 128, 3)
    assert asked(place, "stylize", "--image", *call) == 0
    assert drawn(place / "fitted.png").shape == (24, 48, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["edit", "seen.png", "--audio", "tone.wav", "--out", "x.gif"], "must end in .png or .jpg"),
        (["edit", "none.png", "--audio", "tone.wav", "--out", "x.png"], "none.png"),
        (["edit", "seen.png", "--audio", "none.wav", "--out", "x.png", "--source-prompt", "a"], "none.wav"),
        (["edit", "seen.png", "--audio", "tone.wav", "--out", "x.png"], "source_prompt="),
        (["stylize", "--audio", "tone.wav", "--out", "x.png"], "say what to draw"),
    ],
)
def test_what_is_wrong_is_one_line(place, capsys, monkeypatch, call, words):
    monkeypatch.chdir(place)
    assert asked(place, *call) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_edits_and_styles_are_replayed(place, capsys):
    """From the file as it was before it was made small enough, and without a sound."""
    tiny_audio_token.picture(side=128).resize((128, 64)).save(place / "wide.png")
    calls = {
        "edit": ["edit", str(place / "wide.png"), "--source-prompt", "a dog", "--audio", str(place / "tone.wav")],
        "style": ["stylize", "--image", str(place / "wide.png"), "--cue", str(place / "cue.safetensors")],
        "drawn": ["stylize", "a dog", "--audio", str(place / "tone.wav")],
    }
    for name, call in calls.items():
        out = str(place / f"{name}.png")
        assert asked(place, *call, "--out", out) == 0
        again = ["replay", out, "--model", str(place / "base"), "--device", "cpu", "--quiet"]
        seen = [] if name == "drawn" else ["--picture", str(place / "wide.png")]
        assert main([*again, *seen, "--out", str(place / "again.png")]) == 0, capsys.readouterr()
        assert "the pixels are equal bit for bit" in capsys.readouterr().out
    assert main(["replay", str(place / "again.png"), *again[2:]]) == 0  # the receipt of a replay is as good
    for more, words in (
        ([], "wide.png was changed here: say where it is with --picture"),
        (["--picture", str(place / "seen.png")], "not the picture that was changed"),
        (["--picture", str(place / "wide.png"), "--audio", str(place / "tone.wav")], "leave --audio out"),
        (["--picture", str(place / "wide.png"), "--offload"], "not with --offload"),
    ):
        capsys.readouterr()
        assert main(["replay", str(place / "edit.png"), "--model", str(place / "base"), *more]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
