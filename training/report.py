"""What lies beside a finished model: training.json, results.json and the card that is rendered from them."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unibrivl.hub.card import render_card
from unibrivl.hub.facts import HUB_NAME
from unibrivl.training.adapters import trains
from unibrivl.training.checkpoint import read_json, write_json
from unibrivl.training.config import to_json
from unibrivl.utils.state_of_code import version

if TYPE_CHECKING:
    from unibrivl.training.run import Run

HIDDEN = ("output_dir",)  # a place on somebody's machine


def write_report(run: Run, folder: Path, command: str) -> None:
    """Into `folder`, which holds the model already."""
    config, about = run.config, run.parts.about
    command, commit = command or f"unibrivl train --recipe {config.recipe}", version()
    hidden = (*HIDDEN, "adapter.") if config.adapter.method == "full" else HIDDEN
    settings = {key: str(value) for key, value in to_json(config).items() if not key.startswith(hidden)}
    best = run.checkpoints.best()
    step = read_json(best / "checkpoint.json")["step"] if best else run.progress.step
    training = {
        "command": command,
        "commit": commit,
        "seed": config.seed,
        "steps": step,
        "epochs": step * config.accumulation // (len(run.parts.data) // config.batch_size),
        "hours": round(run.progress.seconds / 3600, 4),
        "machine": machine(run.accelerator.num_processes),
        "settings": settings,
        "towers": about.towers,
        "data": about.data,
        "licences": about.licences,
    }
    write_json(folder / "training.json", training)
    rows: list[dict] = []
    evaluated = read_json(best / "progress.json")["evaluated"] if best else None
    if evaluated:
        rows = [
            {
                "task": about.task,
                "dataset": about.dataset,
                "metric": name,
                "value": round(value, 6),
                "command": command,
                "commit": commit,
            }
            for name, value in evaluated.items()
        ]
        write_json(folder / "results.json", rows)
    # the folder still has its passing name, which is not the model's
    facts = {"name": f"unibrivl-{config.recipe}"}
    if run.adapted:
        card = render_card(None, facts=adapter_facts(run, facts, training, rows))
    else:
        card = render_card(folder, facts=facts)
    (folder / "README.md").write_text(card, encoding="utf-8")


def adapter_facts(run: Run, facts: dict, training: dict, results: list[dict]) -> dict:
    """What the card of an adapter is rendered from: there is no model beside it to be read."""
    base, method = run.model.get_base_model(), run.config.adapter.method
    settings = run.model.active_peft_config
    name = settings.base_model_name_or_path
    tower = {"model": name}
    if HUB_NAME.fullmatch(name) and not Path(name).exists():
        tower["relation"] = "adapter"
    if settings.revision:
        tower["revision"] = settings.revision
    count = trains(run.model).trained
    return {
        **facts,
        "name": f"{facts['name']}-{method}",
        "summary": f"An adapter ({method}) of {count:,} parameters for a {type(base).__name__}: it is loaded into the "
        "model named below, whose weights it leaves as they are.",
        "class": type(base).__name__,
        "model_type": base.config.model_type,
        "adapter_of": name,
        "parts": [{"name": "adapter", "model_type": method, "parameters": count}],
        "training": training,
        "results": results,
        "towers": {**run.parts.about.towers, "model": tower},
        "licences": run.parts.about.licences,
    }


def machine(processes: int) -> str:
    """What the run ran on, in words."""
    if torch.cuda.is_available():
        return f"{processes} x {torch.cuda.get_device_name()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processes} process{'es' if processes > 1 else ''}, {cores} cores, {platform.machine()}"
