"""SpeechLM's pre-training as an objective: its terms are the model's own loss, and they teach."""

from __future__ import annotations

import pytest
import torch
from tiny_objectives import total
from tiny_towers import AUDIO, sounds, units

from unibrivl.modeling import SpeechLMConfig, SpeechLMForPreTraining
from unibrivl.training.objectives import SpeechLMLoss


def build(**fields):
    """Without dropout: what is masked is all that is drawn."""
    torch.manual_seed(0)
    quiet = {"layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0}
    config = SpeechLMConfig(
        **{**AUDIO["speechlm"], **quiet, "label_rate": 50, "swap_prob": 0.0, "ctc_dropout": 0.0, **fields}
    )
    return SpeechLMForPreTraining(config).train()


def batch_of(*kinds, seed=0):
    draw = torch.Generator().manual_seed(seed)
    found = {}
    if "sound" in kinds:
        heard = sounds(number=3)
        found |= {**heard, "unit_labels": torch.randint(4, 9, (3, 12), generator=draw)}
        found["mask_time_indices"] = torch.rand(3, 12, generator=draw) < 0.5
    if "text" in kinds:
        ids = units(3)["unit_ids"]
        letters = torch.randint(4, 11, (3, 6), generator=draw)
        found |= {"input_ids": ids, "letter_labels": letters, "text_mask_indices": torch.zeros_like(ids).bool()}
    return found


@pytest.mark.parametrize(
    "kinds, names",
    [
        (("sound",), {"units", "feature_penalty"}),
        (("text",), {"letters"}),
        (("sound", "text"), {"units", "feature_penalty", "letters"}),
    ],
)
def test_the_terms_are_the_models_loss(kinds, names):
    """Divided by the masked frames, or the units of text alone; and so are the gradients."""
    model, batch = build(), batch_of(*kinds)
    terms = SpeechLMLoss(model)(model, batch)
    assert set(terms) == names and all(float(term.detach()) > 0 for term in terms.values())
    total(terms).backward()
    ours = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    output = model(**batch)
    count = output.num_masked if "sound" in kinds else (batch["input_ids"] != 1).sum()
    (output.loss / count).backward()
    torch.testing.assert_close(total(terms).detach(), (output.loss / count).detach(), atol=1e-5, rtol=1e-6)
    for name, grad in ours.items():
        torch.testing.assert_close(grad, dict(model.named_parameters())[name].grad, atol=1e-5, rtol=1e-4)


def test_the_gradient_is_the_slope():
    """Along itself, by steps that change the loss by a hundredth: the heads give float32 whatever the model is in."""
    model, batch = build(feature_grad_mult=1.0).double(), batch_of("sound", "text")
    batch["input_values"] = batch["input_values"].double()
    objective = SpeechLMLoss(model)
    total(objective(model, batch)).backward()
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    length = sum(float(weight.grad.pow(2).sum()) for weight in weights)
    losses = []
    with torch.no_grad():
        for sign in (1, -2):
            for weight in weights:
                weight += sign * 0.01 / length * weight.grad
            losses.append(float(total(objective(model, batch))))
    assert (losses[0] - losses[1]) / 2 == pytest.approx(0.01, rel=1e-2)


def test_it_learns_units_and_letters_and_not_mixed_up_ones():
    """The loss falls on the labels it is trained with, and rises on the same labels given to other clips."""
    model, batch = build(feature_grad_mult=1.0), batch_of("sound", "text")
    objective = SpeechLMLoss(model)
    mixed = {
        **batch,
        "unit_labels": batch["unit_labels"].roll(1, 0),
        "letter_labels": batch["letter_labels"].roll(1, 0),
    }
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def losses():
        with torch.no_grad():
            return [{name: float(term) for name, term in objective(model, one).items()} for one in (batch, mixed)]

    before = losses()
    for step in range(60):
        objective.before_step(model, step)
        optimizer.zero_grad()
        total(objective(model, batch)).backward()
        optimizer.step()
    after = losses()
    for name in ("units", "letters"):
        assert after[0][name] < before[0][name] / 2, (name, before, after)
        assert after[1][name] > 2 * after[0][name], (name, before, after)


def test_evaluation_masks_what_it_is_told_and_nothing_else():
    model, batch = build().eval(), batch_of("sound")
    objective = SpeechLMLoss(model)
    assert float(objective(model, batch)["units"]) > 0
    del batch["mask_time_indices"]
    assert {float(term) for term in objective(model, batch).values()} == {0.0}
    assert objective.state_dict().keys() == {"step"}


def test_sound_without_labels_is_refused():
    model = build()
    with pytest.raises(ValueError, match="unit_labels"):
        SpeechLMLoss(model)(model, sounds(number=2))
    with pytest.raises(ValueError, match="letter_labels"):
        SpeechLMLoss(model)(model, {"input_ids": units(2)["unit_ids"]})
