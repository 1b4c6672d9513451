"""What FSDP is told before it begins, and AdamW's moments through their saved form."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny_run
import torch
from torch import nn
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

from unibrivl.training.run import Together
from unibrivl.training.sharding import check_sharding, load_optimizer_state, optimizer_state


def sharded_by_size(smallest):
    plugin = SimpleNamespace(auto_wrap_policy=size_based_auto_wrap_policy, min_num_params=smallest)
    return SimpleNamespace(
        distributed_type="FSDP", is_fsdp2=True, num_processes=2, state=SimpleNamespace(fsdp_plugin=plugin)
    )


def test_lists_of_layers_are_not_sharded_by_size():
    """FSDP refuses them in words about forward passes; ours name the list and what to ask for."""
    model = nn.Sequential(nn.Linear(3, 3), nn.ModuleList([nn.Linear(10, 10) for _ in range(3)]))
    with pytest.raises(ValueError, match=r"'1' of 330 .*TRANSFORMER_BASED_WRAP.*--fsdp_min_num_params 330"):
        check_sharding(sharded_by_size(100), model)
    check_sharding(sharded_by_size(330), model)
    accelerator = sharded_by_size(330)
    accelerator.is_fsdp2 = False
    with pytest.raises(ValueError, match="--fsdp_version 2"):
        check_sharding(accelerator, model)


def test_who_asks_for_shards_on_a_cpu_is_told(monkeypatch, caplog):
    accelerator = SimpleNamespace(distributed_type="MULTI_CPU", num_processes=2)
    check_sharding(accelerator, nn.Linear(2, 2))
    assert not caplog.records
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_sharding(accelerator, nn.Linear(2, 2))
    assert "each process holds the whole model" in caplog.text


def test_layers_are_known_by_their_class():
    parts = tiny_run.build(tiny_run.config())
    assert "CLIPEncoderLayer" in Together(parts.model, parts.objective)._no_split_modules


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimiser_goes_on_from_its_saved_state(fused):
    """The same weights after two more steps, whichever way AdamW computes."""
    models = [nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused) for model in models]

    def step(which, seed):
        rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        models[which](rows).pow(2).sum().backward()
        optimizers[which].step()
        optimizers[which].zero_grad()

    for seed in range(2):
        step(0, seed)
    models[1].load_state_dict(models[0].state_dict())
    load_optimizer_state(optimizers[1], models[1], optimizer_state(optimizers[0], models[0]))
    for seed in (2, 3):
        step(0, seed)
        step(1, seed)
    assert torch.equal(models[0].weight, models[1].weight) and torch.equal(models[0].bias, models[1].bias)
    assert all(int(state["step"]) == 4 for state in optimizers[1].state.values())
    with pytest.raises(ValueError, match="do not train in this model"):
        load_optimizer_state(optimizers[1], models[1], {"other": {}})
