"""The loop against the same steps written out, and what it decides: schedule, average, best, last, early stop."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import tiny_run
import torch

from unibrivl.modeling import UniBriVLModel
from unibrivl.training.checkpoint import Checkpoints
from unibrivl.training.config import override
from unibrivl.training.ema import AverageWeights
from unibrivl.training.journal import read_rows
from unibrivl.training.loop import DivergedError, train
from unibrivl.training.memory import estimate
from unibrivl.training.run import Run, random_state, set_random_state
from unibrivl.training.sampler import Batches, derive, permutation
from unibrivl.training.schedule import learning_rate, parameter_groups

PLAIN = ["evaluate_every=0", "primary=none", "ema=none", "log_every=1", "save_every=100"]


def rows_of(folder, kind):
    return [(row["step"], row[kind]) for row in read_rows(folder / "metrics.jsonl") if kind in row]


# ---- the pieces -----------------------------------------------------------------------------------------------------


def test_the_schedule_rises_in_a_line_and_falls_as_a_cosine():
    config = tiny_run.config(steps=100, warmup=10, learning_rate=0.2, final_share=0.1)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.02 * step for step in range(1, 11)])
    assert rates[10] == 0.2 and rates[55] == pytest.approx(0.1 * 0.2 + 0.9 * 0.2 / 2)
    assert all(earlier > later for earlier, later in itertools.pairwise(rates[10:]))
    assert 0.02 < rates[99] < 0.0202  # the share itself is one step further
    none = tiny_run.config(steps=5, warmup=0, learning_rate=0.2)
    assert learning_rate(0, none) == 0.2 and learning_rate(4, none) > 0
    longer = tiny_run.config(steps=3, warmup=10, learning_rate=0.2)
    assert [learning_rate(step, longer) for step in range(3)] == pytest.approx([0.02, 0.04, 0.06])


def test_vectors_do_not_decay_and_frozen_weights_are_left_out():
    model = tiny_run.build(tiny_run.config()).model
    decaying, others = parameter_groups(model, 0.3)
    assert decaying["weight_decay"] == 0.3 and others["weight_decay"] == 0
    assert all(weight.dim() > 1 for weight in decaying["params"])
    assert all(weight.dim() <= 1 for weight in others["params"])
    ids = {id(weight) for group in (decaying, others) for weight in group["params"]}
    assert ids == {id(weight) for weight in model.parameters() if weight.requires_grad}
    with pytest.raises(ValueError, match="nothing in this model trains"):
        parameter_groups(model.requires_grad_(False), 0.1)


def test_the_average_is_that_of_the_formula_and_gives_the_weights_back():
    model = torch.nn.Linear(3, 2)
    average = AverageWeights(model, 0.75)
    expected = model.weight.detach().double().clone()
    for step in range(5):
        with torch.no_grad():
            model.weight += step
        average.update()
        expected = 0.75 * expected + 0.25 * model.weight.detach().double()
    own = model.weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(model.weight.detach().double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(model.weight, own)


def test_every_epoch_is_a_permutation_and_every_position_can_be_taken_up():
    batches = itertools.islice(Batches(22, 4, seed=3), 12)
    drawn = [[draw.index for draw in batch] for batch in batches]
    for epoch in range(2):
        seen = sum(drawn[5 * epoch : 5 * epoch + 5], [])
        assert seen == permutation(22, 3, epoch)[:20] and len(set(seen)) == 20
    assert drawn[0] != drawn[5]
    for taken in (1, 4, 5, 7):
        again = list(itertools.islice(Batches(22, 4, 3, taken), 12 - taken))
        assert [[draw.index for draw in batch] for batch in again] == drawn[taken:]


def test_processes_share_every_batch_and_their_draws_are_those_of_one():
    whole = list(itertools.islice(Batches(22, 4, seed=3), 7))
    shares = [list(itertools.islice(Batches(22, 4, 3, rank=rank, world=2), 7)) for rank in range(2)]
    assert [first + second for first, second in zip(*shares, strict=True)] == whole
    draw = whole[6][0]
    assert draw.seed == derive(3, draw.epoch, draw.index) and draw.epoch == 1
    assert torch.equal(torch.rand(3, generator=draw.generator()), torch.rand(3, generator=draw.generator()))
    with pytest.raises(ValueError, match="multiple of 3"):
        Batches(22, 4, 3, world=3)
    with pytest.raises(ValueError, match="lower batch_size"):
        Batches(3, 4, 3)


def test_all_generators_are_restored():
    import random

    import numpy as np

    state = random_state()
    drawn = [random.random(), np.random.rand(), torch.rand(3).tolist(), random.gauss(0, 1), np.random.randn()]
    set_random_state(state)
    assert drawn == [random.random(), np.random.rand(), torch.rand(3).tolist(), random.gauss(0, 1), np.random.randn()]


def test_the_estimate_counts_what_there_is():
    model = tiny_run.build(tiny_run.config()).model
    model.vision_model.half()
    found = estimate(model, None, averaged=True)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    stored = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    assert (found.trained, found.weights, found.gradients) == (trained, stored, 4 * trained)
    assert (found.moments, found.average, found.objective) == (8 * trained, 4 * trained, 0)
    assert found.weights < 4 * found.parameters + 10_000 and found.total == stored + 16 * trained


# ---- the loop -------------------------------------------------------------------------------------------------------


def literal(config, clip):
    """The run written out: batches, terms, accumulated gradients, clipping, AdamW. No dropout here."""
    torch.manual_seed(derive(config.seed, 0))
    parts = tiny_run.build(config)
    model = parts.model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, config.weight_decay), lr=1.0, betas=config.betas)
    batches, losses, norms = iter(Batches(len(parts.data), config.batch_size, config.seed)), [], []
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        gradients = {}
        for _ in range(config.accumulation):
            batch = parts.collate([parts.data[draw] for draw in next(batches)])
            loss = sum(parts.objective(model, batch).values())
            losses.append(loss.item())
            weights = [weight for weight in model.parameters() if weight.requires_grad]
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                if gradient is not None:
                    gradients[weight] = gradients.get(weight, 0) + gradient / config.accumulation
        norms.append(math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients.values())))
        for weight, gradient in gradients.items():
            weight.grad = gradient * min(1.0, clip / norms[-1])
        optimizer.step()
        optimizer.zero_grad()
    return model, losses, norms


@pytest.mark.parametrize(("accumulation", "clip"), [(1, 0.5), (3, 1e9)])
def test_the_loop_makes_the_steps_that_are_written_out(tmp_path, accumulation, clip):
    settings = [*PLAIN, "steps=5", f"accumulation={accumulation}", f"clip={clip}", "model.dropout=0"]
    config = override(tiny_run.config(str(tmp_path / "run")), settings)
    outcome = train(config, tiny_run.build)
    model, losses, norms = literal(config, clip)
    rows = [row for _, row in rows_of(tmp_path / "run", "train")]
    means = [sum(losses[i : i + accumulation]) / accumulation for i in range(0, len(losses), accumulation)]
    assert [row["loss"] for row in rows] == pytest.approx(means, abs=1e-5)
    assert [row["gradient_norm"] for row in rows] == pytest.approx(norms, rel=1e-4)
    assert all(row["loss"] == pytest.approx(sum(row[name] for name in list(row)[1:4])) for row in rows)
    ours = UniBriVLModel.from_pretrained(outcome.model)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, atol=2e-5, rtol=1e-4, msg=name)


def test_bf16_with_checkpointing_in_a_process_that_trained_in_float32(tmp_path):
    """bfloat16 keeps float32 weights and comes near float32; a second precision in one process is no error."""
    losses = {}
    for name, extra in {"no": [], "bf16": ["precision=bf16", "gradient_checkpointing=true"]}.items():
        settings = [*PLAIN, "steps=4", *extra, "model.dropout=0"]
        outcome = train(override(tiny_run.config(str(tmp_path / name)), settings), tiny_run.build)
        losses[name] = [row["loss"] for _, row in rows_of(tmp_path / name, "train")]
        saved = UniBriVLModel.from_pretrained(outcome.model)
        assert {weight.dtype for weight in saved.parameters()} == {torch.float32}
    assert losses["bf16"] != losses["no"] and losses["bf16"] == pytest.approx(losses["no"], abs=0.05)


def test_checkpointing_of_activations_changes_nothing(tmp_path):
    for name in ("false", "true"):
        settings = [*PLAIN, "steps=3", f"gradient_checkpointing={name}", "model.freeze_images=false"]
        train(override(tiny_run.config(str(tmp_path / name)), settings), tiny_run.build)
    first, second = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("false", "true"))
    assert first == second


@pytest.mark.slow
def test_a_compiled_model_trains_alike(tmp_path):
    losses = []
    for name in ("false", "true"):
        settings = [*PLAIN, "steps=3", f"compile={name}", "model.dropout=0"]
        train(override(tiny_run.config(str(tmp_path / name)), settings), tiny_run.build)
        losses.append([row["loss"] for _, row in rows_of(tmp_path / name, "train")])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def scripted(scores):
    """The tiny run with an evaluation that gives these numbers, one after the other."""
    given = iter(scores)

    def build(config):
        parts = tiny_run.build(config)
        parts.evaluate = lambda model: {"score": next(given), "training": float(model.training)}
        return parts

    return build


def test_best_and_last_stay_and_the_best_becomes_the_model(tmp_path):
    settings = ["steps=10", "evaluate_every=2", "save_every=1", "keep=2", "accumulation=1"]
    config = override(tiny_run.config(str(tmp_path)), settings)
    outcome = train(config, scripted([0.1, 0.9, 0.3, 0.9, 0.2]))
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    assert [path.name for path in checkpoints.all()] == ["step_00000004", "step_00000009", "step_00000010"]
    assert checkpoints.best().name == "step_00000004" and checkpoints.last().name == "step_00000010"
    assert (outcome.best, outcome.best_step, outcome.step) == (0.9, 4, 10)
    assert outcome.metrics == {"score": 0.2, "training": 0.0}
    averaged = UniBriVLModel.from_pretrained(outcome.model).state_dict()
    plain = UniBriVLModel.from_pretrained(checkpoints.best()).state_dict()
    from unibrivl.training.checkpoint import read_state

    average = read_state(checkpoints.best(), "average")
    assert all(torch.equal(averaged[name], value) for name, value in average.items())
    assert any(not torch.equal(plain[name], value) for name, value in average.items())
    results = json.loads((outcome.model / "results.json").read_text())
    assert [row["value"] for row in results if row["metric"] == "score"] == [0.9]
    assert json.loads((outcome.model / "training.json").read_text())["steps"] == 4


def test_less_can_be_better(tmp_path):
    settings = ["steps=6", "evaluate_every=2", "save_every=6", "direction=min", "accumulation=1"]
    outcome = train(override(tiny_run.config(str(tmp_path)), settings), scripted([0.5, 0.2, 0.4]))
    assert (outcome.best, outcome.best_step) == (0.2, 4)


def test_it_stops_when_nothing_gets_better_and_stays_stopped(tmp_path):
    settings = ["steps=40", "evaluate_every=2", "save_every=100", "patience=2", "accumulation=1"]
    config = override(tiny_run.config(str(tmp_path)), settings)
    outcome = train(config, scripted([0.1, 0.5, 0.4, 0.5, 0.9]))
    assert outcome.stopped and (outcome.step, outcome.best_step) == (8, 4)
    assert [step for step, _ in rows_of(tmp_path, "eval")] == [2, 4, 6, 8]
    again = train(config, scripted([]), resume=True)
    assert again.stopped and again.step == 8


def test_a_primary_metric_that_is_not_measured_is_an_error(tmp_path):
    config = override(tiny_run.config(str(tmp_path)), ["primary=r1"])
    with pytest.raises(ValueError, match="the evaluation gives score, width"):
        train(config, tiny_run.build)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    def build(config):
        parts = tiny_run.build(config)
        call = parts.objective
        parts.objective = tiny_run.TwoWays(float("nan"))
        assert call is not parts.objective
        return parts

    with pytest.raises(DivergedError, match="at step 2: lower learning_rate"):
        train(override(tiny_run.config(str(tmp_path)), ["save_every=50"]), build)


def test_the_run_writes_what_the_card_says(tmp_path):
    settings = ["steps=3", "log_every=2", "evaluate_every=3", "accumulation=1"]
    config = override(tiny_run.config(str(tmp_path)), settings)
    outcome = train(config, tiny_run.build, command="unibrivl train --recipe tiny --set steps=3")
    card = (outcome.model / "README.md").read_text()
    assert "unibrivl train --recipe tiny --set steps=3" in card and str(tmp_path) not in card
    assert [list(row) for row in read_rows(tmp_path / "metrics.jsonl")] == [["step", "train"]] * 2 + [["step", "eval"]]
    assert all(row["seconds"] > 0 for row in read_rows(tmp_path / "timings.jsonl"))
    from PIL import Image

    with Image.open(tmp_path / "curves.png") as page:
        colours = page.convert("RGB").getcolors(1 << 20)
    assert page.size[0] == 1120 and len(colours) > 20


def test_an_objective_that_has_nothing_to_say_yet_makes_no_step(tmp_path):
    """A queue that is still empty: the loss is 0 and has no gradient."""

    def build(config):
        parts = tiny_run.build(config)
        parts.objective.__class__ = type(
            "Silent",
            (tiny_run.TwoWays,),
            {"__call__": lambda self, model, batch: {"nothing": model(**batch).audio_embeds.detach().sum() * 0}},
        )
        return parts

    run = Run(override(tiny_run.config(str(tmp_path / "run")), PLAIN), build)
    before = {name: weight.clone() for name, weight in run.model.named_parameters()}
    from unibrivl.training.journal import Window
    from unibrivl.training.loop import optimizer_step

    window = Window()
    optimizer_step(run, window)
    assert window.means()["loss"] == 0
    assert all(torch.equal(before[name], weight) for name, weight in run.model.named_parameters())
