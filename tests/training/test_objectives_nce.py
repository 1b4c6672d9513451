"""The contrastive losses against the original codes' outputs (BriVL's queues) and an independent one (AAI's), against
naive loops, and against finite differences."""

from __future__ import annotations

import importlib.util
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_objectives import Embeddings, Tables, random, total
from torch import nn

from unibrivl.training.objectives import DistillationLoss, InBatchLoss, MoCoLoss
from unibrivl.training.objectives.base import unit
from unibrivl.training.objectives.distillation import divergence, mixed_cross_entropy
from unibrivl.training.objectives.nce import both_in_top, info_nce, moco_loss, nce, scores
from unibrivl.training.queue import NO_ID

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
spec = importlib.util.spec_from_file_location("fill_rule", GOLDEN / "brivl" / "fill_rule.py")
recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe)
brivl = load_file(GOLDEN / "brivl" / "moco.safetensors")
brivl_facts = json.loads((GOLDEN / "brivl" / "moco.json").read_text())
aai = dict(np.load(GOLDEN / "cavmae" / "losses_golden.npz"))
aai_facts = json.loads((GOLDEN / "cavmae" / "losses_golden.json").read_text())


def close(ours, other, atol=1e-5):
    torch.testing.assert_close(ours, other, atol=atol, rtol=0)


# ---- BriVL: two queues ----------------------------------------------------------------------------------------------

KEYS = [brivl["plain.k_img"], brivl["plain.k_txt"]]
QUERIES = [brivl["plain.q_img"], brivl["plain.q_txt"]]


def queues(case, suffix=""):
    return [brivl[f"{case}.{kind}_queue{suffix}"].T.contiguous() for kind in ("img", "text")]


class Pair(nn.Module):
    """The golden's two encoders, a linear layer each."""

    def __init__(self):
        super().__init__()
        self.imgencoder, self.textencoder = nn.ModuleDict({"fc": nn.Linear(10, 16)}), nn.ModuleDict()
        self.textencoder["fc"] = nn.Linear(10, 16)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                weight.copy_(torch.from_numpy(recipe.raw(f"moco:{name}", weight.shape)))

    def forward(self, images, texts, return_dict=True):
        image, text = self.imgencoder["fc"](images), self.textencoder["fc"](texts)
        return Embeddings(image_embeds=unit(image), text_embeds=unit(text))


def brivl_start(case="plain", **settings):
    """Model and objective as the golden starts."""
    model = Pair()
    objective = MoCoLoss(model, width=16, queue_size=12, queue_init="random", dataset_size=99, **settings)
    drawn = {
        name: weight + 0.5 * torch.from_numpy(recipe.raw(f"moco:{name.replace('.', '_mom.', 1)}", weight.shape))
        for name, weight in model.named_parameters()
    }
    objective.momentum.load_state_dict(drawn)
    for queue, rows in zip(objective.queues.values(), queues(case), strict=True):
        queue.rows_KE = rows
    return model, objective


def brivl_batch(step):
    inputs = (("images", "img"), ("texts", "txt"))
    return {name: torch.from_numpy(recipe.raw(f"moco:{kind}:{step}", (4, 10))) for name, kind in inputs}


def pointers(objective):
    return [queue.num_written % queue.size for queue in objective.queues.values()]


def test_the_stored_tensors_give_the_stored_loss():
    facts = brivl_facts["plain"]
    assert float(moco_loss(*QUERIES, *KEYS, *queues("plain"))) == pytest.approx(facts["loss"], abs=1e-5)
    image_queue, text_queue = queues("plain")
    assert float(nce(QUERIES[0], KEYS[1], text_queue).mean()) == pytest.approx(facts["i2t"], abs=1e-5)
    assert float(nce(QUERIES[1], KEYS[0], image_queue).mean()) == pytest.approx(facts["t2i"], abs=1e-5)


def test_brivls_first_step():
    """Terms, momentum keys after one update, gradients, and the queues after the write."""
    model, objective = brivl_start()
    facts = brivl_facts["plain"]
    objective.before_step(model, 0)
    terms = objective(model, brivl_batch(0))
    assert {name: float(term.detach()) for name, term in terms.items()} == {
        "image_to_text": pytest.approx(facts["i2t"], abs=1e-5),
        "text_to_image": pytest.approx(facts["t2i"], abs=1e-5),
    }
    slow = objective.momentum.model(**brivl_batch(0))
    close([slow.image_embeds, slow.text_embeds], KEYS)
    total(terms).backward()
    for encoder, stored in ((model.imgencoder, "grad_l2_img"), (model.textencoder, "grad_l2_txt")):
        assert float(encoder["fc"].weight.grad.norm()) == pytest.approx(facts[stored], abs=1e-5)
    close([queue.rows_KE for queue in objective.queues.values()], queues("plain", "_after"))
    assert pointers(objective) == facts["ptr"]


def test_brivls_first_five_steps():
    model, objective = brivl_start()
    facts = brivl_facts["sgd5"]
    optimizer = torch.optim.SGD(model.parameters(), lr=facts["lr"])
    losses = []
    for step in range(5):
        objective.before_step(model, step)
        loss = total(objective(model, brivl_batch(step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == pytest.approx(facts["losses"], abs=1e-5)
    assert pointers(objective) == facts["ptr"]
    close([queue.rows_KE for queue in objective.queues.values()], queues("sgd5"))
    averages = objective.momentum.averages
    for name, weight in model.named_parameters():
        close(weight.data, brivl[f"sgd5.learnable.{name}"])
        close(averages[name].data, brivl[f"sgd5.learnable.{name.replace('.', '_mom.', 1)}"])


@pytest.mark.parametrize("num_top", [1, 3])
def test_brivls_multi_label_rule(num_top):
    case = f"multi_label_top{num_top}"
    model, objective = brivl_start(case, num_top=num_top)
    objective.before_step(model, 0)
    loss = total(objective(model, brivl_batch(0)))
    facts = brivl_facts[case]
    assert float(loss.detach()) == pytest.approx(facts["loss"], abs=2e-5)  # float32 of 20
    loss.backward()
    for encoder, stored in ((model.imgencoder, "grad_l2_img"), (model.textencoder, "grad_l2_txt")):
        assert float(encoder["fc"].weight.grad.norm()) == pytest.approx(facts[stored], abs=1e-5)
    positives = both_in_top(*KEYS, *queues(case), num_top)
    assert positives[0, 3] and positives[2, 7] and not positives.all()
    with pytest.raises(ValueError, match="num_top ranks the queue alone"):
        brivl_start(num_top=1, in_batch_negatives=True)


# ---- AAI: contrast in the batch and distillation --------------------------------------------------------------------


def aai_draw(name, *shape):
    return np.random.Generator(np.random.PCG64(zlib.crc32(f"loss.{name}".encode()))).standard_normal(shape)


@pytest.fixture
def tables():
    """The golden's embeddings: sounds, pictures, texts, and what the momentum copies give."""
    a = aai_draw("a", 6, 32)
    made = {"a": a, "v": aai_draw("v", 6, 32) + 0.5 * a, "t": aai_draw("t", 6, 32) + 0.5 * a}
    made |= {"am": a + 0.3 * aai_draw("am", 6, 32), "vm": made["v"] + 0.3 * aai_draw("vm", 6, 32)}
    return {name: torch.from_numpy(value) for name, value in made.items()}


def aai_start(tables, train_pictures=True, **settings):
    """The objective over free embeddings, and the momentum copies of the golden."""
    model = Tables(audio=tables["a"], image=tables["v"], text=tables["t"])
    model.tables["text"].requires_grad_(False)
    model.tables["image"].requires_grad_(train_pictures)
    objective = DistillationLoss(model, text="text_embeds", dataset_size=6, **settings)
    slow = {"tables.audio": tables["am"], "tables.image": tables["vm"]}
    objective.momentum.load_state_dict({name: slow[name] for name in objective.momentum.averages})
    return model, objective


IDS = {"sample_id": torch.arange(6)}


@pytest.mark.parametrize("kind, other", [("AT", "t"), ("AV", "v")])
def test_info_nce(tables, kind, other):
    left, right = unit(tables["a"]), unit(tables[other])
    own = torch.eye(6, dtype=torch.bool)
    there, back = info_nce(left, right, own).mean(), info_nce(right, left, own).mean()
    facts = aai_facts[f"info_nce.{kind}"]
    assert [float(there), float(back)] == pytest.approx([facts["a2m"], facts["m2a"]], abs=1e-12)
    model = Tables(audio=tables["a"], image=tables[other])
    objective = InBatchLoss(model, (("audio_embeds", "image_embeds"),))
    terms = objective(model, IDS)
    assert float(total(terms).detach()) == pytest.approx(2 * facts["mean"], abs=1e-12)
    assert set(terms) == {"audio_to_image", "image_to_audio"}


def test_several_positives_by_label(tables):
    facts = aai_facts["info_nce.AT.multi_positive"]
    model = Tables(audio=tables["a"], image=tables["t"])
    objective = InBatchLoss(model, (("audio_embeds", "image_embeds"),))
    labelled = {**IDS, "label": torch.tensor(facts["labels"])}
    terms = {name: float(term.detach()) for name, term in objective(model, labelled).items()}
    assert terms == {
        "audio_to_image": pytest.approx(facts["a2t"], abs=1e-12),
        "image_to_audio": pytest.approx(facts["t2a"], abs=1e-12),
    }
    literal = InBatchLoss(model, (("audio_embeds", "image_embeds"),), use_labels=False)
    assert float(total(literal(model, labelled)).detach()) == pytest.approx(
        2 * aai_facts["info_nce.AT"]["mean"], abs=1e-12
    )


def test_distillation_in_both_forms(tables):
    """Totals, terms, targets and the gradient for the sounds; the forms differ by the targets' entropy alone."""
    grads, totals = [], []
    for form in ("kl", "mixed"):
        model, objective = aai_start(tables, form=form)
        terms = objective(model, IDS)
        loss = total(terms)
        loss.backward()
        totals.append(float(loss.detach()))
        grads.append(model.tables["audio"].grad)
        assert float(terms["audio_text"].detach()) == pytest.approx(aai_facts["info_nce.AT"]["mean"], abs=1e-12)
        if form == "kl":
            assert float(terms["distillation"].detach()) == pytest.approx(
                0.2 * aai_facts["momentum.L_t"]["sum"], abs=1e-12
            )
        else:
            stored = aai_facts["albef_code_form.itc_av"]
            stored = stored["mean"] if isinstance(stored, dict) else stored
            assert float(terms["audio_image"].detach()) == pytest.approx(stored, abs=1e-12)
        close(grads[-1], torch.from_numpy(aai["grad_a"]), atol=1e-12)
    assert totals == pytest.approx([aai_facts["torch_total_kl"], aai_facts["torch_total_ce"]], abs=1e-12)
    assert totals[1] - totals[0] == pytest.approx(aai_facts["identity_check"]["ce_form_minus_kl_form"], abs=1e-12)
    for name, left, right in (("a2v", "am", "vm"), ("v2a", "vm", "am")):
        targets = scores(unit(tables[left]), unit(tables[right]), 0.07).softmax(1)
        close(targets, torch.from_numpy(aai[f"q_{name}"]), atol=1e-12)


def test_distillation_with_a_frozen_picture_tower(tables):
    model, objective = aai_start(tables, train_pictures=False, alpha=1.0)
    assert set(objective.momentum.averages) == {"tables.audio"}
    stored = aai_facts["momentum.audio_only"]
    assert float(objective(model, IDS)["distillation"].detach()) == pytest.approx(sum(stored.values()) / 2, abs=1e-12)


def test_distillation_with_queues(tables):
    """The student's columns are the copy's embeddings too. Queues keep float32: so does the limit."""
    stored = {**aai_facts["queue.kl_form"], "mixed": aai_facts["queue.albef_code_form"]["mean"]}
    for form in ("kl", "mixed"):
        model, objective = aai_start(tables, form=form, queue_size=10, width=32)
        for name, tag in (("audio", "aq"), ("image", "vq")):
            rows = unit(torch.from_numpy(aai_draw(tag, 10, 32)))
            objective.queues[name].write(rows, torch.full((10,), NO_ID))
        terms = {name: float(term.detach()) for name, term in objective(model.eval(), IDS).items()}
        if form == "mixed":
            assert terms["audio_image"] == pytest.approx(stored["mixed"], abs=1e-6)
            continue
        assert terms["audio_image"] == pytest.approx(0.6 * stored["Lc_with_queue"], abs=1e-6)
        assert terms["distillation"] == pytest.approx(0.2 * (stored["kl_a2v"] + stored["kl_v2a"]), abs=1e-6)


def test_alpha_grows_over_the_first_steps(tables):
    _, objective = aai_start(tables, ramp_steps=100)
    for name, step in (("epoch0.step0", 0), ("epoch0.step25", 25), ("epoch0.step99", 99), ("epoch1.step0", 100)):
        assert objective.alpha_at(step) == pytest.approx(aai_facts["alpha_ramp"][name], abs=1e-12)
    model, objective = aai_start(tables, ramp_steps=4)
    objective.before_step(model, 0)
    terms = objective(model, IDS)
    assert float(terms["distillation"].detach()) == 0 < float(terms["audio_image"].detach())


def test_the_average_moves_as_the_golden_says():
    model = Tables(audio=torch.zeros(1, 1, dtype=torch.float64), image=torch.zeros(1, 1, dtype=torch.float64))
    objective = DistillationLoss(model, dataset_size=1)
    nn.init.ones_(model.tables["audio"])
    found = []
    for step in range(5):
        objective.before_step(model, step)
        objective.before_step(model, step)  # of another batch of the same step
        found.append(float(objective.momentum.averages["tables.audio"]))
    assert found == pytest.approx(aai_facts["ema.m0.995.from0.to1"], abs=1e-12)


# ---- against loops and finite differences ---------------------------------------------------------------------------


def sides(number=3, width=5):
    """Queries and keys of length one, which need a gradient, in float64."""
    return [unit(random(number, width, seed=seed, dtype=torch.float64)).requires_grad_() for seed in (1, 2)]


NEGATIVES = unit(random(4, 5, seed=3, dtype=torch.float64))
HIDDEN = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()


def test_nce_in_words():
    queries, keys = (side.detach() for side in sides())
    for row, ours in enumerate(nce(queries, keys, NEGATIVES, 0.2, HIDDEN)):
        own = math.exp(queries[row] @ keys[row] / 0.2)
        seen = [
            math.exp(queries[row] @ key / 0.2) for key, hides in zip(NEGATIVES, HIDDEN[row], strict=True) if not hides
        ]
        assert float(ours) == pytest.approx(-math.log(own / (own + sum(seen))), abs=1e-12)
    assert nce(queries, keys, NEGATIVES[:0]).tolist() == [0, 0, 0]


def test_gradients():
    queries, keys = sides()
    own = torch.eye(3, dtype=torch.bool)
    same = own | own.flip(1)
    positives = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]).bool()
    slow = scores(*(side.detach() for side in sides(width=4)), 0.2).log_softmax(1)

    def student(queries, keys):
        return scores(queries, keys, 0.2, torch.zeros(3, 3).bool()).log_softmax(1)

    for loss in (
        lambda queries, keys: nce(queries, keys, NEGATIVES, 0.2),
        lambda queries, keys: nce(queries, keys, NEGATIVES, 0.2, HIDDEN, positives),
        lambda queries, keys: info_nce(queries, keys, own, 0.2),
        lambda queries, keys: info_nce(queries, keys, same, 0.2, HIDDEN[:, :3] & ~same),
        lambda queries, keys: divergence(slow, student(queries, keys)),
        lambda queries, keys: mixed_cross_entropy(slow, student(queries, keys), own, 0.4),
        lambda queries, keys: moco_loss(queries, keys, *KEYS_64, NEGATIVES, NEGATIVES.flip(0), 0.2),
    ):
        assert torch.autograd.gradcheck(loss, (queries, keys))


KEYS_64 = [unit(random(3, 5, seed=seed, dtype=torch.float64)) for seed in (4, 5)]


def test_hidden_columns_leave_no_nan():
    queries, keys = sides()
    everything = torch.ones(3, 4, dtype=torch.bool)
    loss = nce(queries, keys, NEGATIVES, hidden_BK=everything).sum()
    student = scores(queries, keys, 0.07, ~torch.eye(3, dtype=torch.bool)).log_softmax(1)
    loss = loss + divergence(student.detach(), student).sum()
    loss.backward()
    assert float(loss.detach()) == 0 and not queries.grad.any()


@pytest.mark.parametrize("name", ["moco", "in_batch", "distillation"])
def test_training_on_pairs_tells_them_from_mismatched_ones(name):
    """The loss falls on the pairs, and rises on the same embeddings paired otherwise."""
    model = Tables(image=random(6, 8, seed=1), audio=random(6, 8, seed=2))
    fields = "image_embeds", "audio_embeds"
    objective = {
        "moco": lambda: MoCoLoss(model, 8, *fields, queue_size=32, momentum=0.5, in_batch_negatives=True),
        "in_batch": lambda: InBatchLoss(model, (fields,)),
        "distillation": lambda: DistillationLoss(model, momentum=0.5, dataset_size=6),
    }[name]()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def losses():
        with torch.no_grad():
            found = [float(total(objective(model.eval(), {**IDS, "shift": shift}))) for shift in (0, 1, 2)]
        model.train()
        return found

    before = losses()
    for step in range(60):
        objective.before_step(model, step)
        total(objective(model, IDS)).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = losses()
    assert after[0] < before[0] / 2
    assert after[1] > before[1] and after[2] > before[2]
