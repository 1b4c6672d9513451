"""`unibrivl index` and `unibrivl search`: a folder in, and the files that fit out, as a table, JSON and a sheet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from tiny_towers import save_unibrivl

from unibrivl.cli import main

RATE = 16000


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_unibrivl(tmp_path_factory.mktemp("model"))


def test_a_folder_is_indexed_and_asked(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    Path("files").mkdir()
    for number in range(4):
        soundfile.write(f"files/{number}.wav", 0.1 * generator.standard_normal(RATE // 4 * (number + 1)), RATE)
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(f"files/{number}.png")
    Path("files/text.wav").write_text("no sound")
    words = ["index", "files", "--out", "found"]
    assert main([*words, "--model", model, "--window-s", "0.5"]) == 1
    told = capsys.readouterr()
    assert "8 embedded now" in told.out
    assert "text.wav" in told.err
    Path("files/text.wav").unlink()
    assert main(words) == 0  # the model and the windows are the index's own
    assert "8 unchanged" in capsys.readouterr().out

    assert main(["search", "found", "--audio", "files/3.wav", "--kind", "audio", "--json", "--top", "2"]) == 0
    hits = json.loads(capsys.readouterr().out)
    assert len(hits) == 2
    assert {hit["kind"] for hit in hits} == {"audio"}
    assert all(0 <= hit["begin_s"] < hit["end_s"] <= 1 for hit in hits)
    assert main(["search", "found", "--image", "files/2.png", "--kind", "image"]) == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert first.startswith("+1.000")
    assert first.endswith("2.png")
    mixed = ["--audio", "files/1.wav", "--text", "dog", "--text-weight", "0.5"]
    assert main(["search", "found", *mixed, "--sheet", "sheet.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["score", "audio", "files/1.wav", "text", "'dog'", "seconds", "file"]
    assert len(lines) == 10  # the head, eight files, and where the sheet is
    with Image.open("sheet.png") as sheet:
        assert sheet.width == 1680

    assert main([*words, "--model", model, "--window-s", "0.25"]) == 2
    assert "--out found --model" in capsys.readouterr().err
    assert main([*words, "--model", model, "--window-s", "0.25", "--restart", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["search", "nowhere", "--text", "dog"], "holds no index"),
        (["search", "nowhere"], "nothing is asked for"),
        (["search", "nowhere", "--text-weight", "1"], "1 weights for 0"),
        (["search", "nowhere", "--text", "dog", "--sheet", "a.jpg"], "does not end in .png"),
        (["index", "--out", "nowhere"], "nothing to index"),
    ],
)
def test_wrong_questions_exit_with_2(words, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert why in capsys.readouterr().err
    assert not Path("nowhere").exists()
