"""Why a score is what it is, without a browser: a sound and a picture in, a sentence, a drawing and tables out."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")

import soundfile
import tiny_archive
from PIL import Image, ImageDraw, ImageFont

import unibrivl
from unibrivl.app.limits import Limits
from unibrivl.app.markup_evidence import place, sentence
from unibrivl.app.witness import Witness
from unibrivl.audio import load_audio
from unibrivl.embedded import HERE
from unibrivl.embedder import load

pytestmark = pytest.mark.skipif(
    not (HERE / "open" / "model_index.json").is_file(), reason="the embedded model's weights are not in this checkout"
)
SPOKEN = Path(unibrivl.__file__).parent / "cli" / "sounds" / "three.flac"
BEGIN_S, SECONDS = 1.25, 2.5


@pytest.fixture(scope="module")
def witness():
    return Witness(load("embedded"), Limits(megabytes=0.2))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A spoken three in the middle of quiet noise, and a printed one in the right half of a white picture."""
    folder = tmp_path_factory.mktemp("planted")
    word = load_audio(SPOKEN, rate_hz=16_000).samples
    samples = np.random.default_rng(0).normal(0, 0.002, round(SECONDS * 16_000)).astype(np.float32)
    begin = round(BEGIN_S * 16_000)
    samples[begin : begin + len(word)] += word
    soundfile.write(folder / "said.wav", samples, 16_000)
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).text((36, 12), "3", fill="black", font=ImageFont.load_default(40))
    picture.save(folder / "a <three>.png")
    return folder / "said.wav", folder / "a <three>.png", BEGIN_S, BEGIN_S + len(word) / 16_000


def test_what_was_planted_is_told_drawn_and_in_the_tables(witness, planted):
    sound, picture, begin_s, end_s = planted
    seen = []
    hiding, done = witness.explain(sound, picture, lambda *step: seen.append(step))
    assert "Hiding one part after another ..." in hiding.status and hiding.best is None
    wanted = witness.embedder.evidence(load_audio(sound, rate_hz=16_000), Image.open(picture))
    told = re.search(
        r"Done: the score is ([+-][0-9.]+), made most by ([0-9.]+) to ([0-9.]+) s of the sound", done.status
    )
    assert told is not None and float(told[1]) == pytest.approx(wanted.score, abs=6e-4)
    assert float(told[2]) < end_s and float(told[3]) > begin_s and "right part of the picture" in done.status
    drawn = Image.open(io.BytesIO(base64.b64decode(re.search(r'src="data:image/png;base64,([^"]*)"', done.best)[1])))
    assert drawn.size == replace(wanted, names=("said.wav", "a <three>.png")).picture(860).size
    assert 'alt="The waveform, the picture under a heat map, and seconds by regions: the score is ' in done.best
    assert 'download="why said.png"' in done.best
    cells = [float(one) for one in re.findall(r'<td class="number">([+-][0-9.]+)</td>', done.heard)]
    stretches, regions = len(wanted.seconds_T), wanted.regions_RR.size
    assert cells[:stretches] == pytest.approx(wanted.seconds_T, abs=6e-4)
    assert cells[stretches : stretches + regions] == pytest.approx(wanted.regions_RR.ravel(), abs=6e-4)
    assert cells[stretches + regions :] == pytest.approx(np.sort(wanted.map_TRR.ravel())[::-1][:5], abs=6e-4)
    assert "-0.000" not in done.heard
    for what, most in (("sounds", 1 + stretches), ("pictures", 1 + regions)):  # to the end, and never back
        steps = [count for count, of, kind in seen if kind == what]
        (of,) = {of for _, of, kind in seen if kind == what}  # what is the same once hidden is heard once
        assert 0 < most - of < 3 or of == most
        assert steps[0] == 0 and steps[-1] == of and steps == sorted(steps)


def test_what_is_wrong_is_a_sentence(witness, planted, tmp_path):
    sound, picture, *_ = planted
    (tmp_path / "bad.wav").write_bytes(b"this is no sound " * 40)
    (tmp_path / "bad.png").write_bytes(b"this is no picture")
    Image.new("RGB", (2000, 10)).save(tmp_path / "thin.png")
    soundfile.write(tmp_path / "long.ogg", tiny_archive.tone(440, 31.0)[::4], 4000)
    for given, words in (
        ((None, picture), "There is no sound yet"), ((sound, None), "There is no picture yet"),
        ((tmp_path / "bad.wav", picture), "bad.wav) cannot be read"),
        ((sound, tmp_path / "bad.png"), "bad.png) cannot be read"),
        ((sound, tmp_path / "thin.png"), "too small or too narrow"),
        ((tmp_path / "long.ogg", picture), "longer than 30 seconds"),
    ):  # fmt: skip
        *_, answer = witness.explain(*given)
        assert words in answer.status and "Not done" in answer.status and str(tmp_path) not in answer.status
        assert (answer.best, answer.heard) == (None, None)  # what is shown stays


def test_a_large_picture_is_made_small_before_it_is_held_many_times(witness, planted, tmp_path, monkeypatch):
    Image.new("RGB", (3000, 2000), "teal").save(tmp_path / "large.png")
    given = []
    found = witness.embedder.evidence(load_audio(planted[0], rate_hz=16_000), Image.new("RGB", (64, 64)), regions=3)
    monkeypatch.setattr(witness.embedder, "evidence", lambda sound, seen, **_: given.append(seen.size) or found)
    *_, done = witness.explain(planted[0], tmp_path / "large.png")
    assert given == [(768, 512)] and "Done: " in done.status
    flat = replace(found, seconds_T=np.zeros_like(found.seconds_T), regions_RR=np.zeros_like(found.regions_RR))
    assert "no part alone has made it" in sentence(flat)
    assert "No part of the picture counts alone" in sentence(replace(flat, seconds_T=flat.seconds_T + 0.1))
    assert "No moment of the sound counts alone" in sentence(replace(flat, regions_RR=flat.regions_RR + 0.1))


def test_places_have_names():
    names = [place(cell, 3).removeprefix("the ").removesuffix(" of the picture") for cell in range(9)]
    wanted = ["upper left", "upper", "upper right", "left", "middle", "right", "lower left", "lower", "lower right"]
    assert [name.removesuffix(" part") for name in names] == wanted
    assert place(24, 7) == "the middle of the picture" and place(6, 7) == "the upper right part of the picture"
