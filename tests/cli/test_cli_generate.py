"""`unibrivl generate` and `unibrivl replay`: a folder of sounds to pictures, stopped and gone on with, made again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_diffusion
from PIL import Image

from unibrivl.audio import Waveform
from unibrivl.cli import main
from unibrivl.cli.contact_sheet import MARGIN, WIDTH, Row, Shown, contact_sheet, fitted, wrapped
from unibrivl.pipelines.receipt_unibrivl import read_receipt, save_png

SMALL = ["--steps", "4", "--size", "32", "-n", "4", "--quiet"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_diffusion.pipeline(reads="native").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "farm").mkdir()
    for seed, name in enumerate(("dog.wav", "rain.wav", "farm/dog.wav")):
        soundfile.write(folder / name, tiny_diffusion.sound(seed, 0.3), tiny_diffusion.RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def made(model, sounds, tmp_path_factory):
    """A run over the folder: three sounds, two of one name."""
    out = tmp_path_factory.mktemp("made") / "out"
    assert main(["generate", str(sounds), "--model", model, "--out", str(out), *SMALL]) == 0
    return out


def test_each_sound_has_its_picture_its_json_and_its_sheet(made):
    names = {path.name for path in made.iterdir()}
    stems = ("dog", "dog.wav", "rain")
    assert names == {f"{stem}{suffix}" for stem in stems for suffix in (".png", ".json", ".sheet.png")}
    for stem in stems:
        told = json.loads((made / f"{stem}.json").read_text())
        receipt = read_receipt(made / f"{stem}.png")
        assert Image.open(made / f"{stem}.png").size == (32, 32)
        assert told["pictures"][0]["score"] == receipt["picture"]["score"]
        assert told["pictures"][0]["prompt"].startswith("a photo of ")
        assert len(told["candidates"]) == 4 and len({one["seed"] for one in told["candidates"]}) == 4
        assert receipt["replayable"] and receipt["audio"]["sounds"][0]["name"] == told["sound"]["name"]


def test_a_sound_draws_the_same_alone_as_in_a_folder(made, model, sounds, tmp_path):
    assert main(["generate", str(sounds / "rain.wav"), "--model", model, "--out", str(tmp_path), *SMALL]) == 0
    assert np.array_equal(Image.open(tmp_path / "rain.png"), Image.open(made / "rain.png"))


def test_what_is_whole_stays_and_the_rest_is_drawn_again(made, model, sounds, monkeypatch):
    before = (made / "dog.png").stat().st_mtime_ns
    content = (made / "rain.png").read_bytes()
    (made / "rain.json").write_text((made / "rain.json").read_text()[:100])  # cut short
    (made / "rain.png").unlink()
    assert main(["generate", str(sounds), "--model", model, "--out", str(made), *SMALL]) == 0
    assert (made / "dog.png").stat().st_mtime_ns == before
    assert (made / "rain.png").read_bytes() == content
    from unibrivl.cli import generate

    monkeypatch.setattr(generate, "load_pipeline", None)  # nothing is left to do: no model is loaded
    assert main(["generate", str(sounds), "--model", model, "--out", str(made), *SMALL]) == 0


def test_other_settings_are_refused_rather_than_drawn_over(made, model, sounds, capsys):
    call = ["generate", str(sounds), "--model", model, "--out", str(made), *SMALL, "--seed", "1"]
    assert main(call) == 2
    assert "other settings (seed)" in capsys.readouterr().err


def test_a_run_that_is_stopped_leaves_whole_results_only(model, sounds, tmp_path, monkeypatch, capsys):
    from unibrivl.cli import contact_sheet as sheets

    original, drawn = sheets.contact_sheet, []

    def stop_at_the_second(*args):
        drawn.append(1)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(sheets, "contact_sheet", stop_at_the_second)
    call = ["generate", str(sounds), "--model", model, "--out", str(tmp_path), *SMALL]
    assert main(call) == 130
    assert [path.name for path in tmp_path.glob("*.json")] == ["dog.json"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert main(call) == 0
    assert len(list(tmp_path.glob("*.json"))) == 3
    assert "stopped" in capsys.readouterr().err


def test_a_sound_that_cannot_be_heard_does_not_stop_the_others(model, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "broken.wav").write_bytes(b"not a sound")
    soundfile.write(folder / "silent.wav", np.zeros(8000, np.float32), 16000)
    soundfile.write(folder / "dog.wav", tiny_diffusion.sound(), 16000)
    out = tmp_path / "out"
    assert main(["generate", str(folder), "--model", model, "--out", str(out), *SMALL]) == 1
    said = capsys.readouterr().err
    assert "broken.wav: it is not a sound" in said and "silent" in said
    assert sorted(path.name for path in out.iterdir()) == ["dog.json", "dog.png", "dog.sheet.png"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--windows"], ["long.000.png", "long.001.png"]),
        (["--volume=-20,0"], ["long.-20dB.png", "long.0dB.png"]),
        (["--pictures", "2", "--text", "at night", "--strategy", "rerank"], ["long.2.png", "long.png"]),
    ],
    ids=["windows", "volume", "pictures"],
)
def test_several_pictures_of_a_sound(options, names, model, tmp_path):
    soundfile.write(tmp_path / "long.wav", tiny_diffusion.sound(seconds=11), 16000)
    out = tmp_path / "out"
    call = [
        "generate",
        str(tmp_path / "long.wav"),
        "--model",
        model,
        "--out",
        str(out),
        "--steps",
        "2",
        "--size",
        "32",
    ]
    assert main([*call, "-n", "2", "--quiet", *options]) == 0
    assert sorted(path.name for path in out.glob("*.png") if "sheet" not in path.name) == names
    told = json.loads((out / "long.json").read_text())
    assert sorted(one["file"] for one in told["pictures"]) == names
    if options == ["--windows"]:
        assert [one["window_s"] for one in told["pictures"]] == [[0, 10], [10, 11]]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["nowhere.wav"], "nowhere.wav"),
        (["--size", "100"], "multiples of 8"),
        (["--volume", "loud"], "decibels"),
        (["--strategy", "guess"], "no strategy 'guess'"),
        (["-n", "0"], "at least 1"),
        (["--pictures", "0"], "at least 1"),
        (["--label-bank", "bank.xls"], "end in .txt"),
        (["--windows", "--volume=0,6"], "together"),
    ],
    ids=["missing", "size", "volume", "strategy", "candidates", "pictures", "bank", "modes"],
)
def test_wrong_questions_are_answered_in_a_line(options, what, model, sounds, tmp_path, capsys):
    call = ["generate", "--model", model, "--out", str(tmp_path), *SMALL, *options]
    if not options[0].endswith(".wav"):
        call.insert(1, str(sounds / "dog.wav"))
    try:
        code = main(call)
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr().err
    assert code == 2 and what in said and "Traceback" not in said


def test_a_base_without_a_matcher_wants_one(sounds, tmp_path, capsys):
    tiny_diffusion.pipeline(matcher=None, matcher_processor=None).save_pretrained(tmp_path / "base")
    call = [
        "generate",
        str(sounds / "dog.wav"),
        "--model",
        str(tmp_path / "base"),
        "--out",
        str(tmp_path / "o"),
        *SMALL,
    ]
    assert main(call) == 2
    assert "add --matcher" in capsys.readouterr().err


# ---- replay


def test_a_replay_is_equal_bit_for_bit(made, model, sounds, tmp_path, capsys):
    new = tmp_path / "new.png"
    call = ["replay", str(made / "rain.png"), "--audio", str(sounds / "rain.wav"), "--model", model, "--quiet"]
    assert main([*call, "--out", str(new)]) == 0
    assert "equal bit for bit" in capsys.readouterr().out
    assert np.array_equal(Image.open(new), Image.open(made / "rain.png"))
    assert read_receipt(new)["picture"] == read_receipt(made / "rain.png")["picture"]


def test_a_replay_says_what_is_different(made, sounds, tmp_path, capsys):
    other = str(tmp_path / "other")
    tiny_diffusion.pipeline(seed=3, reads="native").save_pretrained(other)
    edited = read_receipt(made / "rain.png")
    edited["versions"]["torch"] = "1.0"
    save_png(Image.open(made / "rain.png"), edited, tmp_path / "rain.png")
    call = ["replay", str(tmp_path / "rain.png"), "--audio", str(sounds / "dog.wav"), "--model", other, "--quiet"]
    assert main(call) == 1
    said = capsys.readouterr().out
    for what in ("another sound: dog.wav", "unet: other weights", "instead of 1.0", "% of the pixels differ"):
        assert what in said


def test_a_replay_needs_to_know_where_the_model_is(made, sounds, capsys):
    assert main(["replay", str(made / "rain.png"), "--audio", str(sounds / "rain.wav")]) == 2
    assert "say where it is with --model" in capsys.readouterr().err
    assert main(["replay", str(made / "rain.png")]) == 2
    assert "heard 1 (rain.wav), and 0 are given" in capsys.readouterr().err
    assert main(["replay", str(made / "rain.sheet.png")]) == 2
    assert "carries no receipt" in capsys.readouterr().err


def test_names_on_the_hub_are_where_they_were():
    from argparse import Namespace

    from unibrivl.cli.replay import where_from

    receipt = {"base": "org/sd@0a1b", "models": {"matcher": {"name": "org/unibrivl@2c3d"}}}
    ask = Namespace(model=None, matcher=None)
    expected = {"revision": "0a1b", "matcher_kwargs": {"revision": "2c3d"}}
    assert where_from(receipt, ask) == ("org/sd", "org/unibrivl", expected)
    assert where_from(receipt, Namespace(model="m", matcher="r")) == ("m", "r", {})


# ---- the sheet


def shown(count: int, size: tuple[int, int] = (40, 40)) -> list[Shown]:
    return [
        Shown(Image.new("RGB", size, (10 * rank, 80, 120)), 0.5 - 0.1 * rank, "a dog " * rank) for rank in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 20])
def test_a_sheet_has_room_for_every_candidate(count):
    samples = tiny_diffusion.sound()
    row = Row(samples, 16000, "-20 dB", 0.0, shown(count), ["a dog"] * 3)
    page = contact_sheet("dog.wav", "about", [row])
    assert page.width == WIDTH
    edge = np.asarray(page)[:, :MARGIN]
    assert (edge == edge[0, 0]).all()  # nothing leaves the page
    colours = {colour for _, colour in page.getcolors(1 << 24)}
    assert {(10 * rank, 80, 120) for rank in range(count)} <= colours


def test_a_sheet_of_the_shortest_and_the_quietest_sound():
    for samples in (np.ones(1, np.float32), np.full(8000, 1e-8, np.float32)):
        page = contact_sheet("x" * 300, "about " * 100, [Row(samples, 8000, "", 0.0, shown(2, (64, 16)), [])])
        assert page.size[0] == WIDTH
    assert Waveform(np.ones(1, np.float32), 8000).duration_s < 1


def test_text_is_fitted_to_its_place():
    from PIL import ImageDraw, ImageFont

    pen, face = ImageDraw.Draw(Image.new("RGB", (10, 10))), ImageFont.load_default(14)
    assert fitted(pen, "short", face, 200) == "short"
    assert pen.textlength(fitted(pen, "long " * 50, face, 200), font=face) <= 200
    lines = wrapped(pen, "a photo of birds singing at dawn in a forest", face, 120, 2)
    assert len(lines) == 2 and all(pen.textlength(line, font=face) <= 120 for line in lines)
    assert wrapped(pen, "", face, 120, 2) == []
