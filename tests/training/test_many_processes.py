"""Two gloo processes by `accelerate launch`: the same run as with one, and one that resumes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run
from safetensors.torch import load_file

from unibrivl.training.config import override
from unibrivl.training.journal import read_rows
from unibrivl.training.loop import train

SCRIPT = Path(tiny_run.__file__)
SETTINGS = [
    "steps=6",
    "model.dropout=0",
    "model.batch_norm=false",
    "objective.gathered=true",
    "log_every=1",
    "save_every=2",
    "workers=0",
]


def launch(folder, *words, options=()):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": str(SCRIPT.parent),
    }
    return subprocess.run(
        [*command, "--main_process_port", "0", *options, str(SCRIPT), str(folder), *words],
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
    )


def losses(folder):
    return [row["train"]["loss"] for row in read_rows(folder / "metrics.jsonl") if "train" in row]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--multi_gpu",), id="ddp"),
        pytest.param(
            ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "NO_WRAP"),
            id="fsdp",
        ),
    ],
)
def test_two_processes_make_the_run_of_one_and_go_on_as_one(tmp_path, options):
    """One loss over the gathered batch: losses and weights are those of one process, to rounding."""
    train(override(tiny_run.config(str(tmp_path / "one")), SETTINGS), tiny_run.build)
    done = launch(tmp_path / "two", *SETTINGS, options=options)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-4)
    ours, theirs = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("two", "one"))
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - weight).abs().max() for name, weight in theirs.items()) < 2e-3
    generators = json.loads((tmp_path / "two" / "checkpoints" / "step_00000006" / "random.json").read_text())
    assert sorted(generators) == ["0", "1"]  # there were two

    done = launch(tmp_path / "two", *SETTINGS, "--resume", options=options)  # it has ended: nothing more happens
    assert done.returncode == 0, done.stderr
    again = load_file(tmp_path / "two" / "model" / "model.safetensors")
    assert all((again[name] == weight).all() for name, weight in ours.items())


def test_torchrun_on_cpus_makes_one_run_and_not_two(tmp_path):
    """Accelerate looks for other processes on CPUs only if told to: both would train alone and write one folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("ACCELERATE_USE_CPU", None)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*command, str(SCRIPT), str(tmp_path / "two"), *SETTINGS],
        env=environment, text=True, capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    generators = json.loads((tmp_path / "two" / "checkpoints" / "step_00000006" / "random.json").read_text())
    assert sorted(generators) == ["0", "1"]
