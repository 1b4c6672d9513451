"""`unibrivl embed`: exit codes, what it prints, and that a real Ctrl-C, SIGTERM or kill -9 loses nothing."""

from __future__ import annotations

import io
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_towers import save_noise, save_unibrivl

from unibrivl.cli import main
from unibrivl.embedder import read_vectors

pytest.importorskip("pyarrow")
RATE = 16000

# the command in small groups, each of which takes a moment and becomes a part
SLOWLY = """
import signal, sys, time
from unibrivl.cli import main
from unibrivl.embedder import parts, sounds, vector_file
from unibrivl.modeling import UniBriVLMatcher

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
sounds.FIRST_GROUP_SECONDS = sounds.GROUP_SECONDS = 1.0
parts.PART_S = 0.0
encode, merge = UniBriVLMatcher.encode_audio, vector_file.merge
batches_left = int(sys.argv.pop(1))  # after so many it waits for whoever wants to stop it

def slow_encode(self, clips, **options):
    global batches_left
    batches_left -= 1
    time.sleep(0.1 if batches_left else 100)
    return encode(self, clips, **options)

def slow_merge(*args):
    rows = merge(*args)
    time.sleep(0.3)
    return rows

UniBriVLMatcher.encode_audio, vector_file.merge = slow_encode, slow_merge
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_unibrivl(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Thirty sounds, a third of a second to a second long."""
    return save_noise(tmp_path_factory.mktemp("sounds"), 30)


@pytest.fixture(scope="module")
def whole(model, folder, tmp_path_factory) -> Path:
    """What a run that nobody disturbs writes."""
    out = tmp_path_factory.mktemp("whole") / "vectors.parquet"
    assert main(["embed", str(folder), "--model", model, "--out", str(out), "--quiet"]) == 0
    return out


def same(out: Path, whole: Path) -> bool:
    ours, theirs = read_vectors(out), read_vectors(whole)
    return ours.ids == theirs.ids and float(np.abs(ours.vectors - theirs.vectors).max()) <= 1e-5


def start(*words: str, batches: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOWLY, str(batches), "embed", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_parts(out: Path, process: subprocess.Popen, number: int = 1) -> None:
    until = time.monotonic() + 120
    while len(list(out.parent.glob(f"{out.name}.parts/part-*.parquet"))) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL"])
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_stopped_at_a_random_moment_the_same_command_goes_on(how, model, folder, whole, tmp_path, capsys):
    out = tmp_path / "vectors.parquet"
    words = (str(folder), "--model", model, "--out", str(out))
    with start(*words, batches=12) as process:  # of thirty
        wait_for_parts(out, process)
        time.sleep(random.Random(how).uniform(0, 0.2))
        process.send_signal(getattr(signal, how))
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if how == "SIGKILL" else 130)
    if how != "SIGKILL":
        assert "the same command goes on from there" in stderr.splitlines()[-1]
        assert "Traceback" not in stderr
    assert not out.exists()
    assert main(["embed", *words]) == 0
    said = capsys.readouterr().out
    embedded, unchanged = (int(word) for word in re.findall(r"\d+", said)[:2])
    assert embedded + unchanged == 30
    assert unchanged > 0
    assert same(out, whole)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_killed_again_and_again_it_still_ends_in_the_same_file(model, folder, whole, tmp_path):
    """Twelve kills, the later ones while parts are merged and removed; the output is whole whenever it is there."""
    out = tmp_path / "vectors.parquet"
    words = (str(folder), "--model", model, "--out", str(out))
    chance = random.Random(0)
    for number in range(12):
        with start(*words) as process:
            done = len(list(out.parent.glob(f"{out.name}.parts/part-*.parquet")))
            if not out.exists():
                wait_for_parts(out, process, min(done + 1, 20))
            time.sleep(chance.uniform(0, 0.4 if number < 6 else 1.0))
            process.send_signal(chance.choice((signal.SIGKILL, signal.SIGINT)))
            process.communicate(timeout=60)
        if out.exists():
            assert same(out, whole)
    assert main(["embed", *words]) == 0
    assert same(out, whole)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_what_it_says_and_its_exit_codes(model, folder, whole, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    some = [str(folder / f"{number:02}.wav") for number in range(4)]
    assert main(["embed", "--model", model, *some[:2]]) == 0  # into vectors.parquet, here
    assert capsys.readouterr().out.splitlines() == [
        "2 embedded now, 0 were there and have not changed",
        "vectors.parquet: 2 rows of 44 numbers",
    ]
    assert main(["embed", *some[:2], "--model", model]) == 0
    assert capsys.readouterr().out.startswith("nothing to do: all 2 are there")
    assert main(["embed", some[2], "nowhere.wav", *(f"{n}.wav" for n in range(7)), "--model", model]) == 1
    said = capsys.readouterr()
    assert "1 embedded now, 0 were there" in said.out
    assert "2 of earlier runs were not named now and stay" in said.out
    assert "8 could not be embedded, listed in vectors.parquet.errors.jsonl" in said.err
    assert "nowhere.wav: [Errno 2]" in said.err
    assert "and 3 more" in said.err
    assert len(Path("vectors.parquet.errors.jsonl").read_text().splitlines()) == 8
    assert main(["embed", some[0], "--model", model, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["embed", some[0], "--model", model, "--window-s", "0.2"]) == 2
    assert "window_s was 10.0 and is 0.2" in capsys.readouterr().err
    assert main(["embed", some[0], "--model", model, "--window-s", "0.2", "--windows", "--restart"]) == 0
    assert read_vectors("vectors.parquet").times[:2] == ((0.0, 0.2), (0.2, 0.4))
    assert main(["embed", "nowhere.wav", "--model", model, "--out", "new/v.parquet"]) == 1
    assert "not written, since nothing could be embedded" in capsys.readouterr().out
    assert not Path("new/v.parquet").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dog.wav"], "--model says what embeds"),
        (["--model", "x"], "name files or folders"),
        (["-", "--from-file", "-", "--model", "x"], "standard input is named twice"),
        (["dog.wav", "--model", "x", "--out", "v.npz"], "does not end in .parquet"),
        (["dog.wav", "--model", "x", "--device", "abacus"], "--device abacus cannot be used here"),
        (["dog.wav", "--model", "x", "--from-file", "nowhere.txt"], "nowhere.txt"),
        (["dog.wav", "--model", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_wrong_questions(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["embed", *words]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["embed", "dog.wav", "--model", "x", "--out", str(tmp_path / "v.parquet")]) == 2
    assert 'pip install "unibrivl[parquet]"' in capsys.readouterr().err


def test_names_from_a_list_and_from_standard_input(model, folder, tmp_path, capsys, monkeypatch):
    names = [str(folder / f"{number:02}.wav") for number in range(5)]
    listed, texts, out = tmp_path / "list.txt", tmp_path / "texts.txt", tmp_path / "v.parquet"
    listed.write_text(f"{names[1]}\r\n\n{names[2]}\n")
    texts.write_text("\ufeffdog\n\n  rain \ndog\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\0".join(names[3:]).encode())))
    given = ["embed", names[0], "-", "--from-file", str(listed), "--texts", str(texts)]
    options = ["--model", model, "--out", str(out), "--root", str(folder), "--batch-size", "3", "--workers", "1"]
    assert main([*given, *options]) == 0
    assert read_vectors(out, "audio").ids == ("00.wav", "03.wav", "04.wav", "01.wav", "02.wav")
    assert read_vectors(out, "text").ids == ("dog", "rain")
    texts.write_bytes(b"caf\xe9")
    assert main([*given[:2], "--texts", str(texts), *options]) == 2
    assert "is not UTF-8 text" in capsys.readouterr().err


def test_failures_are_on_one_line_each(model, tmp_path, capsys):
    broken = tmp_path / "two\nlines.wav"
    broken.write_bytes(b"junk")
    out = tmp_path / "v.parquet"
    assert main(["embed", str(broken), "--model", model, "--out", str(out)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    row = json.loads(Path(f"{out}.errors.jsonl").read_text())
    assert row["id"] == str(broken)
