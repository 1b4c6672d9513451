"""Bulk embedding by workers of Ray: the file that one process writes, whoever is killed, whoever began it.

Ray and its workers take half a minute to start, so what starts it is slow.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray_embedders
import soundfile
from PIL import Image
from tiny_towers import save_noise, save_unibrivl

from unibrivl.cli import main
from unibrivl.embedder import bulk_ray, embed_files, read_vectors
from unibrivl.embedder import parts as parts_file
from unibrivl.embedder.bulk_ray import RayCrew, RayRun, Task, by_length
from unibrivl.embedder.inputs import Input

pytest.importorskip("pyarrow")
RATE = 16000


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_unibrivl(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twenty-four sounds, a file that is none, and two pictures."""
    folder, generator = save_noise(tmp_path_factory.mktemp("things"), 24), np.random.default_rng(0)
    (folder / "broken.wav").write_bytes(b"junk")
    for number in range(2):
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def ray(monkeypatch):
    """Small tasks, a part after each; workers find ray_embedders."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setattr(bulk_ray, "TASK_FILES", 3)
    monkeypatch.setattr(parts_file, "PART_S", 0.0)
    places = [str(Path(ray_embedders.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("RAY_worker_niceness", "0")  # beside other tests a nice worker gets nowhere
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    yield ray
    assert not ray.is_initialized()


def same(out: Path, whole: Path) -> None:
    for kind in ("audio", "image", "text"):
        ours, theirs = read_vectors(out, kind), read_vectors(whole, kind)
        assert ours.ids == theirs.ids
        assert ours.fingerprint == theirs.fingerprint
        assert np.abs(ours.vectors - theirs.vectors).max() <= 1e-5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_worker_that_is_killed_loses_nothing(model, folder, ray, tmp_path):
    embedder, things = ray_embedders.plain(model), {"texts": ["dog", "rain"], "progress": False}
    whole, out, note = tmp_path / "whole.parquet", tmp_path / "v.parquet", tmp_path / "note"
    embed_files(embedder, [folder], whole, **things)

    def kill() -> None:
        until = time.monotonic() + 240
        while not (note.exists() and note.read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(int(note.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with RayCrew(partial(ray_embedders.waits_to_be_killed, model, str(note)), actors=2) as crew:
        report = embed_files(embedder, [folder], out, crew=crew, **things)
        killer.join()
        assert len(crew.workers) == 2
    assert (report.embedded, report.rows) == (28, 28)
    assert [Path(failure.id).name for failure in report.failures] == ["broken.wav"]
    assert json.loads(report.errors_path.read_text())["kind"] == "audio"
    same(out, whole)
    # nothing is left to do, so no worker is started
    with RayCrew(partial(ray_embedders.plain, model), actors=1) as crew:
        again = embed_files(embedder, [folder / "00.wav"], out, crew=crew, progress=False)
        assert (again.unchanged, again.embedded, crew.workers) == (1, 0, [])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_file_that_kills_its_workers_is_told_and_the_others_are_embedded(model, folder, ray, tmp_path):
    embedder, note = ray_embedders.plain(model), tmp_path / "note"
    loud = tmp_path / "loud.wav"
    soundfile.write(loud, np.full(RATE // 2, 0.99), RATE)
    paths = [*sorted(folder.glob("0*.wav")), loud]
    with RayCrew(partial(ray_embedders.dies_of_a_loud_sound, model, str(note)), actors=2) as crew:
        report = embed_files(embedder, paths, tmp_path / "v.parquet", crew=crew, progress=False)
    assert [failure.id for failure in report.failures] == [str(loud)]
    assert "2 workers died over it" in report.failures[0].error
    assert report.embedded == 10
    assert len(note.read_text().split()) == 4  # twice with its task, twice alone


@pytest.mark.slow
def test_the_command_goes_on_where_one_process_was_stopped(model, folder, ray, tmp_path, capsys):
    out, some = tmp_path / "v.parquet", [str(folder / f"{number:02}.wav") for number in range(6)]
    words = ["--model", model, "--out", str(out), "--quiet"]
    embedder = ray_embedders.load(model)
    encode = embedder.matcher.encode_audio

    def interrupted(clips):
        if list(tmp_path.glob("*.parts/part*")):
            raise KeyboardInterrupt
        return encode(clips)

    embedder.matcher.encode_audio = interrupted
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patched:
        patched.setattr("unibrivl.embedder.sounds.FIRST_GROUP_SECONDS", 1.0)
        embed_files(embedder, some, out, progress=False)
    assert len(list(tmp_path.glob("*.parts/part*"))) == 1
    assert main(["embed", *some, "--engine", "ray", "--actors", "1", *words]) == 0
    before = signal.getsignal(signal.SIGTERM)
    assert main(["embed", *some, *words[:-1]]) == 0
    assert capsys.readouterr().out.startswith("nothing to do: all 6 are there")
    assert signal.getsignal(signal.SIGTERM) == before
    assert read_vectors(out).ids == tuple(some)
    assert np.abs(read_vectors(out).vectors - ray_embedders.load(model).encode_audio(some).vectors).max() <= 1e-5


@pytest.mark.slow
def test_workers_that_cannot_begin_say_why(model, folder, ray, tmp_path):
    embedder, sounds = ray_embedders.plain(model), [folder / "00.wav"]
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)  # one start for both
    for make, message in ((partial(ray_embedders.plain, str(tmp_path)), "config|model"),
                          (partial(ray_embedders.load, model), "another model than this process")):  # fmt: skip
        with RayCrew(make, actors=1) as crew, pytest.raises((ValueError, OSError), match=message):
            embed_files(embedder, sounds, tmp_path / "v.parquet", crew=crew, progress=False)
    ray.shutdown()
    assert list(tmp_path.iterdir()) == []


def test_tasks_are_of_like_length_and_neither_too_many_files_nor_too_large(monkeypatch):
    monkeypatch.setattr(bulk_ray, "TASK_FILES", 4)
    sizes = [*np.random.default_rng(0).permutation(30) * 1_000_000, 50_000_000]
    wanted = [Input(str(number), "audio", str(number), int(size)) for number, size in enumerate(sizes)]
    tasks = by_length(wanted)
    flat = [one.size_bytes for task in tasks for one in task.inputs]
    assert flat == sorted(map(int, sizes), reverse=True)
    assert {len(task.inputs) for task in tasks} == {1, 2, 3, 4}
    assert all(len(task.inputs) == 1 or sum(one.size_bytes for one in task.inputs) <= 20_000_000 for task in tasks)
    assert by_length([]) == []


def test_what_becomes_of_a_task_whose_worker_died():
    failed = []
    run = RayRun.__new__(RayRun)
    run.fail = lambda one, error, errors, bar: failed.append((one.id, error))
    task = Task([Input("a", "audio"), Input("b", "audio")])
    assert run.once_more(task, None, None) == [task]
    alone = run.once_more(task, None, None)
    assert [[one.id for one in single.inputs] for single in alone] == [["a"], ["b"]]
    assert run.once_more(alone[0], None, None) == [alone[0]]
    assert run.once_more(alone[0], None, None) == []
    assert [name for name, _ in failed] == ["a"]


def test_wrong_questions(tmp_path, capsys, monkeypatch):
    words = ["embed", "dog.wav", "--model", "x", "--out", str(tmp_path / "v.parquet"), "--actors"]
    assert main([*words, "2"]) == 2
    assert "--actors goes with --engine ray" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*words, "2", "--engine", "ray"]) == 2
    assert 'pip install "unibrivl[ray]"' in capsys.readouterr().err
