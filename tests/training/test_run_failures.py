"""What a disk can do to a run: full, not writable, cut short. The last checkpoint stays whole; the error says so."""

from __future__ import annotations

import contextlib
import os
import shutil

import pytest
import tiny_run
import torch

from unibrivl.training.checkpoint import CheckpointError, Checkpoints, publish, read_state, write_json, write_state
from unibrivl.training.config import override
from unibrivl.training.journal import Journal, read_rows
from unibrivl.training.loop import train

resource = pytest.importorskip("resource", reason="limits of a process are a thing of Unix")
SETTINGS = ["steps=4", "accumulation=1", "evaluate_every=0", "primary=none", "save_every=2", "log_every=1"]


@contextlib.contextmanager
def files_end_at(size: int):
    """No file of this process grows beyond `size` bytes: a write that would, fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def config(folder, *extra):
    return override(tiny_run.config(str(folder)), [*SETTINGS, *extra])


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    """Full from step 3 on; once there is room again the run goes on and ends as if nothing had been."""
    train(config(tmp_path / "whole"), tiny_run.build)

    def filling(config):
        parts = tiny_run.build(config)
        forward = parts.objective.before_step

        def before_step(model, step):
            forward(model, step)
            if step == 2:
                stack.enter_context(files_end_at(60_000))

        parts.objective.before_step = before_step
        return parts

    with contextlib.ExitStack() as stack, pytest.raises(CheckpointError) as caught:
        train(config(tmp_path / "cut"), filling)
    said = str(caught.value)
    assert "the checkpoint of step 4 could not be written" in said
    assert "step_00000002; make room" in said and "--resume" in said
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["step_00000002"]
    train(config(tmp_path / "cut"), tiny_run.build, resume=True)
    for name in ("metrics.jsonl", "model/model.safetensors", "checkpoints/step_00000004/optimizer.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name


def test_too_little_room_is_found_out_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match="MB are needed and 0 MB are free.*no whole checkpoint yet"):
        train(config(tmp_path / "run"), tiny_run.build)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="choose another output_dir"):
        train(config(tmp_path / "file" / "run"), tiny_run.build)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_an_error_at_once(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="make it writable"):
            train(config(tmp_path / "run"), tiny_run.build)
    finally:
        tmp_path.chmod(0o700)


def test_a_state_comes_back_as_it_was(tmp_path):
    shared = torch.arange(6.0)
    state = {
        "numbers": [1, 2.5, True, None, "words"],
        "tensors": {"a.b": shared[:3], "c": shared.view(2, 3).t(), "scalar": torch.tensor(3, dtype=torch.int64)},
        "empty": {},
        "exact": 0.1 + 0.2,
    }
    write_state(tmp_path, "state", state)
    found = read_state(tmp_path, "state")
    assert found["numbers"] == state["numbers"] and found["empty"] == {} and found["exact"] == 0.1 + 0.2
    for name, tensor in state["tensors"].items():
        assert torch.equal(found["tensors"][name], tensor) and found["tensors"][name].dtype == tensor.dtype
    with pytest.raises(TypeError, match="cannot be saved"):
        write_state(tmp_path, "state", {"model": object()})
    with pytest.raises(TypeError, match="is no text"):
        write_state(tmp_path, "state", {"by_number": {1: 2}})


def test_a_state_that_is_cut_short_says_which_folder(tmp_path):
    write_state(tmp_path, "state", {"a": torch.zeros(100)})
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="no whole 'state' state"):
        read_state(tmp_path, "state")


def fill(folder):
    write_json(folder / "something.json", {})


def test_what_was_left_half_written_is_swept_and_never_counts(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in (1, 2):
        checkpoints.save(step, None, fill)
    (tmp_path / "step_00000003.partial").mkdir()
    (tmp_path / "step_00000003.partial" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "notes").mkdir()
    assert checkpoints.last().name == "step_00000002"
    checkpoints.save(4, None, fill)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "step_00000004"]


def test_an_error_of_the_code_itself_is_not_called_one_of_the_disk(tmp_path):
    def broken(folder):
        raise KeyError("a mistake of ours")

    with pytest.raises(KeyError):
        Checkpoints(tmp_path).save(1, None, broken)
    assert Checkpoints(tmp_path).last() is None


def test_publishing_replaces_a_folder_as_a_whole(tmp_path):
    for content in ("old", "new"):
        partial = tmp_path / "model.partial"
        partial.mkdir()
        (partial / f"{content}.txt").write_text(content)
        publish(partial, tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_journal_is_cut_to_the_checkpoint_and_a_torn_line_is_dropped(tmp_path):
    journal = Journal(tmp_path)
    for step in range(1, 6):
        journal.write(step, "train", {"loss": 1 / step})
        journal.clock(step, {"seconds": 1.0})
    whole = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "tr')
    Journal(tmp_path, step=3)
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(whole[:3])
    assert len(read_rows(tmp_path / "timings.jsonl")) == 3
    Journal(tmp_path)
    assert read_rows(tmp_path / "metrics.jsonl") == []


def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    journal = Journal(tmp_path, tensorboard=True)
    journal.write(1, "train", {"loss": 0.5})
    journal.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/loss")] == [0.5]


def test_a_run_that_ended_before_its_first_step_is_in_nobodys_way(tmp_path):
    """A mistake in the settings is mended and the same command given again."""
    Journal(tmp_path)
    assert train(config(tmp_path), tiny_run.build).step == 4
    with pytest.raises(ValueError, match="holds a run already"):
        train(config(tmp_path), tiny_run.build)


def test_processes_that_do_not_know_of_each_other_do_not_write_one_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)  # so nobody asks Accelerate to look on CPUs
    with pytest.raises(ValueError, match="WORLD_SIZE is 2 and this process belongs to a group of 1"):
        train(config(tmp_path), tiny_run.build)
    assert not (tmp_path / "run.json").exists()
