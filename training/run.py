"""A run in memory: its parts on their devices, all that has to survive a kill, and how it starts, stops and goes on.

The loop (`training.loop`) moves it; this file knows what it consists of. Every process has one, and only the main one
writes.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from unibrivl.training import adapters_files
from unibrivl.training.adapters import adapter_bytes, is_adapted
from unibrivl.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    publish,
    read_json,
    read_state,
    write_json,
    write_state,
)
from unibrivl.training.config import RunConfig, as_written, differences, is_free, to_json
from unibrivl.training.ema import AverageWeights
from unibrivl.training.journal import Journal
from unibrivl.training.memory import estimate
from unibrivl.training.parts import Batch, Objective, Parts
from unibrivl.training.sampler import Batches, derive
from unibrivl.training.schedule import parameter_groups
from unibrivl.training.sharding import (
    check_sharding,
    load_optimizer_state,
    model_state,
    optimizer_state,
    placed,
    whole,
)
from unibrivl.training.streams import Stream
from unibrivl.utils import require

SLACK = 2_000_000  # bytes of a checkpoint besides its tensors: configurations, generators
INIT, LATER = 0, 1  # what a seed is derived for: the weights, or all that is drawn afterwards


class Together(nn.Module):
    """The model and its objective as one forward pass: what DDP and FSDP wrap.

    So gradients are shared out for whatever the objective asks the model, in whatever order. The objective itself is
    no submodule: its momentum copies and queues are neither trained, nor sharded, nor broadcast.
    """

    def __init__(self, model: nn.Module, objective: Objective):
        super().__init__()
        self.model = model
        object.__setattr__(self, "objective", objective)
        # what FSDP's TRANSFORMER_BASED_WRAP shards layer by layer, of what there is in this model
        present = {type(module).__name__ for module in model.modules()}
        self._no_split_modules = sorted(present & set(getattr(model, "_no_split_modules", None) or ()))

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        return dict(self.objective(self.model, batch))  # type: ignore[operator]


@dataclass
class Progress:
    """How far a run is.

    Args:
        step: optimiser steps that are done.
        best, best_step: the primary metric at its best, and when that was.
        waits: evaluations since then.
        stopped: ended before `steps`, for want of a new best.
        seconds: spent training so far, over all starts.
        evaluated: the last evaluation.
    """

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    waits: int = 0
    stopped: bool = False
    seconds: float = 0.0
    evaluated: dict[str, float] | None = None


class Run:
    """
    Args:
        config: see `RunConfig`.
        build: the recipe's; called once the seed is set.
        resume (`bool`): go on from the last whole checkpoint in `output_dir`, or begin where there is none.
    """

    def __init__(self, config: RunConfig, build: Callable[[Any], Parts], resume: bool = False):
        self.config = config
        self.folder = Path(config.output_dir).expanduser()
        self.checkpoints = Checkpoints(self.folder / "checkpoints", config.keep, config.direction)
        self.accelerator = accelerator_for(config)
        last = self._claim_folder(resume)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        seed_everything(derive(config.seed, INIT))
        self.parts = build(config)
        self.objective = self.parts.objective
        self._check_primary()
        adapters_files.check_is_adapted(self.parts.model, config.adapter)
        if self.parts.prepare is not None:
            self.parts.prepare()
        self.sizes = estimate(self.parts.model, self.objective, config.ema is not None)
        self.adapted = is_adapted(self.parts.model)
        if self.adapted:
            with without_bars():
                main = self.accelerator.is_main_process
                adapters_files.settle_base(self.parts.model, self.folder, main, last is not None)
        self._place()
        self.progress = Progress()
        self.started = time.monotonic()
        seed_everything(derive(config.seed, LATER, self.accelerator.process_index))
        if last is not None:
            self._restore(last)
        self.batches = self._batches()
        self.journal = None
        if self.accelerator.is_main_process:
            self.journal = Journal(self.folder, self.progress.step, config.tensorboard)
        self.accelerator.wait_for_everyone()

    # ---- starting

    def _claim_folder(self, resume: bool) -> Path | None:
        """The checkpoint to go on from. Refuses to write over another run, or to go on as another run."""
        last, saved = self.checkpoints.last(), self.folder / "run.json"
        rows = self.folder / "metrics.jsonl"  # empty where a run ended before its first step
        if not resume and (last is not None or (rows.exists() and rows.stat().st_size)):
            raise ValueError(
                f"{self.folder} holds a run already: pass --resume to go on with it, or --set output_dir=... to begin "
                "another one"
            )
        now = to_json(self.config)
        if last is not None and saved.exists():
            changed = differences(read_json(saved), now)
            fixed = {key: values for key, values in changed.items() if not is_free(key, *values)}
            if fixed:
                told = ", ".join(f"{key} was {old!r} and is {new!r}" for key, (old, new) in fixed.items())
                was = " ".join(f"--set {key}={as_written(old)}" for key, (old, _) in fixed.items())
                if "steps" in fixed:  # the obvious wish, which only another schedule could grant
                    told += (
                        ". With other steps the learning rate of each is another one, so it cannot go on from here; "
                        f"to train its model further, begin a new run that starts from {self.folder / 'model'}"
                    )
                raise ValueError(
                    f"the run in {self.folder} is another one: {told}. Go on with it as it was ({was}), or begin "
                    "another one with --set output_dir=..."
                )
        self.accelerator.wait_for_everyone()  # all have looked before one writes
        if self.accelerator.is_main_process:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.checkpoints.sweep()
                write_json(saved, now)
            except OSError as error:
                raise CheckpointError(
                    f"cannot write to {self.folder} ({error}): make it writable, or choose another output_dir"
                ) from error
        return last

    def _check_primary(self) -> None:
        if self.config.evaluate_every and self.parts.evaluate is None:
            raise ValueError("evaluate_every is set and this recipe evaluates nothing: set evaluate_every=0")
        if self.config.primary is not None and not self.config.evaluate_every:
            raise ValueError("a primary metric needs evaluations: set evaluate_every, or primary=none")

    def _place(self) -> None:
        config, model = self.config, self.parts.model
        if config.gradient_checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        model.train()
        if config.compile:
            model.compile()
        if isinstance(self.objective, nn.Module):
            self.objective.to(self.accelerator.device)
        groups = parameter_groups(model, config.weight_decay)
        # one kernel for each weight: every process does this part of a step for itself, and on a CPU it is 4x as fast
        fused = self.accelerator.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused)
        check_sharding(self.accelerator, model)
        self.together, self.prepared = self.accelerator.prepare(Together(model, self.objective), optimizer)
        self.optimizer: torch.optim.Optimizer = self.prepared.optimizer  # without accelerate's wrapper
        self.model = self.accelerator.unwrap_model(self.together).model
        if self.accelerator.is_fsdp2 and config.ema is not None:
            check_sharded(self.model)
        self.average = AverageWeights(self.model, config.ema) if config.ema is not None else None

    def _batches(self) -> Iterator[Batch]:
        config, accelerator, data = self.config, self.accelerator, self.parts.data
        taken = self.progress.step * config.accumulation
        place = (config.batch_size, config.seed, taken, accelerator.process_index, accelerator.num_processes)
        # what is read in its own order says itself what a batch is
        draws = (
            data.batches(*place)
            if isinstance(data, Stream)
            else Batches(len(data), *place, getattr(data, "lengths", None))
        )
        loader = DataLoader(
            data,  # type: ignore[arg-type]
            batch_sampler=draws,
            collate_fn=self.parts.collate,
            num_workers=config.workers,
            pin_memory=accelerator.device.type == "cuda",
            generator=torch.Generator(),  # or it would draw a number from the run's own generator at every start
        )
        return iter(loader)

    # ---- checkpoints

    def save(self, metric: float | None) -> None:
        """A checkpoint of this step. Every process gathers its part, the main one writes."""
        progress = self.progress
        progress.seconds += time.monotonic() - self.started
        self.started = time.monotonic()
        weights = model_state(self.model)
        states = {
            "optimizer": optimizer_state(self.optimizer, self.model),
            "objective": self.objective.state_dict(),
            "random": dict(enumerated(self._gather_random())),
        }
        if self.average is not None:
            states["average"] = self.average.state_dict()
        scaler = self.accelerator.scaler
        if scaler is not None:
            states["scaler"] = scaler.state_dict()

        def fill(folder: Path) -> None:
            self._save_model(folder, weights)
            for name, state in states.items():
                write_state(folder, name, state)
            write_json(folder / "progress.json", asdict(progress))

        if self.accelerator.is_main_process:
            needed = self.sizes.total - self.sizes.gradients + SLACK
            if self.adapted:
                needed += adapter_bytes(self.model) - self.sizes.weights
            self.checkpoints.save(progress.step, metric, fill, needed)
        self.accelerator.wait_for_everyone()

    def _save_model(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        with without_bars():
            if self.adapted:
                adapters_files.save_adapter(self.model, folder, weights)
            else:
                self.model.save_pretrained(folder, state_dict=weights)
        if self.parts.processor is not None:
            self.parts.processor.save_pretrained(folder)

    def _restore(self, folder: Path) -> None:
        self.load_weights(folder)
        load_optimizer_state(self.optimizer, self.model, read_state(folder, "optimizer"))
        self.objective.load_state_dict(to_device(read_state(folder, "objective"), self.accelerator.device))
        if self.average is not None:
            self.average.load_state_dict(read_state(folder, "average"))
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(read_state(folder, "scaler"))
        self.progress = Progress(**read_json(folder / "progress.json"))
        mine = read_state(folder, "random").get(str(self.accelerator.process_index))
        if mine is not None:
            set_random_state(mine)
        else:  # a process that the run did not have before
            seed_everything(derive(self.config.seed, LATER, self.accelerator.process_index, self.progress.step))

    def load_weights(self, folder: Path) -> None:
        """The weights of a checkpoint, as from_pretrained finds them there, into the model that trains."""
        if self.adapted:
            return adapters_files.read_adapter(self.model, folder)
        widest = max((weight.dtype for weight in self.parts.model.parameters()), key=lambda dtype: dtype.itemsize)
        with without_bars():
            saved = type(self.parts.model).from_pretrained(folder, dtype=widest).state_dict()
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(placed(saved[name], tensor))

    def _gather_random(self) -> list[dict[str, Any]]:
        if self.accelerator.num_processes == 1:
            return [random_state()]
        from accelerate.utils import gather_object

        return gather_object([random_state()])

    # ---- evaluation and the end

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[Any]:
        """The model as it is evaluated and exported: averaged if there is an average, whole, in eval mode."""
        unsharded = self.accelerator.is_fsdp2
        with contextlib.ExitStack() as stack, torch.no_grad():
            if self.average is not None:
                stack.enter_context(self.average.in_place())
            if unsharded:
                self.together.unshard()
                stack.callback(self.together.reshard)
            self.model.eval()
            try:
                yield self.model
            finally:
                self.model.train()

    def export(self, finish: Callable[[Path], None]) -> Path:
        """The best checkpoint's model as a folder of its own; `finish` adds to it before it gets its name."""
        best = self.checkpoints.best()
        assert best is not None, "a run ends with a checkpoint"
        target = self.folder / "model"
        self.load_weights(best)
        if self.average is not None:
            self.average.load_state_dict(read_state(best, "average"))
            self.average.write()
        weights = model_state(self.model)
        if self.accelerator.is_main_process:
            partial = target.with_name("model.partial")
            try:
                partial.mkdir(exist_ok=True)
                self._save_model(partial, weights)
                finish(partial)
                publish(partial, target)
                if self.config.adapter.merge_at_end:
                    with without_bars():
                        adapters_files.save_merged(self.model, self.folder / "merged", self.parts.processor)
            except OSError as error:
                raise CheckpointError(f"{target} could not be written: {error}. Every step is in {best.parent}; make "
                                      "room, then run the same command with --resume") from error  # fmt: skip
        self.accelerator.wait_for_everyone()
        return target

    def agreed(self, values: dict[str, float]) -> dict[str, float]:
        """The main process's numbers: what follows from them has to be the same everywhere."""
        if self.accelerator.num_processes == 1:
            return values
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([values])[0]

    def mean(self, values: dict[str, torch.Tensor]) -> dict[str, float]:
        """Numbers averaged over the processes."""
        if not values:
            return {}
        stacked = torch.stack([whole(value).to(self.accelerator.device) for value in values.values()])
        return dict(zip(values, self.accelerator.reduce(stacked, "mean").tolist(), strict=True))


def accelerator_for(config: RunConfig) -> Any:
    """Accelerate, for as many processes as it was launched with."""
    require("accelerate", "train", "training")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    # It refuses a second precision in one process; whoever trains twice in a notebook has done with the first
    AcceleratorState._reset_state()
    # Objectives leave parts of a model unused: a projection that no term looks through, a tower whose vectors are kept
    # and gradients are what is sent, not copies of it
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True)
    # Processes that were started together must know of each other, or all would write one folder. On CPUs Accelerate
    # looks only if it is told to, which `accelerate launch` does and torchrun does not
    world = int(os.environ.get("WORLD_SIZE", "1"))
    cpu = world > 1 and not torch.accelerator.is_available()
    accelerator = Accelerator(mixed_precision=config.precision, kwargs_handlers=[ddp], cpu=cpu)
    if accelerator.num_processes != world:
        raise ValueError(
            f"WORLD_SIZE is {world} and this process belongs to a group of {accelerator.num_processes}: start the run "
            "with accelerate launch, or unset WORLD_SIZE for one process alone"
        )
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("precision=fp16 needs a GPU: set precision=bf16, or no")
    return accelerator


def check_sharded(model: nn.Module) -> None:
    """An average is kept shard by shard, so what trains has to be sharded before it begins."""
    if not any(hasattr(weight, "device_mesh") for weight in model.parameters()):
        raise ValueError("FSDP has sharded nothing: check fsdp_auto_wrap_policy, or set ema=none")


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Without transformers' progress bars for single files: the run has a bar of its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The generators that anything may draw from without asking: Python's, numpy's and torch's."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    found = {
        "python": {"version": version, "numbers": torch.tensor(numbers), "gauss": gauss},
        "numpy": {
            "kind": kind,
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "rest": [int(position), int(has_gauss), float(cached)],
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def set_random_state(state: dict[str, Any]) -> None:
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["numbers"].tolist()), python["gauss"]))
    np.random.set_state((numpy["kind"], numpy["keys"].numpy().astype(np.uint32), *numpy["rest"]))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def to_device(state: Any, device: torch.device) -> Any:
    """A nested state with its tensors on a device."""
    if isinstance(state, torch.Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {key: to_device(value, device) for key, value in state.items()}
    return [to_device(value, device) for value in state] if isinstance(state, list) else state


def enumerated(values: list[Any]) -> Iterator[tuple[str, Any]]:
    return ((str(number), value) for number, value in enumerate(values))
