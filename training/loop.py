"""The training loop. `train` is the whole of it; each line is a function below or a part of `training.run`.

    config -> Run -> (batch -> named terms -> gradients)* -> step -> metrics -> evaluation -> checkpoint -> model

It runs as one process, as many, or on many machines, by `accelerate launch`: batches are shared out by rank, gradients
are averaged by DDP or FSDP, and only the main process writes. A run that was killed at any point and resumed ends with
the bits of one that was not (one process, CPU).
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from unibrivl.training.config import RunConfig
from unibrivl.training.journal import Window
from unibrivl.training.parts import Batch, Parts
from unibrivl.training.report import write_report
from unibrivl.training.run import Run
from unibrivl.training.schedule import learning_rate

logger = logging.getLogger(__name__)


class DivergedError(ValueError):
    """The loss is no number any more; says since when, and what to try."""


@dataclass(frozen=True)
class Outcome:
    """
    Args:
        model: the folder of the finished model, for from_pretrained; of a run with an adapter, of the adapter.
        step, best, best_step: where the run ended, and where it was best.
        metrics: of its last evaluation.
        stopped: it ended early, for want of a new best.
        seconds: of training, over all starts.
    """

    model: Path
    step: int
    best: float | None
    best_step: int | None
    metrics: dict[str, float]
    stopped: bool
    seconds: float


def train(
    config: RunConfig,
    build: Callable[[Any], Parts],
    resume: bool = False,
    command: str = "",
    begun: Callable[[Run], None] | None = None,
) -> Outcome:
    """Train as `config` says what the recipe's `build(config)` made, and leave the best model in its folder.

    Args:
        config, build: a recipe's.
        resume: go on from the last whole checkpoint in `config.output_dir`, if there is one.
        command: what the model card says was run.
        begun: is called, on the main process, once everything is there and before the first step.
    """
    run = Run(config, build, resume)
    if begun is not None and run.accelerator.is_main_process:
        begun(run)
    progress, window, clock = run.progress, Window(), time.monotonic()
    with progress_bar(run) as bar:
        while progress.step < config.steps and not progress.stopped:
            optimizer_step(run, window)
            progress.step += 1
            evaluates, saves, logs = due(progress.step, config)
            if logs or evaluates or saves:
                clock = write_row(run, window, clock, bar)
            is_best = evaluate(run) if evaluates else False
            if saves or is_best or progress.stopped:
                run.save((progress.evaluated or {}).get(config.primary or "") if evaluates else None)
            bar.update()
    folder = run.export(lambda partial: write_report(run, partial, command))
    if run.journal is not None:
        run.journal.close()
    metrics = dict(progress.evaluated or {})
    return Outcome(
        folder, progress.step, progress.best, progress.best_step, metrics, progress.stopped, progress.seconds
    )


def due(step: int, config: RunConfig) -> tuple[bool, bool, bool]:
    """What follows this step: an evaluation, a checkpoint, a row of metrics. All of them follow the last."""
    last = step == config.steps
    evaluates = config.evaluate_every > 0 and (last or step % config.evaluate_every == 0)
    return evaluates, last or step % config.save_every == 0, last or step % config.log_every == 0


def optimizer_step(run: Run, window: Window) -> None:
    """`accumulation` forward and backward passes and one step of the weights."""
    config, accelerator = run.config, run.accelerator
    rate = learning_rate(run.progress.step, config)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.objective.before_step(run.model, run.progress.step)
    for part in range(config.accumulation):
        batch = on_device(next(run.batches), accelerator.device)
        is_last = part + 1 == config.accumulation
        with contextlib.nullcontext() if is_last else accelerator.no_sync(run.together):
            terms = run.together(batch)
            loss = sum(terms.values(), torch.zeros((), device=accelerator.device))
            if loss.requires_grad:  # an objective whose queue is still empty has nothing to say
                accelerator.backward(loss / config.accumulation)
        for name, term in {"loss": loss, **terms}.items():
            window.add(name, term)
    window.add("gradient_norm", clipped_norm(run))
    run.prepared.step()
    run.prepared.zero_grad()
    if run.average is not None:
        run.average.update()


def clipped_norm(run: Run) -> torch.Tensor:
    """The norm of all gradients, which are scaled down to `clip` where they exceed it."""
    parameters, clip = run.together.parameters(), run.config.clip
    if clip is not None:
        return torch.as_tensor(run.accelerator.clip_grad_norm_(parameters, clip))
    run.accelerator.unscale_gradients()
    norm = torch.nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # FSDP's is in pieces


def write_row(run: Run, window: Window, clock: float, bar: tqdm) -> float:
    """Averages since the last row go to the journal and the bar; the time of this row comes back."""
    step, config = run.progress.step, run.config
    rows = len(window.counts) and window.counts["gradient_norm"]
    values = run.mean(window.means())
    values["learning_rate"] = learning_rate(step - 1, config)
    if not math.isfinite(values["loss"]):
        last = run.checkpoints.last()
        raise DivergedError(
            f"the loss is {values['loss']} at step {step}: lower learning_rate ({config.learning_rate}), clip harder "
            f"({config.clip}) or warm up longer ({config.warmup} steps). "
            + (f"The last checkpoint is {last}" if last else "There is no checkpoint yet")
        )
    now = time.monotonic()
    examples = rows * config.batch_size * config.accumulation
    if run.journal is not None:
        run.journal.write(step, "train", values)
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        run.journal.clock(step, {"seconds": now - clock, "examples_per_s": examples / (now - clock), "peak": peak})
    bar.set_postfix(loss=f"{values['loss']:.4g}", rate=f"{examples / (now - clock):.3g}/s", refresh=False)
    return now


def evaluate(run: Run) -> bool:
    """Evaluate, write it down, and tell whether the primary metric was never as good. Counts towards an early stop."""
    config, progress = run.config, run.progress
    assert run.parts.evaluate is not None
    with run.evaluating() as model:
        found = run.agreed({name: float(value) for name, value in run.parts.evaluate(model).items()})
    progress.evaluated = found
    if run.journal is not None:
        run.journal.write(progress.step, "eval", found)
    if config.primary is None:
        return False
    if config.primary not in found:
        raise ValueError(f"primary is {config.primary!r} and the evaluation gives {', '.join(found)}: set one of them")
    value = found[config.primary]
    if progress.best is None or (value > progress.best if config.direction == "max" else value < progress.best):
        progress.best, progress.best_step, progress.waits = value, progress.step, 0
        return True
    progress.waits += 1
    progress.stopped = config.patience is not None and progress.waits >= config.patience
    return False


def on_device(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


def progress_bar(run: Run) -> tqdm:
    """Loss, examples a second and the time that is left; silent where nobody looks, and on all but one process."""
    hidden = True if not run.accelerator.is_main_process else None  # None: hidden unless it is a terminal
    return tqdm(total=run.config.steps, initial=run.progress.step, desc=run.config.recipe, unit="step", disable=hidden)
