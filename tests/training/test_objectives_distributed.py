"""Two processes with half of each batch are one process with the whole of it: real ones, over gloo, under DDP."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_processes.py")
spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What both processes had after all cases."""
    folder = tmp_path_factory.mktemp("gloo")
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    commands = [[sys.executable, str(SCRIPT), str(rank), str(folder)] for rank in range(2)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        told = [process.communicate(timeout=240)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    codes = [process.returncode for process in running]
    assert codes == [0, 0], "\n".join(text[-2000:] for text in told)
    return folder


@pytest.mark.parametrize("case", script.CASES)
def test_two_processes_are_one(folder, case):
    """Losses, gradients, weights, queues in the order of the ranks, momentum copies; equal on both processes. Within
    1e-6, of their size where they are large."""
    number = list(script.CASES).index(case)
    first, second = (load_file(folder / f"{number}-{rank}.safetensors") for rank in range(2))
    alone = script.train(case)
    assert set(first) == set(second) == set(alone)
    assert float(alone["loss.2"]) > 0.1 and any(value.any() for name, value in alone.items() if "grad" in name)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        limit = 1e-6 * max(1.0, float(value.abs().max()))
        torch.testing.assert_close(first[name], value, atol=limit, rtol=0, msg=lambda told: f"{name}: {told}")  # noqa: B023
