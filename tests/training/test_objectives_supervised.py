"""Supervised learning: cross-entropy by hand, finite differences, and that it falls where labels are right."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unibrivl.training.objectives.supervised import SupervisedLoss


class Classifier(nn.Module):
    """Four features to three classes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, features):
        return SimpleNamespace(logits=self.linear(features))


@pytest.fixture
def batch():
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {"features": features, "label": torch.tensor([0, 2, 1, 1, 0, 2]), "sample_id": torch.arange(6)}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_it_is_the_cross_entropy_of_smoothed_labels(batch, smoothing):
    model = Classifier()
    terms = SupervisedLoss(model, smoothing)(model, batch)
    shares = model.linear(batch["features"]).softmax(1)
    wanted = torch.full((6, 3), smoothing / 3, dtype=torch.float64)
    wanted[torch.arange(6), batch["label"]] += 1 - smoothing
    assert set(terms) == {"classes"}
    torch.testing.assert_close(terms["classes"].double(), -(wanted * shares.log()).sum(1).mean(), atol=1e-6, rtol=0)


def test_its_gradient_is_that_of_finite_differences(batch):
    model = Classifier()
    objective = SupervisedLoss(model, 0.1)
    objective(model, batch)["classes"].backward()
    weight, step = model.linear.weight, 1e-2
    for place in ((0, 0), (2, 3)):
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * step
                found.append(float(objective(model, batch)["classes"]))
                weight[place] -= sign * step
        assert abs((found[0] - found[1]) / (2 * step) - float(weight.grad[place])) < 1e-4


def test_it_falls_on_right_labels_and_is_higher_on_shuffled_ones(batch):
    model = Classifier()
    objective, optimizer = SupervisedLoss(model), torch.optim.Adam(model.parameters(), lr=0.1)
    before = float(objective(model, batch)["classes"])
    for _ in range(40):
        optimizer.zero_grad()
        objective(model, batch)["classes"].backward()
        optimizer.step()
    after = float(objective(model, batch)["classes"])
    shuffled = float(objective(model, {**batch, "label": batch["label"].roll(1)})["classes"])
    assert after < 0.8 * before and shuffled > after + 0.5


def test_what_is_missing_or_impossible_is_said(batch):
    model = Classifier()
    with pytest.raises(ValueError, match="no label"):
        SupervisedLoss(model)(model, {"features": batch["features"]})
    with pytest.raises(ValueError, match="below 1"):
        SupervisedLoss(model, 1.0)
