"""Checkpoints on disk: a folder a step, whole or not there.

A checkpoint is written into `step_00001200.partial`, every file is flushed to the disk, and the folder is renamed to
`step_00001200`: whatever kills the process, every folder without the ending is whole. Pruning goes the same way back.
Nothing points at the last or the best one; both are found by reading what is there.

    step_00001200/
        config.json, model.safetensors, ...   the model (and its processor), as from_pretrained loads it
        NAME.safetensors, NAME.json           one pair for each state: tensors, and the nested plain values around them
        checkpoint.json                       step, and the metric it was saved with
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

PARTIAL = ".partial"
NAME = re.compile(r"step_(\d{8,})")
TENSOR = "__tensor__"  # marks, in a state's JSON, where a tensor of the safetensors file belongs


class CheckpointError(OSError):
    """A checkpoint that could not be written or read; says which one is whole."""


class Checkpoints:
    """
    Args:
        folder: where the folders of steps stand.
        keep (`int`): how many of the newest stay; the best stays besides.
        direction (`str`): "max" or "min": which end of the metric is the best.
    """

    def __init__(self, folder: Path, keep: int = 2, direction: str = "max"):
        self.folder, self.keep, self.direction = folder, keep, direction

    def all(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((path for path in found if NAME.fullmatch(path.name)), key=step_of)

    def last(self) -> Path | None:
        found = self.all()
        return found[-1] if found else None

    def best(self) -> Path | None:
        """The earliest of those with the best metric; without a metric, the last one."""
        scored = [(path, read_json(path / "checkpoint.json")["metric"]) for path in self.all()]
        scored = [(path, metric) for path, metric in scored if metric is not None]
        sign = 1 if self.direction == "max" else -1
        return max(scored, key=lambda pair: sign * pair[1])[0] if scored else self.last()

    def save(self, step: int, metric: float | None, fill: Callable[[Path], None], needed: int = 0) -> Path:
        """Write a checkpoint and prune the old ones.

        Args:
            step, metric: of the checkpoint; a metric if the model was evaluated at this step.
            fill: writes everything else into the folder it is given.
            needed (`int`): bytes it will take; too little room is found out before anything is written.
        """
        target = self.folder / f"step_{step:08d}"
        partial = target.with_name(target.name + PARTIAL)
        with self._explained(f"the checkpoint of step {step}"):
            self.sweep()
            partial.mkdir(parents=True)
            free = shutil.disk_usage(self.folder).free
            if free < needed:
                raise OSError(f"{needed // 10**6} MB are needed and {free // 10**6} MB are free")
            fill(partial)
            write_json(partial / "checkpoint.json", {"step": step, "metric": metric})
            publish(partial, target)
        self.prune()
        return target

    def prune(self) -> None:
        kept = {*self.all()[-self.keep :], self.best()}
        for path in self.all():
            if path not in kept:
                os.rename(path, path.with_name(path.name + PARTIAL))
        self.sweep()

    def sweep(self) -> None:
        """Remove what a killed process left half written or half removed."""
        for path in self.folder.glob(f"*{PARTIAL}") if self.folder.is_dir() else ():
            shutil.rmtree(path)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):  # it frees the room; if even that fails, the next start sweeps
                self.sweep()
            last = self.last()
            whole = f"The last whole checkpoint is {last}" if last else "There is no whole checkpoint yet"
            raise CheckpointError(
                f"{what} could not be written to {self.folder}: {error}. {whole}; make room or a writable folder, "
                "then run the same command with --resume"
            ) from error


def step_of(path: Path) -> int:
    found = NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def publish(partial: Path, target: Path) -> None:
    """Give a finished folder its name, once all of it is on the disk. A folder of that name is replaced."""
    for path in [*partial.rglob("*"), partial]:
        sync(path)
    old = target.with_name(f"{target.name}.old{PARTIAL}")
    if target.exists():
        os.rename(target, old)
    os.rename(partial, target)
    sync(target.parent)
    if old.exists():
        shutil.rmtree(old)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk; systems that cannot open a folder need no such thing."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_state(folder: Path, name: str, state: Any) -> None:
    """A nested state of dictionaries, lists, plain values and tensors, as NAME.safetensors and NAME.json."""
    tensors: dict[str, torch.Tensor] = {}
    outline = _outlined(state, name, tensors)
    save_file(tensors, folder / f"{name}.safetensors")
    write_json(folder / f"{name}.json", outline)


def read_state(folder: Path, name: str) -> Any:
    """What `write_state` wrote; tuples come back as lists."""
    try:
        return _filled(read_json(folder / f"{name}.json"), load_file(folder / f"{name}.safetensors"))
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"{folder} has no whole {name!r} state ({error}): remove the folder and resume from the one before"
        ) from error


def write_json(path: Path, found: Any) -> None:
    path.write_text(json.dumps(found, indent=1, allow_nan=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): remove its folder, or copy it again") from error


def _outlined(state: Any, where: str, tensors: dict[str, torch.Tensor]) -> Any:
    """The state with each tensor moved to `tensors` and its place marked."""
    if isinstance(state, torch.Tensor):
        tensors[where] = state.detach().to("cpu", copy=True).contiguous()  # a copy: no two may share memory
        return {TENSOR: where}
    if isinstance(state, dict):
        odd = [key for key in state if not isinstance(key, str)]
        if odd:
            raise TypeError(f"{where}: the key {odd[0]!r} is no text, and JSON would make it one")
        return {key: _outlined(value, f"{where}.{key}", tensors) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_outlined(value, f"{where}.{number}", tensors) for number, value in enumerate(state)]
    if state is None or isinstance(state, (bool, int, float, str)):
        return state
    raise TypeError(f"{where}: a {type(state).__name__} cannot be saved as tensors and plain values")


def _filled(outline: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(outline, dict):
        if outline.keys() == {TENSOR}:
            return tensors[outline[TENSOR]]
        return {key: _filled(value, tensors) for key, value in outline.items()}
    if isinstance(outline, list):
        return [_filled(value, tensors) for value in outline]
    return outline
