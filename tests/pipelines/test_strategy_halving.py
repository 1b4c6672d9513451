"""Halving: what it costs, that what survives is what a full run would have drawn, and who survives."""

from __future__ import annotations

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_diffusion as tiny  # noqa: E402

from unibrivl.pipelines.steering_unibrivl import Moment, Steering  # noqa: E402
from unibrivl.pipelines.strategy_halving import Halving  # noqa: E402
from unibrivl.pipelines.strategy_unibrivl import Request  # noqa: E402

# those that Stable Diffusion is run with
SCHEDULERS = (
    "DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler",
    "LCMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "DPMSolverSinglestepScheduler", "TCDScheduler", "SASolverScheduler",
)  # fmt: skip
QUICK = ("DDIMScheduler", "UniPCMultistepScheduler")
FEW = ((0.2, 0.5), (0.5, 0.25))


@pytest.fixture(scope="module")
def pipe():
    return tiny.pipeline()


def draw(pipe, strategy, seed=0, **arguments):
    call = {"num_inference_steps": 5, "height": 16, "width": 16, "output_type": "pt", "prompt": "a dog"}
    sound = {"audio": tiny.sound(3), "sampling_rate": tiny.RATE_HZ, "keep_candidates": True}
    return pipe(**{**call, **sound, "strategy": strategy, "generator": tiny.generator(seed), **arguments})


class CountRows:
    """Rows that really arrive at the UNet."""

    def __init__(self, unet):
        self.rows = 0
        self.handle = unet.register_forward_pre_hook(self)

    def __call__(self, module, args):
        self.rows += len(args[0])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.handle.remove()


@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.slow), 7.5])
def test_the_default_rounds_cost_a_third_of_best_of_twenty(pipe, guidance, monkeypatch):
    spent, steerings = [], []
    enter = Steering.__enter__
    monkeypatch.setattr(Steering, "__enter__", lambda self: steerings.append(self) or enter(self))
    for strategy in (Halving(), "rerank"):
        with CountRows(pipe.unet) as counted:
            draw(pipe, strategy, num_inference_steps=10, guidance_scale=guidance)
        spent.append(counted.rows)
    copies = 2 if guidance > 1 else 1
    assert [one.evaluations * copies for one in steerings] == spent
    assert spent[1] == 20 * 10 * copies
    assert spent[0] / spent[1] == pytest.approx(Halving().cost(10)) and spent[0] / spent[1] <= 0.35
    assert steerings[0].pictures == 20 + 14 + 6


def test_the_promise_holds_for_every_number_of_steps_from_five_on():
    assert all(Halving().cost(steps) <= 0.35 for steps in range(5, 101))
    assert Halving().cost(1) == 1.0
    assert Halving(num_candidates=8).cost(20, num_kept=4) == pytest.approx((3 * 8 + 2 * 6 + 15 * 4) / (20 * 8))


def same_as_a_full_run(pipe, name):
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    halved = draw(pipe, Halving(num_candidates=8, rounds=FEW))
    full = draw(pipe, "rerank", num_candidates=8)
    by_seed = {one.seed: one for one in full.candidates}
    survivors = [one for one in halved.candidates if one.score is not None]
    assert len(halved.candidates) == 8 and len(survivors) == 2
    for one in survivors:
        torch.testing.assert_close(one.image, by_seed[one.seed].image, atol=1e-5, rtol=0)
        assert one.score == pytest.approx(by_seed[one.seed].score, abs=1e-4)


@pytest.mark.parametrize("name", QUICK)
def test_survivors_are_what_a_full_run_draws(pipe, name):
    same_as_a_full_run(pipe, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [one for one in SCHEDULERS if one not in QUICK])
def test_survivors_are_what_a_full_run_draws_with_every_scheduler(pipe, name):
    same_as_a_full_run(pipe, name)


@pytest.mark.parametrize(
    "name", ["HeunDiscreteScheduler", pytest.param("KDPM2DiscreteScheduler", marks=pytest.mark.slow)]
)
def test_a_round_between_the_halves_of_a_second_order_step_lets_go_in_both(name):
    scheduler = getattr(diffusers, name)(**tiny.NOISE)
    pipe = tiny.pipeline(scheduler=scheduler)
    scheduler.set_timesteps(5)
    total = len(scheduler.timesteps)
    ends = {4: 0.5, 7: 0.25}
    rounds = tuple((at / total, share) for at, share in ends.items())
    strategy = Halving(num_candidates=8, rounds=rounds)
    assert [step + 1 for step in range(total) if strategy.round_after(step, total)] == list(ends)
    halves = []
    keep = Halving.keep

    def noted(self, moment, request):
        if self.round_after(moment.step, moment.num_steps):
            halves.append(scheduler.state_in_first_order)
        return keep(self, moment, request)

    Halving.keep = noted
    try:
        halved = draw(pipe, strategy)
    finally:
        Halving.keep = keep
    assert set(halves) == {True, False}
    by_seed = {one.seed: one.score for one in draw(pipe, "rerank", num_candidates=8).candidates}
    survivors = [one for one in halved.candidates if one.score is not None]
    assert len(survivors) == 2 and all(one.score == pytest.approx(by_seed[one.seed], abs=1e-4) for one in survivors)


def test_a_generator_decides_all_of_it(pipe):
    first, again, other = (draw(pipe, Halving(num_candidates=4), seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images) and first.scores == again.scores
    assert [one.seed for one in first.candidates] == [one.seed for one in again.candidates]
    assert not torch.equal(first.images, other.images)


def test_as_many_stay_as_pictures_are_wanted(pipe):
    output = draw(pipe, Halving(num_candidates=8), num_images_per_prompt=5)
    assert len(output.images) == 5 and output.scores == sorted(output.scores, reverse=True)
    assert sum(one.score is not None for one in output.candidates) == 5
    assert len(draw(pipe, Halving(num_candidates=2), num_images_per_prompt=3).images) == 3


def test_sounds_of_one_call_compete_each_for_itself(pipe):
    sounds = [tiny.sound(3), tiny.sound(4)]
    both = draw(pipe, Halving(num_candidates=4, rounds=FEW), audio=sounds, num_images_per_prompt=2)
    assert [one.sound for one in both.candidates if one.score is not None] == [0, 0, 1, 1]
    generators = [tiny.generator(5), tiny.generator(6)]
    both = draw(pipe, Halving(num_candidates=4, rounds=FEW), audio=sounds, generator=generators)
    for number, seed in enumerate((5, 6)):
        alone = draw(pipe, Halving(num_candidates=4, rounds=FEW), seed, audio=sounds[number])
        torch.testing.assert_close(both.images[number : number + 1], alone.images, atol=1e-4, rtol=0)


def test_every_sound_has_as_many_rows_as_every_other():
    """Rows are sounds x candidates, so no sound can be the last to be short of them."""
    queries = torch.nn.functional.normalize(torch.randn(3, 4), dim=-1)
    request = Request(None, queries, None, num_seeds=4, num_kept=1, call={})
    rows = torch.arange(request.num_rows)
    request.predicted = lambda moment: moment.rows
    request.scores = lambda pictures, rows, typical: (rows * 7 % 5).float()
    strategy = Halving(num_candidates=4, rounds=((0.3, 0.5), (0.6, 0.25)))
    for step, left in ((2, 2), (5, 1)):
        latents = torch.zeros(len(rows), 1, 1, 1)
        places = strategy.keep(Moment(None, step, 10, None, rows, latents, latents), request)
        rows = rows[places]
        assert request.sounds_of(rows).bincount().tolist() == [left] * 3
    assert rows.tolist() == [2, 7, 9]  # of 0 2 4 1 | 3 0 2 4 | 1 3 0 2


def survivors_of(prompts: list[str], scores: list[float], **settings) -> list[int]:
    """Of one sound's rows those that halving leaves after each of its rounds, of ten steps."""
    request = Request(None, torch.eye(1), [prompts], num_seeds=1, num_kept=1, call={})
    request.predicted = lambda moment: moment.rows
    request.scores = lambda pictures, rows, typical: torch.tensor(scores)[rows]
    strategy = Halving(num_candidates=len(prompts), **settings)
    rows = torch.arange(len(prompts))
    for step in range(10):
        latents = torch.zeros(len(rows), 1, 1, 1)
        places = strategy.keep(Moment(None, step, 10, None, rows, latents, latents), request)
        rows = rows if places is None else rows[places]
    return rows.tolist()


def test_early_on_a_prompt_competes_with_itself():
    prompts, scores = ["dog"] * 5 + ["fire"] * 3, [0.1, 0.5, 0.3, 0.2, 0.4, 0.9, 0.7, 0.8]
    assert survivors_of(prompts, scores, rounds=((0.2, 0.5),)) == [1, 2, 4, 5]
    assert survivors_of(prompts, scores, rounds=((0.2, 0.5),), apart=0) == [1, 5, 6, 7]
    assert survivors_of(prompts, scores, rounds=((0.5, 0.5),)) == [1, 5, 6, 7]
    assert survivors_of(prompts, scores, rounds=((0.2, 0.5), (0.5, 0.125))) == [5]
    assert survivors_of(prompts, scores, rounds=((0.2, 0.125),)) == [1]
    # a prompt with few candidates has the last place before one with many
    assert survivors_of(["dog"] * 3 + ["fire"], [0.3, 0.2, 0.1, 0.0], rounds=((0.2, 0.75),)) == [0, 1, 3]


def test_a_round_belongs_to_its_share_of_the_steps_where_those_are_odd(monkeypatch):
    """Half of 25 steps is held after twelve of them, and is the round of half of the steps all the same."""
    assert Halving().round_after(11, 25) == (0.5, 0.1)
    asked = []
    monkeypatch.setattr(Request, "prompts_of", lambda self, rows: asked.append(rows) or torch.zeros_like(rows))
    request = Request(None, torch.eye(1), [["dog", "fire"]], num_seeds=5, num_kept=1, call={})
    request.predicted = lambda moment: moment.rows
    request.scores = lambda pictures, rows, typical: rows.float()
    rows, latents = torch.arange(10), torch.zeros(10, 1, 1, 1)
    for step, count in ((2, 1), (11, 1)):
        Halving(num_candidates=10).keep(Moment(None, step, 25, None, rows, latents, latents), request)
        assert len(asked) == count


@pytest.mark.parametrize("apart", [-0.1, 1.5, float("nan")])
def test_a_share_of_the_steps_is_one(apart):
    with pytest.raises(ValueError, match="apart is a share of the steps"):
        Halving(apart=apart)


@pytest.mark.parametrize("typical", [-0.1, 1.5, float("nan")])
def test_a_share_of_the_score_is_one(typical):
    with pytest.raises(ValueError, match="typical is a share of the score"):
        Halving(typical=typical)


class Seen:
    """A pipeline that looks up what its pictures look like."""

    def __init__(self, vectors_AE):
        self.vectors_AE = torch.nn.functional.normalize(vectors_AE, dim=-1)

    def embed_pictures(self, pictures, gradients=False):
        return self.vectors_AE[pictures]


def test_what_is_typical_is_asked_of_each_sound_by_itself():
    vectors_AE = torch.tensor([[1.0, 0.0, 0.1], [1.0, 0.1, 0.0], [0.2, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.6, 0.8]])
    pipe, rows = Seen(vectors_AE), torch.tensor([0, 1, 2, 3, 4])
    request = Request(pipe, torch.eye(3)[[2, 1]], None, num_seeds=3, num_kept=1, call={})
    found = request.scores(rows, rows, typical=0.75)
    for mine, query in (([0, 1, 2], torch.eye(3)[2]), ([3, 4], torch.eye(3)[1])):
        theirs = pipe.vectors_AE[mine]
        mean = theirs.mean(0) / theirs.mean(0).norm()
        assert found[mine] == pytest.approx((0.25 * theirs @ query + 0.75 * theirs @ mean).tolist(), abs=1e-6)
    assert request.scores(rows, rows) == pytest.approx(
        (pipe.vectors_AE @ torch.eye(3)[[2, 2, 2, 1, 1]].T).diag().tolist()
    )


def test_the_one_that_differs_from_all_others_wins_by_its_sound_alone_and_not_among_typical_ones():
    vectors_AE = torch.tensor([[1.0, 0.0, 0.1], [1.0, 0.1, 0.2], [0.2, 0.0, 1.0], [1.0, 0.0, 0.0]])
    rows, latents = torch.arange(4), torch.zeros(4, 1, 1, 1)
    request = Request(Seen(vectors_AE), torch.eye(3)[2:], None, num_seeds=4, num_kept=1, call={})
    request.predicted = lambda moment: moment.rows
    moment = Moment(None, 1, 4, None, rows, latents, latents)
    one = {"num_candidates": 4, "rounds": ((0.5, 0.25),)}
    assert Halving(**one).keep(moment, request).tolist() == [2]
    assert Halving(**one, typical=0.8).keep(moment, request).tolist() == [1]
    # of two, both are as near to what lies between them: the sound decides
    request = Request(Seen(vectors_AE[1:3]), torch.eye(3)[2:], None, num_seeds=2, num_kept=1, call={})
    request.predicted = lambda moment: moment.rows
    two = Moment(None, 1, 4, None, rows[:2], latents[:2], latents[:2])
    assert Halving(num_candidates=2, rounds=((0.5, 0.5),), typical=0.9).keep(two, request).tolist() == [1]


@pytest.mark.parametrize("rounds", [(), ((0.5, 1.5),), ((0.5, 0.5), (0.2, 0.2)), ((0.2, 0.2), (0.5, 0.5))])
def test_rounds_that_go_the_wrong_way_are_refused(rounds):
    with pytest.raises(ValueError, match="rounds"):
        Halving(rounds=rounds)
