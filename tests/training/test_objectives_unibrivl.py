"""Objectives on a tiny UniBriVL: CXLoss term by term, cached pictures, ids, evaluation, autocast, gradients."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from tiny_brivl import build, inputs
from tiny_objectives import batch_of, fill_queues, part_of, random, still_model, total
from tiny_towers import pictures
from torch import nn

from unibrivl.modeling import BriVLModel
from unibrivl.training.objectives import CXLoss, DistillationLoss, InBatchLoss, MoCoLoss
from unibrivl.training.objectives.nce import unit


def close(ours, other, atol=1e-6):
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


def softmax_loss(query, key, others, temperature):
    """In words: one row's loss against a list of negatives."""
    scores = torch.stack([query @ key, *(query @ other for other in others)]) / temperature
    return -scores.log_softmax(0)[0]


@pytest.mark.parametrize("in_batch", [False, True])
@pytest.mark.parametrize("frozen", [True, False])
def test_cx_is_what_its_formula_says(frozen, in_batch):
    """Row by row with the model's own methods, a copy of the model as the momentum copy, and filled queues."""
    model = still_model(dtype=torch.float64, freeze_vision_model=frozen)
    objective = CXLoss(model, queue_size=8, in_batch_negatives=in_batch)
    fill_queues(objective, 5)
    slow = copy.deepcopy(model).eval()
    with torch.no_grad():  # the model has trained since
        for weight in model.parameters():
            weight += weight.requires_grad * 0.03 * random(*weight.shape, seed=weight.numel(), dtype=torch.float64)
    batch = batch_of(model, 3, cached=False)
    terms = objective(model, batch)
    queue = {name: one.rows_KE[:5].double() for name, one in objective.queues.items()}
    sound, picture = batch["input_values"], batch["pixel_values"]
    tau, found = model.config.temperature, dict.fromkeys(terms, 0.0)
    with torch.no_grad():
        a, v = (model.get_audio_features(sound).pooler_output, model.get_native_image_features(picture).pooler_output)
        k_a = slow.get_audio_features(sound).pooler_output
        k_v = slow.get_native_image_features(picture).pooler_output
    for row in range(3):
        sounds, images = list(queue["audio"]), list(queue["image"])
        if in_batch:
            sounds += [k_a[other] for other in range(3) if other != row]
            images += [k_v[other] for other in range(3) if other != row]
        with torch.no_grad():
            f_m = [slow.project_image(image[None])[0] for image in [k_v[row], *images]]
            g_m = [slow.project_audio(one[None])[0] for one in [k_a[row], *sounds]]
            f_v, g_a = model.project_image(v[row, None])[0], model.project_audio(a[row, None])[0]
        found["image_to_audio"] += softmax_loss(f_v, k_a[row], sounds, tau) / 3
        found["audio_to_image"] += softmax_loss(a[row], f_m[0], f_m[1:], tau) / 3
        found["audio_to_native_image"] += softmax_loss(g_a, k_v[row], images, tau) / 3
        if not frozen:
            found["native_image_to_audio"] += softmax_loss(v[row], g_m[0], g_m[1:], tau) / 3
    assert len(terms) == (3 if frozen else 4)
    for name, value in found.items():
        close(terms[name].detach(), value, atol=1e-6)
    assert frozen == torch.equal(v, k_v)
    stored = {name: one.rows_KE[5:8] for name, one in objective.queues.items()}
    close(stored["audio"], k_a.float())
    close(stored["image"], k_v.float())
    assert objective.queues["audio"].ids_K[5:].tolist() == batch["sample_id"].tolist()


def test_the_first_step_is_silent():
    """Loss 0 and no gradient with empty queues; negatives of the batch speak at once."""
    model = still_model()
    objective = CXLoss(model, queue_size=8)
    loss = total(objective(model, batch_of(model)))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not any(weight.grad.any() for weight in model.parameters() if weight.grad is not None)
    assert float(total(objective(model, batch_of(model, first_id=10))).detach()) > 0.1
    assert float(total(CXLoss(model, queue_size=8, in_batch_negatives=True)(model, batch_of(model))).detach()) > 0.1
    assert float(total(CXLoss(model, queue_size=8, queue_init="random")(model, batch_of(model))).detach()) > 0.1


def test_the_configuration_says_what_is_frozen():
    """Not requires_grad, which adapters turn off."""
    model = still_model(freeze_vision_model=False)
    model.vision_model.requires_grad_(False)
    batch = batch_of(model, cached=False)
    assert "native_image_to_audio" in CXLoss(model, queue_size=8)(model, batch)
    model = still_model()
    model.vision_model.requires_grad_()
    objective = CXLoss(model, queue_size=8)
    assert "native_image_to_audio" not in objective(model, batch)
    averaged = {name.split(".")[0] for name in objective.momentum.averages}
    assert averaged == {"audio_model", "image_to_shared"}
    model = still_model(freeze_vision_model=False)
    averaged = {name.split(".")[0] for name in CXLoss(model, queue_size=8).momentum.averages}
    assert averaged == {"audio_model", "image_to_shared", "vision_model", "audio_to_native"}


# ---- inputs ---------------------------------------------------------------------------------------------------------


def grads(model, objective, batch):
    model.zero_grad()
    terms = objective(model, batch)
    total(terms).backward()
    return {name: term.detach() for name, term in terms.items()}, {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


@pytest.mark.parametrize("kind", [CXLoss, InBatchLoss, DistillationLoss])
def test_cached_pictures_do_as_well_as_pictures(kind):
    """The same terms and gradients, f's too; also from a cache in half precision, nearly. No hook stays behind."""
    model = still_model(dtype=torch.float64)
    batch = batch_of(model, cached=False)
    with torch.no_grad():
        embeds = model.get_native_image_features(batch["pixel_values"]).pooler_output
    found = []
    for cache in (None, embeds, embeds.half()):
        objective = kind(model)
        fill_queues(objective)
        asked = dict(batch)
        if cache is not None:
            asked["image_embeds"] = cache
            del asked["pixel_values"]
        found.append(grads(model, objective, asked))
    assert found[0][1]["image_to_shared.fc1.weight"].any()
    close(found[1], found[0])
    for name, term in found[2][0].items():
        close(term.double(), found[0][0][name], atol=0.02)
    assert not model._forward_hooks


def test_brivl_trains_with_its_own_objectives():
    """MoCo with a momentum copy of both towers, and in-batch contrast of pictures and texts."""
    model = build(BriVLModel).train()
    batch = {**inputs(BriVLModel), "sample_id": torch.arange(3)}
    moco = MoCoLoss(model, width=128, queue_size=8)
    assert {name.split(".")[0] for name in moco.momentum.averages} == {"text_model", "vision_model"}
    fill_queues(moco, 5)
    terms = moco(model, batch)
    in_batch = InBatchLoss(model, (("image_embeds", "text_embeds"),))
    assert set(terms) == set(in_batch(model, batch)) == {"image_to_text", "text_to_image"}
    assert in_batch.temperature == 0.07 and moco.queues["text"].num_filled == 8
    total(terms).backward()
    assert model.text_model.projection.fc1.weight.grad.any() and model.vision_model.projection.fc1.weight.grad.any()
    with pytest.raises(ValueError, match="BriVLModel takes no cached"):
        moco(model, {**batch, "pixel_values": None, "image_embeds": torch.zeros(3, 128)})


@pytest.mark.parametrize("kind", [CXLoss, InBatchLoss, DistillationLoss])
def test_a_frozen_image_tower_runs_once(kind):
    """Its momentum copy would be itself; cached pictures run it not at all; one that trains has a copy of its own."""
    calls = []
    for frozen, cached, expected in ((True, False, 1), (True, True, 0), (False, False, 1)):
        model = still_model(freeze_vision_model=frozen)
        model.vision_model.register_forward_pre_hook(lambda *_: calls.append(1))
        objective = kind(model)
        if objective.momentum is not None:
            assert (objective.momentum.model.vision_model is not model.vision_model) and not calls
            expected += not frozen
        objective(model, batch_of(model, cached=cached))
        assert len(calls) == expected
        calls.clear()


def test_batches_that_cannot_be():
    model = still_model()
    objective = CXLoss(model, queue_size=8)
    batch = batch_of(model)
    with pytest.raises(ValueError, match="no native_image_embeds: the batch needs"):
        objective(model, {name: value for name, value in batch.items() if name != "image_embeds"})
    with pytest.raises(ValueError, match="pixel_values and image_embeds"):
        objective(model, {**batch, "pixel_values": pictures("clip", 4)})
    with pytest.raises(ValueError, match=r"must be \(batch, 20\)"):
        objective(model, {**batch, "image_embeds": torch.zeros(4, 24)})
    with pytest.raises(ValueError, match="sample_id is"):
        objective(model, {**batch, "sample_id": torch.zeros(3, dtype=torch.int64)})
    with pytest.raises(ValueError, match="label is"):
        InBatchLoss(model)(model, {**batch, "label": torch.zeros(4, 3)})
    trained = still_model(freeze_vision_model=False)
    with pytest.raises(ValueError, match="the image tower trains"):
        CXLoss(trained, queue_size=8)(trained, batch)
    with pytest.raises(ValueError, match="one of"):
        DistillationLoss(model, form="ce")
    with pytest.raises(ValueError, match="width"):
        DistillationLoss(model, queue_size=4)
    with pytest.raises(ValueError, match="alpha"):
        DistillationLoss(model, alpha=2.0)


def test_a_row_does_not_meet_its_own_sample():
    """The second epoch finds in a queue larger than the data only the others; without ids it finds itself, and the
    user is told once, unless the data are known to be larger."""
    model = still_model()
    batch = batch_of(model)
    objective = CXLoss(model, queue_size=8)
    objective(model, batch)  # the queue holds exactly these four samples
    second = objective(model.eval(), batch)
    for row in range(4):  # the same as if the queue held the other three
        one = CXLoss(model, queue_size=8)
        rest = [other for other in range(4) if other != row]
        one(model.train(), part_of(batch, rest))
        alone = one(model.eval(), {name: value[row : row + 1] for name, value in batch.items()})
        second = {name: term - alone[name] / 4 for name, term in second.items()}
    close(sum(abs(term.detach()) for term in second.values()), torch.tensor(0.0), atol=1e-5)

    nameless = {name: value for name, value in batch.items() if name != "sample_id"}
    blind = CXLoss(model.train(), queue_size=8)
    with pytest.warns(UserWarning, match="samples meet themselves"):
        blind(model, nameless)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        worse = total(blind(model.eval(), nameless))
        CXLoss(model, queue_size=8, dataset_size=9)(model, nameless)
        DistillationLoss(model)(model, nameless)  # has no queue
        objective(model, batch)
    assert worse > total(objective(model, batch)) + 0.1


def test_rows_of_one_sample_do_not_repel_each_other_in_the_batch():
    """Two views of one sample have nobody to be told from; of two samples they have each other."""
    model = still_model().eval()
    batch = batch_of(model, 2)
    for objective in (InBatchLoss(model), CXLoss(model, in_batch_negatives=True), DistillationLoss(model)):
        assert float(total(objective(model, {**batch, "sample_id": torch.tensor([5, 5])})).detach()) == 0
        assert float(total(objective(model, batch)).detach()) > 0.1


def test_evaluation_reads_and_never_writes():
    model = still_model()
    objective = CXLoss(model, queue_size=8)
    fill_queues(objective, 6)
    before = objective.state_dict()
    with torch.no_grad():
        first = objective(model.eval(), batch_of(model))
        second = objective(model, batch_of(model))
    assert first == second and all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    objective(model.train(), batch_of(model))
    assert objective.queues["audio"].num_written == 10


# ---- precision and gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CXLoss, InBatchLoss, DistillationLoss])
def test_under_autocast_scores_queues_and_averages_stay_wide(kind):
    model = still_model()
    objective = kind(model)
    fill_queues(objective)
    wide, _ = grads(model, copy.deepcopy(objective), batch_of(model))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(**{"input_values": batch_of(model)["input_values"]}).native_audio_embeds.dtype == torch.bfloat16
        objective.before_step(model, 0)
        narrow, grad = grads(model, objective, batch_of(model))
    for name, term in narrow.items():
        assert term.dtype == torch.float32
        close(term, wide[name], atol=0.05 * float(wide[name].abs()) + 0.05)
    assert all(torch.isfinite(value).all() for value in grad.values())
    assert all(queue.rows_KE.dtype == torch.float32 for queue in objective.queues.values())
    if objective.queues:
        rows = objective.queues["audio"].rows_KE[: objective.queues["audio"].num_filled]
        close(rows.norm(dim=1), torch.ones(len(rows)))  # bfloat16's lengths are off by 2e-3
    if objective.momentum is not None:
        assert {average.dtype for average in objective.momentum.averages.values()} == {torch.float32}


@pytest.mark.parametrize("kind", [CXLoss, InBatchLoss, DistillationLoss])
@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_of_the_whole(kind, frozen):
    """Along a random direction of all weights that train, against differences, in float64. New heads bend much: the
    steps are small."""
    model = still_model(dtype=torch.float64, freeze_vision_model=frozen).eval()
    objective = kind(model)
    fill_queues(objective)
    batch = batch_of(model, 3, cached=frozen)
    _, found = grads(model, objective, batch)
    weights = {name: weight for name, weight in model.named_parameters() if name in found}
    steps = {name: 1e-9 * random(*weight.shape, seed=7, dtype=torch.float64) for name, weight in weights.items()}
    losses = []
    with torch.no_grad():
        for sign in (1, -2):
            for name, weight in weights.items():
                weight += sign * steps[name]
            losses.append(total(objective(model, batch)))
    slope = sum((found[name] * step).sum() for name, step in steps.items())
    torch.testing.assert_close(slope, (losses[0] - losses[1]) / 2, rtol=1e-4, atol=1e-12)


def test_cx_tells_pairs_from_mismatched_ones():
    """Trained on eight pairs, the loss falls on them and rises once sounds get other pictures."""
    model = still_model()
    objective = CXLoss(model, queue_size=64, momentum=0.9)
    fill_queues(objective, 32)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=2e-3)
    batch = batch_of(model, 8)
    batch["image_embeds"] = unit(random(8, model.config.native_dim, seed=3))

    def losses():
        with torch.no_grad():
            found = []
            for turn in (0, 1, 3):
                asked = {**batch, "image_embeds": batch["image_embeds"].roll(turn, 0)}
                found.append(float(total(objective(model.eval(), asked))))
        model.train()
        return found

    before = losses()
    for step in range(40):
        objective.before_step(model, step)
        optimizer.zero_grad()
        total(objective(model, batch)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    after = losses()
    assert after[0] < before[0] / 2, (before, after)
    assert after[1] > 2 * after[0] and after[2] > 2 * after[0], (before, after)
