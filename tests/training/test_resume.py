"""A run that is killed ends as one that is not: real processes, SIGKILL at random steps and during a save."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_run
import torch

from unibrivl.training.config import override
from unibrivl.training.loop import train

SCRIPT = Path(tiny_run.__file__)
SETTINGS = ["steps=40", "save_every=3", "evaluate_every=7", "keep=2", "accumulation=2"]
COMPARED = ("model.safetensors", "optimizer.safetensors", "objective.safetensors", "average.safetensors",
            "random.safetensors", "objective.json", "random.json")  # fmt: skip


class Runs:
    """Runs one after another, each a process of its own that is forked from one which has imported everything."""

    def __init__(self, log: Path):
        self.log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent)}
        with log.open("wb") as errors:
            self.server = subprocess.Popen(
                [sys.executable, str(SCRIPT), "--serve"],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, bufsize=0,
            )  # fmt: skip
        self.is_ready = False

    def start(self, folder: Path, *extra: str) -> int:
        """The id of a process that now trains."""
        if not self.is_ready:
            assert self.answer() == "ready", self.log.read_text()
            self.is_ready = True
        self.server.stdin.write(json.dumps([str(folder), "--resume", *SETTINGS, *extra]).encode() + b"\n")
        return int(self.answer())

    def answer(self) -> str:
        return self.server.stdout.readline().decode().strip()

    def has_ended(self) -> bool:
        return bool(select.select([self.server.stdout], [], [], 0)[0])

    def kill_when(self, pid: int, condition, limit_s: float = 120.0) -> bool:
        """SIGKILL as soon as `condition()` holds; False if the process ended by itself before."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if condition():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                code = int(self.answer())
                assert code in (0, -signal.SIGKILL), self.log.read_text()
                return code != 0
            if self.has_ended():
                assert self.answer() == "0", self.log.read_text()
                return False
        os.kill(pid, signal.SIGKILL)
        raise AssertionError("the run neither ended nor came to where it was to be killed")

    def finish(self, folder: Path, *extra: str) -> None:
        self.start(folder, *extra)
        assert self.answer() == "0", self.log.read_text()

    def close(self) -> None:
        self.server.kill()  # it has nothing to tidy up
        self.server.communicate()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    found = Runs(tmp_path_factory.mktemp("runs") / "log")
    yield found
    found.close()


def has_rows(folder, number):
    path = folder / "metrics.jsonl"
    return lambda: path.exists() and path.read_bytes().count(b"\n") >= number


def is_saving(folder, step):
    """A checkpoint of `step` or later is being written, or an old one is being removed."""
    checkpoints = folder / "checkpoints"

    def condition():
        names = os.listdir(checkpoints) if checkpoints.is_dir() else []
        return any(name.endswith(".partial") and int(name[5:13]) >= step for name in names)

    return condition


def assert_same(folder, reference):
    """Weights, averages, moments, generators and metrics, bit for bit."""
    names = sorted(path.name for path in (reference / "checkpoints").iterdir())
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == names
    for name in names:
        for file in COMPARED:
            ours, theirs = (root / "checkpoints" / name / file for root in (folder, reference))
            assert ours.read_bytes() == theirs.read_bytes(), f"{name}/{file}"
    for file in ("metrics.jsonl", "model/model.safetensors", "model/results.json", "curves.png"):
        assert (folder / file).read_bytes() == (reference / file).read_bytes(), file
    assert not list(folder.rglob("*.partial"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory, runs):
    """The same run, never interrupted, in this process; meanwhile the other one imports."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(override(tiny_run.config(str(folder)), SETTINGS), tiny_run.build)
    finally:
        torch.set_num_threads(threads)
    return folder


def test_a_killed_run_ends_as_a_whole_one(reference, runs, tmp_path):
    """Killed between two saves and within one, then resumed with worker processes, which change nothing."""
    folder = tmp_path / "run"
    assert runs.kill_when(runs.start(folder), has_rows(folder, 9))
    assert runs.kill_when(runs.start(folder), is_saving(folder, 18))
    runs.finish(folder, "workers=1")
    assert_same(folder, reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_killed_again_and_again_ends_as_a_whole_one(reference, runs, tmp_path, seed):
    chance, folder, caught = random.Random(seed), tmp_path / "run", 0
    for number in range(6):
        if number % 2:
            condition = is_saving(folder, chance.randrange(1, 40))
        else:
            condition = has_rows(folder, chance.randrange(1, 36))
        process = runs.start(folder)
        if number == 2:  # not at an event but at any moment, which may be before the first step
            moment = time.monotonic() + chance.uniform(0, 1)
            condition = lambda moment=moment: time.monotonic() > moment  # noqa: E731
        caught += runs.kill_when(process, condition)
    assert caught >= 3
    runs.finish(folder)
    assert_same(folder, reference)


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(reference, tmp_path):
    config = override(tiny_run.config(str(reference)), SETTINGS)
    before = (reference / "model" / "model.safetensors").read_bytes()
    outcome = train(config, tiny_run.build, resume=True)
    assert outcome.step == 40
    assert (reference / "model" / "model.safetensors").read_bytes() == before


def test_without_resume_a_run_is_not_written_over(reference):
    with pytest.raises(ValueError, match="--resume"):
        train(override(tiny_run.config(str(reference)), SETTINGS), tiny_run.build)


def test_another_configuration_is_another_run(reference):
    config = override(tiny_run.config(str(reference)), [*SETTINGS, "learning_rate=0.5"])
    with pytest.raises(ValueError, match=r"learning_rate was 0\.001 and is 0\.5"):
        train(config, tiny_run.build, resume=True)


def test_steps_of_an_epoch_boundary_inside_an_accumulation_resume_too(tmp_path):
    """22 examples in batches of 4 are 5 an epoch; with 3 batches a step the boundary falls inside steps."""
    settings = ["steps=6", "accumulation=3", "evaluate_every=0", "primary=none", "save_every=1", "log_every=1"]
    whole, cut = (override(tiny_run.config(str(tmp_path / name)), settings) for name in ("whole", "cut"))
    train(whole, tiny_run.build)
    for stop in (1, 2, 4):

        class Stop(Exception):
            pass

        def build(config, stop=stop, error=Stop):
            parts = tiny_run.build(config)
            forward = parts.objective.__class__.__call__

            class Stopping(tiny_run.TwoWays):
                def __call__(self, model, batch):
                    if self.calls == 3 * stop + 2:  # before the last part of a step
                        raise error
                    return forward(self, model, batch)

            parts.objective.__class__ = Stopping
            return parts

        with pytest.raises(Stop):
            train(cut, build, resume=True)
    train(cut, tiny_run.build, resume=True)
    for name in ("metrics.jsonl", "model/model.safetensors", "checkpoints/step_00000006/optimizer.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
