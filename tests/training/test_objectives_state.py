"""What objectives remember: queues, momentum copies, and both through a state dict."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_objectives import batch_of, random, still_model, total
from tiny_towers import unibrivl_config
from torch import nn

from unibrivl.modeling import UniBriVLModel
from unibrivl.training.gather import Shares, num_processes, sum_over_processes
from unibrivl.training.momentum import MomentumCopy
from unibrivl.training.objectives import OBJECTIVES, CXLoss, DistillationLoss
from unibrivl.training.queue import NO_ID, EmbeddingQueue

CPU = torch.device("cpu")


# ---- queue ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[3, 3, 3], [5, 1, 4], [9], [2, 30, 1], [4, 4], [0, 3, 0]])
def test_a_queue_keeps_the_newest(sizes):
    """Any batch sizes, uneven, larger than the queue or empty, against a plain list."""
    queue, seen = EmbeddingQueue(7, 2), []
    for size in sizes:
        numbers = torch.arange(len(seen), len(seen) + size)
        queue.write(torch.stack([numbers, -numbers], 1).float(), numbers)
        seen += numbers.tolist()
    rows, ids = queue.read(CPU)
    assert sorted(ids.tolist()) == seen[-7:] and rows[:, 0].tolist() == ids.tolist()
    assert queue.num_filled == len(rows) == min(7, len(seen))
    places = {int(number): place for place, number in enumerate(queue.ids_K) if number != NO_ID}
    assert all(place == number % 7 for number, place in places.items())


def test_a_queue_starts_empty_or_as_brivl_starts():
    assert [len(part) for part in EmbeddingQueue(5, 3).read(CPU)] == [0, 0]
    rows, ids = EmbeddingQueue(500, 3, "random").read(CPU)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(500))
    assert rows.mean(0).abs().max() < 0.1 and (ids == NO_ID).all()
    queue = EmbeddingQueue(4, 3, "random")
    assert torch.equal(queue.rows_KE, EmbeddingQueue(4, 3, "random").rows_KE), "processes would differ"
    queue.write(torch.zeros(1, 3), torch.tensor([8]))
    assert queue.ids_K.tolist() == [8, NO_ID, NO_ID, NO_ID] and queue.num_filled == 4


def test_a_queue_is_float32_and_what_was_read_stays():
    queue = EmbeddingQueue(2, 3)
    queue.write(torch.ones(2, 3, dtype=torch.bfloat16), torch.arange(2))
    rows, ids = queue.read(CPU)
    queue.write(torch.zeros(2, 3), torch.arange(5, 7))
    assert rows.dtype == torch.float32 and (rows == 1).all() and ids.tolist() == [0, 1]


@pytest.mark.parametrize("wrong", [{"size": 0}, {"width": 0}, {"init": "zeros"}])
def test_queues_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="queue"):
        EmbeddingQueue(**{"size": 4, "width": 2, **wrong})


# ---- momentum copy --------------------------------------------------------------------------------------------------


def build(**fields):
    torch.manual_seed(0)
    return UniBriVLModel(unibrivl_config("hubert", "resnet", **fields)).train()


def test_the_copy_averages_what_trains_and_shares_the_rest():
    model = build(freeze_audio_tower=True)
    slow = MomentumCopy(model, 0.75)
    trains = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert set(slow.averages) == trains and not any("tower" in name for name in trains)
    mine = dict(slow.model.named_parameters())
    for name, weight in model.named_parameters():
        assert (mine[name] is weight) == (name not in trains)
    assert all(a is b for a, b in zip(model.buffers(), slow.model.buffers(), strict=True))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        for name in trains:
            dict(model.named_parameters())[name].add_(1)
    slow.update(model)
    for name in trains:
        torch.testing.assert_close(slow.averages[name].detach(), before[name] + 0.25)


def test_the_copy_is_in_eval_mode_while_the_model_trains():
    """HuBERT's dropout, LayerDrop and masking, and batch normalisation, are off in the copy."""
    model = build(freeze_vision_model=False)
    slow = MomentumCopy(model, 0.99)
    waves = random(2, 4000)
    with torch.no_grad():
        first, second = (slow.on(CPU).get_audio_features(waves).pooler_output for _ in range(2))
        slow.model.get_image_features(random(2, 3, 64, 64))
    assert torch.equal(first, second)
    assert torch.equal(model.eval().get_audio_features(waves).pooler_output, first)
    assert not any(module.training for module in slow.model.modules())
    assert not any(weight.requires_grad for weight in slow.averages.values())


def test_buffers_of_the_copy_are_the_models_even_after_a_move():
    model = build(freeze_vision_model=False)
    slow = MomentumCopy(model, 0.99)
    model.to(torch.float64).to(torch.float32)  # as a move to a device, this replaces the buffers
    slow.update(model)
    model.train().get_image_features(random(2, 3, 64, 64))
    stats = [(name, buffer) for name, buffer in model.named_buffers() if "running_mean" in name]
    assert stats and all(buffer.any() and dict(slow.model.named_buffers())[name] is buffer for name, buffer in stats)


def test_with_lora_only_the_adapters_are_stored():
    peft = pytest.importorskip("peft", reason="LoRA needs peft: pip install peft")
    settings = peft.LoraConfig(r=2, target_modules=r"audio_model\.tower\..*\.(query|value|q_proj|v_proj)")
    model = peft.get_peft_model(still_model(), settings)
    objective = CXLoss(model, queue_size=8, momentum=0.5)
    averages = objective.momentum.averages
    assert averages and all("lora_" in name for name in averages)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    for step in range(3):
        objective.before_step(model, step)
        total(objective(model, batch_of(model.get_base_model(), seed=step, first_id=4 * step))).backward()
        optimizer.step()
    live = dict(model.get_base_model().named_parameters())
    assert any((average - live[name]).abs().max() > 1e-6 for name, average in averages.items())
    state = objective.state_dict()
    assert sum("lora_" in name for name in state) == len(averages) == len(state) - 1 - 2 * 3


def test_weights_too_narrow_for_an_average_are_refused():
    with pytest.raises(ValueError, match=r"bfloat16.*model\.float"):
        MomentumCopy(nn.Linear(2, 2).to(torch.bfloat16), 0.9)
    frozen = nn.Sequential(nn.Linear(2, 2).to(torch.bfloat16).requires_grad_(False), nn.Linear(2, 2))
    assert len(MomentumCopy(frozen, 0.9).averages) == 2
    with pytest.raises(ValueError, match="share"):
        MomentumCopy(frozen, 1.5)
    with pytest.raises(ValueError, match="not in the model"):
        MomentumCopy(frozen, 0.9).update(nn.Linear(2, 2))


# ---- state ----------------------------------------------------------------------------------------------------------

SETTINGS = {
    "cx": {"queue_size": 10, "momentum": 0.7},
    "moco": {"width": 24, "right": "audio_embeds", "queue_size": 10, "in_batch_negatives": True},
    "in_batch": {},
    "distillation": {"queue_size": 6, "width": 24, "ramp_steps": 5, "form": "mixed"},
}


def train(model, objective, optimizer, steps):
    losses = []
    for step in steps:
        objective.before_step(model, step)
        loss = total(objective(model, batch_of(model, seed=step, first_id=4 * step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def start(name, seed=0):
    model = still_model(seed)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=1e-3)
    return model, OBJECTIVES[name](model, **SETTINGS[name]), optimizer


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_goes_on_as_if_it_had_not_stopped(name):
    """Bit for bit, from tensors alone; calling `before_step` again for the step that was reached does no harm."""
    model, objective, optimizer = start(name)
    train(model, objective, optimizer, range(3))
    states = model.state_dict(), objective.state_dict()
    saved = [{key: value.clone() for key, value in state.items()} for state in states]
    moments = copy.deepcopy(optimizer.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in saved[1].values())
    again, resumed, moving = start(name, seed=5)
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    moving.load_state_dict(moments)
    assert train(model, objective, optimizer, range(3, 6)) == train(again, resumed, moving, range(3, 6))
    ours, other = resumed.state_dict(), objective.state_dict()
    assert set(ours) == set(other) and all(torch.equal(ours[key], other[key]) for key in ours)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_the_state_of_another_objective_is_refused():
    model = still_model()
    objective = CXLoss(model, queue_size=8)
    with pytest.raises(ValueError, match="queue_size"):
        objective.load_state_dict(CXLoss(model, queue_size=9).state_dict())
    with pytest.raises(ValueError, match="no state of CXLoss"):
        objective.load_state_dict(DistillationLoss(model).state_dict())
    with pytest.raises(ValueError, match="no state of DistillationLoss"):
        DistillationLoss(model).load_state_dict(objective.state_dict())
    frozen = CXLoss(still_model(freeze_audio_tower=True), queue_size=8)
    with pytest.raises(ValueError, match="the frozen parts"):
        objective.load_state_dict(frozen.state_dict())


def test_one_process_sends_nothing():
    rows = random(3, 2).requires_grad_()
    shares = Shares.of(rows)
    assert num_processes() == 1 and shares.gather(rows) is rows and shares.places(CPU).tolist() == [0, 1, 2]
    torch.testing.assert_close(shares.mean(rows[:, 0]), rows[:, 0].mean())
    assert int(sum_over_processes(torch.tensor(4))) == 4
    assert Shares((2, 3, 4), 2).start == 5 and Shares((2, 3, 4), 1).places(CPU).tolist() == [2, 3, 4]
