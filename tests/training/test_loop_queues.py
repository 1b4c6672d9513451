"""CXLoss and MoCoLoss through the whole loop: queues and momentum copies live on in checkpoints, bit for bit."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch
from tiny_objectives import still_model
from tiny_towers import pictures, sounds, unibrivl_config

from unibrivl.modeling import UniBriVLModel
from unibrivl.training.checkpoint import read_state
from unibrivl.training.config import RunConfig
from unibrivl.training.journal import read_rows
from unibrivl.training.loop import train
from unibrivl.training.objectives import OBJECTIVES
from unibrivl.training.parts import Parts
from unibrivl.training.sampler import Batches
from unibrivl.training.schedule import learning_rate

EXAMPLES, BATCH, STEPS = 10, 4, 6
SETTINGS = {
    "cx": {"queue_size": 6},
    "moco": {"queue_size": 6, "width": 24, "right": "audio_embeds"},
}
FILES = ("model.safetensors", "optimizer.safetensors", "objective.safetensors", "average.safetensors",
         "random.safetensors", "objective.json", "random.json", "progress.json")  # fmt: skip


class Killed(Exception):
    pass


@dataclass(frozen=True)
class Frozen:
    images: bool = True
    dropout: float = 0.1


class Pairs:
    def __init__(self):
        self.sounds, self.pictures = sounds("ast", EXAMPLES)["input_values"], pictures("clip", EXAMPLES)

    def __len__(self):
        return EXAMPLES

    def __getitem__(self, draw):
        noise = 0.1 * torch.randn(self.sounds[0].shape, generator=draw.generator())
        return {
            "input_values": self.sounds[draw.index] + noise,
            "pixel_values": self.pictures[draw.index],
            "sample_id": torch.tensor(draw.index),
        }


def collate(examples):
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def run_of(folder, name: str, images: bool = True, **fields) -> RunConfig:
    base = {"steps": STEPS, "batch_size": BATCH, "accumulation": 2, "ema": 0.9, "learning_rate": 1e-3, "warmup": 2}
    rows = {"evaluate_every": 3, "save_every": 3, "log_every": 1, "primary": "score", "keep": 2}
    return RunConfig(recipe=name, output_dir=str(folder), model=Frozen(images), **{**base, **rows, **fields})


def build(config: RunConfig, stop: int | None = None) -> Parts:
    """With `stop`, the run dies at that forward pass."""
    towers = unibrivl_config("ast", "clip", sa_dropout=config.model.dropout, freeze_vision_model=config.model.images)
    model = UniBriVLModel(towers)
    objective = OBJECTIVES[config.recipe](model, **SETTINGS[config.recipe])
    forward, passes = objective.forward, [0]

    def counted(model, batch):
        passes[0] += 1
        if passes[0] == stop:
            raise Killed
        return forward(model, batch)

    objective.forward = counted
    held_out = sounds("ast", 3, seed=9)["input_values"], pictures("clip", 3, seed=8)

    def evaluate(model):
        return {"score": float(model(held_out[0], pixel_values=held_out[1]).logits_audio_image.diagonal().mean())}

    return Parts(model, objective, Pairs(), collate, evaluate)


@pytest.mark.parametrize("name, images", [("cx", True), ("cx", False), ("moco", True)])
def test_three_steps_and_three_more_are_six(tmp_path, name, images):
    """Stopped in the middle of the fifth step, resumed from the third: weights, moments, queues, copies, metrics."""
    whole, cut = run_of(tmp_path / "whole", name, images), run_of(tmp_path / "cut", name, images)
    train(whole, build)
    with pytest.raises(Killed):
        train(cut, lambda config: build(config, stop=2 * 4 + 2))
    rows = read_rows(tmp_path / "cut" / "metrics.jsonl")
    assert max(row["step"] for row in rows) == 4  # the fourth is done again
    train(cut, build, resume=True)
    for step in (3, 6):
        for file in FILES:
            ours, theirs = (tmp_path / run / "checkpoints" / f"step_{step:08}" / file for run in ("cut", "whole"))
            if file == "progress.json":
                found = [{**json.loads(path.read_text()), "seconds": 0} for path in (ours, theirs)]
                assert found[0] == found[1]
            else:
                assert ours.read_bytes() == theirs.read_bytes(), f"{step}: {file}"
    for file in ("metrics.jsonl", "model/model.safetensors", "model/results.json"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file

    state = read_state(tmp_path / "cut" / "checkpoints" / "step_00000006", "objective")
    assert int(state["step"]) == STEPS - 1
    queues = [key for key in state if key.startswith("queue_")]
    copies = [key for key in state if key.startswith("momentum.")]
    assert len(queues) == 6 and copies
    for key in queues:  # every forward pass wrote its four rows: 48 in all, of which six are left
        if key.endswith("num_written"):
            assert int(state[key]) == STEPS * 2 * BATCH
        if key.endswith("ids"):
            assert len(set(state[key].tolist())) >= BATCH and state[key].max() < EXAMPLES
    before = read_state(tmp_path / "cut" / "checkpoints" / "step_00000003", "objective")
    assert any(not torch.equal(before[key], state[key]) for key in copies)
    assert all(not torch.equal(before[key], state[key]) for key in queues if key.endswith("rows"))


def test_the_objectives_state_is_needed_to_go_on(tmp_path):
    """Without its queue and copies a resumed run is another run: what the test above compares does depend on them."""
    config = run_of(tmp_path / "run", "cx")
    whole = train(run_of(tmp_path / "whole", "cx"), build)
    with pytest.raises(Killed):
        train(config, lambda config: build(config, stop=2 * 4 + 2))

    def forgetful(config):
        parts = build(config)
        parts.objective.load_state_dict = lambda state: None
        return parts

    train(config, forgetful, resume=True)
    ours, theirs = read_rows(tmp_path / "run" / "metrics.jsonl"), read_rows(whole.model.parent / "metrics.jsonl")
    assert ours[-1] != theirs[-1]


def test_the_loops_first_steps_are_those_of_the_bare_objective(tmp_path):
    """Without dropout: the same batches by hand give the same losses, the queue starting empty."""
    config = run_of(tmp_path / "run", "cx", accumulation=1, ema=None, clip=None, steps=3, evaluate_every=0,
                    primary=None, weight_decay=0.0)  # fmt: skip
    config = replace(config, model=Frozen(True, 0.0))
    start = {}

    def still(config):
        parts = build(config)
        model = still_model(freeze_vision_model=True)
        objective = OBJECTIVES["cx"](model, **SETTINGS["cx"])
        start.update(parts=Parts(model, objective, parts.data, parts.collate))
        return start["parts"]

    train(config, still)
    losses = [row["train"]["loss"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")]
    model = still_model(freeze_vision_model=True)
    objective = OBJECTIVES["cx"](model, **SETTINGS["cx"])
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], betas=config.betas,
                                  weight_decay=0.0)  # fmt: skip
    found = []
    for step, draws in zip(range(3), Batches(EXAMPLES, BATCH, config.seed), strict=False):
        optimizer.param_groups[0]["lr"] = learning_rate(step, config)
        objective.before_step(model, step)
        data = start["parts"].data
        loss = sum(objective(model, collate([data[draw] for draw in draws])).values())
        if loss.requires_grad:
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    assert losses == pytest.approx(found, abs=1e-6) and losses[0] == 0.0 and losses[2] > 0
