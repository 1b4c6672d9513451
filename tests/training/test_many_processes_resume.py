"""Two gloo processes that are killed in the middle of a run, by SIGKILL, and go on: the bits of a run that was not.

A sum of two numbers is the same in either order, so with two processes there is no tolerance to state.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_run

SCRIPT = Path(tiny_run.__file__)
STEPS = 12
SETTINGS = ["objective.gathered=true", f"steps={STEPS}", "save_every=4", "evaluate_every=3", "log_every=1", "keep=4"]
# A batch norm's statistics are each process's own: DDP hands out the main one's, FSDP does not
SHARDED = ["model.batch_norm=false"]
COMPARED = ("model.safetensors", "optimizer.safetensors", "objective.safetensors", "average.safetensors",
            "random.safetensors", "objective.json", "random.json")  # fmt: skip
FSDP = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy")


def command(folder, options):
    words = ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *words, "--main_process_port", "0", *options]
    return [*launch, str(SCRIPT), str(folder), "--resume", *SETTINGS]


def start(folder, options, settings):
    pids = folder.with_name(f"{folder.name}.pids")
    pids.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
                   "PYTHONPATH": str(SCRIPT.parent), "PIDS": str(pids)}  # fmt: skip
    output = folder.with_name(f"{folder.name}.log").open("a")
    process = subprocess.Popen(
        [*command(folder, options), *settings], env=environment, stdout=output, stderr=subprocess.STDOUT
    )
    output.close()
    return process


def told(folder) -> str:
    return folder.with_name(f"{folder.name}.log").read_text()[-4000:]


def kill_all(process, folder) -> None:
    """The launcher first, or it would end the others politely."""
    process.kill()
    process.wait()
    for path in folder.with_name(f"{folder.name}.pids").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.name), signal.SIGKILL)
        while is_running(int(path.name)):
            time.sleep(0.05)
        path.unlink()


def is_running(pid: int) -> bool:
    """A zombie, which nobody may collect, is not."""
    status = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            return status.read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def rows(folder) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_at(folder, options, settings, number: int) -> None:
    process, end = start(folder, options, settings), time.monotonic() + 300
    try:
        while rows(folder) < number:
            assert process.poll() is None, told(folder)
            assert time.monotonic() < end, told(folder)
            time.sleep(0.002)
    finally:
        kill_all(process, folder)


def finish(folder, options, settings) -> None:
    process = start(folder, options, settings)
    try:
        assert process.wait(timeout=300) == 0, told(folder)
    finally:
        kill_all(process, folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize(
    "options, settings",
    [
        pytest.param(("--multi_gpu",), [], id="ddp"),
        pytest.param((*FSDP, "TRANSFORMER_BASED_WRAP"), SHARDED, id="fsdp-layers"),
        pytest.param(
            (*FSDP, "TRANSFORMER_BASED_WRAP", "--fsdp_transformer_layer_cls_to_wrap", "ViTLayer"),
            SHARDED,
            id="fsdp-some-layers",
        ),
        pytest.param((*FSDP, "SIZE_BASED_WRAP", "--fsdp_min_num_params", "16000"), SHARDED, id="fsdp-size"),
    ],
)
def test_two_processes_killed_and_resumed_end_as_two_that_went_through(tmp_path, options, settings):
    """Killed after step 2, before any checkpoint, then between the first two checkpoints."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(whole, options, settings)
    kill_at(cut, options, settings, 2)
    kill_at(cut, options, settings, 7)
    if "--use_fsdp" in options:
        found = re.findall(r"(\d+) modules are sharded", told(whole))
        assert found and int(found[0]) > 2, "no layer was sharded by itself"
    names = [path.name for path in (cut / "checkpoints").iterdir() if not path.name.endswith(".partial")]
    assert names and f"step_{STEPS:08}" not in names, "it was killed too late to prove anything"
    finish(cut, options, settings)
    for name in sorted(path.name for path in (whole / "checkpoints").iterdir()):
        for file in COMPARED:
            ours, theirs = (folder / "checkpoints" / name / file for folder in (cut, whole))
            assert ours.read_bytes() == theirs.read_bytes(), f"{name}/{file}"
    for file in ("metrics.jsonl", "model/model.safetensors", "model/results.json"):
        assert (cut / file).read_bytes() == (whole / file).read_bytes(), file
