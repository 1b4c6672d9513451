"""AAI's objective against every golden of its losses in float64, and on CAVT-MAE itself at toy size."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import tiny_cavmae
import torch
from tiny_cavtmae import build, everything
from tiny_objectives import Tables, total

from unibrivl.modeling import CAVMAEForPreTraining
from unibrivl.modeling.modeling_cavtmae import contrast, distillation
from unibrivl.training.objectives import CAVMAELoss, CAVTMAELoss
from unibrivl.training.objectives.base import unit
from unibrivl.training.queue import NO_ID

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "cavmae"
arrays = dict(np.load(GOLDEN / "losses_golden.npz"))
facts = json.loads((GOLDEN / "losses_golden.json").read_text())
IDS = {"sample_id": torch.arange(6)}


def draw(name, *shape):
    return np.random.Generator(np.random.PCG64(zlib.crc32(f"loss.{name}".encode()))).standard_normal(shape)


@pytest.fixture
def tables():
    """The golden's embeddings: sounds, pictures, texts, and what the momentum copies give."""
    a = draw("a", 6, 32)
    made = {"a": a, "v": draw("v", 6, 32) + 0.5 * a, "t": draw("t", 6, 32) + 0.5 * a}
    made |= {"am": a + 0.3 * draw("am", 6, 32), "vm": made["v"] + 0.3 * draw("vm", 6, 32)}
    return {name: torch.from_numpy(value) for name, value in made.items()}


def start(tables, train_pictures=True, **settings):
    model = Tables(audio=tables["a"], image=tables["v"], text=tables["t"])
    model.tables["text"].requires_grad_(False)
    model.tables["image"].requires_grad_(train_pictures)
    objective = CAVTMAELoss(model, **{"temperature": 0.07, "alpha": 0.4, "dataset_size": 6, **settings})
    slow = {"tables.audio": tables["am"], "tables.image": tables["vm"]}
    if objective.momentum is not None:
        objective.momentum.load_state_dict({name: slow[name] for name in objective.momentum.averages})
    return model, objective


def numbers(terms):
    return {name: float(term.detach()) for name, term in terms.items()}


def exactly(value):
    return pytest.approx(value, abs=1e-12, rel=0)


# ---- goldens, to 1e-12 in float64 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form, key", [("kl", "torch_total_kl"), ("ce", "torch_total_ce")])
def test_totals_terms_and_gradients(tables, form, key):
    model, objective = start(tables, distill_form=form, targets="one_hot")
    terms = objective(model, IDS)
    loss = total(terms)
    loss.backward()
    assert float(loss.detach()) == exactly(facts[key])
    assert float((model.tables["audio"].grad - torch.from_numpy(arrays["grad_a"])).abs().max()) < 1e-12
    found = numbers(terms)
    assert found["audio_text"] == exactly(facts["info_nce.AT"]["mean"])
    if form == "kl":
        assert found["audio_image"] == exactly(0.6 * facts["info_nce.AV"]["mean"])
        assert found["distillation"] == exactly(0.2 * facts["momentum.L_t"]["sum"])
        assert float(loss.detach()) == exactly(facts["total.kl_form"])
    else:
        assert found["audio_image"] == exactly(facts["albef_code_form.itc_av"])


def test_labels_make_several_positives_or_none_do(tables):
    labelled = {**IDS, "label": torch.tensor(facts["info_nce.AT.multi_positive"]["labels"])}
    model, objective = start(tables)
    assert numbers(objective(model, labelled))["audio_text"] == exactly(facts["info_nce.AT.multi_positive"]["mean"])
    model, objective = start(tables, targets="one_hot")
    assert numbers(objective(model, labelled))["audio_text"] == exactly(facts["info_nce.AT"]["mean"])


def test_with_a_frozen_image_side_the_copy_shares_it(tables):
    model, objective = start(tables, train_pictures=False, alpha=1.0)
    assert set(objective.momentum.averages) == {"tables.audio"}
    stored = facts["momentum.audio_only"]
    assert numbers(objective(model, IDS))["distillation"] == exactly(sum(stored.values()) / 2)


@pytest.mark.parametrize("form", ["kl", "ce"])
def test_queues(tables, form):
    """Queues keep float32 in training; here they are widened, so that the limit is the same."""
    model, objective = start(tables, distill_form=form, queue_size=10, width=32)
    for name, tag in (("audio", "aq"), ("image", "vq")):
        objective.queues[name].rows_KE = objective.queues[name].rows_KE.double()
        objective.queues[name].write(unit(torch.from_numpy(draw(tag, 10, 32))), torch.full((10,), NO_ID))
    found = numbers(objective(model.eval(), IDS))
    if form == "ce":
        assert found["audio_image"] == exactly(facts["queue.albef_code_form"]["mean"])
        return
    stored = facts["queue.kl_form"]
    assert found["audio_image"] == exactly(0.6 * stored["Lc_with_queue"])
    assert found["distillation"] == exactly(0.2 * (stored["kl_a2v"] + stored["kl_v2a"]))


def test_without_momentum_there_is_no_copy(tables):
    model, objective = start(tables, momentum=None, targets="one_hot")
    terms = numbers(objective(model, IDS))
    assert terms == {
        "audio_text": exactly(facts["info_nce.AT"]["mean"]),
        "audio_image": exactly(facts["info_nce.AV"]["mean"]),
    }
    objective.before_step(model, 0)
    assert objective.momentum is None and set(objective.state_dict()) == {"step"}


def test_the_ramp_and_the_average(tables):
    _, objective = start(tables, ramp_steps=100)
    for name, step in (("epoch0.step0", 0), ("epoch0.step25", 25), ("epoch0.step99", 99), ("epoch1.step0", 100)):
        assert objective.alpha_at(step) == exactly(facts["alpha_ramp"][name])
    zero = torch.zeros(1, 1, dtype=torch.float64)
    model = Tables(audio=zero, image=zero, text=zero)
    objective = CAVTMAELoss(model, dataset_size=1)
    torch.nn.init.ones_(model.tables["audio"])
    found = []
    for step in range(5):
        objective.before_step(model, step)
        found.append(float(objective.momentum.averages["tables.audio"]))
    assert found == pytest.approx(facts["ema.m0.995.from0.to1"], abs=1e-12)


def test_the_models_own_losses_are_the_goldens_too(tables):
    """`CAVTMAEModel(..., return_loss=True)` is made of these two functions."""
    rows = {name: unit(table) for name, table in tables.items()}
    own = torch.eye(6, dtype=torch.bool)
    for name in ("t", "v"):
        stored = facts[f"info_nce.A{name.upper()}"]["mean"]
        assert float(contrast(rows["a"] @ rows[name].t() / 0.07, own)) == exactly(stored)
    slow = rows["am"] @ rows["vm"].t() / 0.07
    student = rows["a"] @ rows["v"].t() / 0.07
    assert float(distillation(student, slow, "kl")) == exactly(facts["momentum.L_t"]["sum"])


# ---- on the model ---------------------------------------------------------------------------------------------------


def batch(number=3, cached=None):
    """With the pictures' and the texts' embeddings by `cached`, or with pictures and tokens."""
    found = {**everything(number), "sample_id": torch.arange(number), "label": torch.arange(number)}
    if cached is not None:
        tokens = found.pop("input_ids"), found.pop("text_attention_mask")
        with torch.no_grad():
            found["image_embeds"] = cached.get_native_image_features(found.pop("pixel_values")).pooler_output
            found["text_embeds"] = cached.get_native_text_features(*tokens).pooler_output
    return found


def test_only_what_trains_is_averaged_and_pictures_are_seen_once():
    model = build().train()
    objective = CAVTMAELoss(model, dataset_size=3)
    names = {name.split(".")[0] for name in objective.momentum.averages}
    assert names == {"audio_model", "temperature"}
    copy = objective.momentum.model
    assert copy.text_model.get_input_embeddings().weight is model.text_model.get_input_embeddings().weight
    seen, read = [], []
    for one in (model, copy):
        one.vision_model.register_forward_hook(lambda *_: seen.append(1))
        one.text_model.register_forward_hook(lambda *_: read.append(1))
    total(objective(model, batch())).backward()
    assert len(seen) == len(read) == 1
    assert float(model.temperature.grad.abs()) > 0
    tied = CAVTMAELoss(build(tie_unified_block=True), dataset_size=3)
    assert not tied.image_is_frozen
    with pytest.raises(ValueError, match="the image side trains"):
        tied(build(tie_unified_block=True), batch(cached=build()))


@pytest.mark.parametrize("momentum", [0.995, None])
def test_cached_pictures_and_texts_change_nothing(momentum):
    model = build(projection_dim=24).train()
    objective = CAVTMAELoss(model, momentum=momentum, dataset_size=3)
    plain = numbers(objective(model, batch()))
    assert plain == pytest.approx(numbers(objective(model, batch(cached=model))), abs=1e-5)
    assert len(plain) == (3 if momentum else 2)


def test_it_falls_on_matched_pairs_and_rises_on_shuffled():
    """Some steps on the same rows; then pictures and texts change places."""
    model = build().train()
    objective = CAVTMAELoss(model, dataset_size=4, ramp_steps=10)
    given = batch(4, cached=model)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=1e-3)
    losses = []
    for step in range(15):
        objective.before_step(model, step)
        loss = total(objective(model, given))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    shuffled = {**given, **{name: given[name].roll(1, 0) for name in ("image_embeds", "text_embeds")}}
    with torch.no_grad():
        assert losses[-1] < 0.7 * losses[0] < float(total(objective(model.eval(), shuffled)))


def test_what_cannot_be_is_refused():
    model = build()
    with pytest.raises(ValueError, match="distill_form is one of kl, ce"):
        CAVTMAELoss(model, distill_form="mixed")
    with pytest.raises(ValueError, match="a queue holds the momentum copy's"):
        CAVTMAELoss(model, momentum=None, queue_size=4)
    with pytest.raises(ValueError, match="no state of CAVTMAELoss"):
        CAVTMAELoss(model).load_state_dict(CAVTMAELoss(model, momentum=None).state_dict())


def test_pretraining_knows_labels():
    """Without labels CAV-MAE's own contrast in both directions; with them rows of one label are all right."""
    model = tiny_cavmae.build(CAVMAEForPreTraining, bidirectional_contrast=True).train()
    objective = CAVMAELoss(model)
    given = {"input_values": tiny_cavmae.sounds(4), "pixel_values": tiny_cavmae.pictures(4)}
    torch.manual_seed(5)
    terms = numbers(objective(model, given))
    torch.manual_seed(5)
    output = model(**given)
    assert terms["rebuilt"] == pytest.approx(float(output.reconstruction_loss.detach()), abs=1e-6)
    assert terms["audio_image"] == pytest.approx(float(output.contrastive_loss.detach()), abs=1e-6)
    torch.manual_seed(5)
    same = numbers(objective(model, {**given, "label": torch.zeros(4, dtype=torch.long)}))
    assert same["audio_image"] != pytest.approx(terms["audio_image"], abs=1e-6)
