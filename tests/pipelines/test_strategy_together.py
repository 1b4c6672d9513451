"""Strategies at once, and strategies by name."""

from __future__ import annotations

import json

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_diffusion as tiny  # noqa: E402

from unibrivl.pipelines.strategies_unibrivl import STRATEGIES, strategy_named  # noqa: E402
from unibrivl.pipelines.strategy_guide import Guide  # noqa: E402
from unibrivl.pipelines.strategy_halving import Halving  # noqa: E402
from unibrivl.pipelines.strategy_rerank import Rerank  # noqa: E402
from unibrivl.pipelines.strategy_together import Together  # noqa: E402

FEW = Halving(num_candidates=4, rounds=((0.3, 0.5),))


@pytest.fixture(scope="module")
def pipe():
    return tiny.pipeline()


def draw(pipe, strategy, **arguments):
    call = {"num_inference_steps": 4, "height": 16, "width": 16, "output_type": "pt", "prompt": "a dog"}
    sound = {"audio": tiny.sound(3), "sampling_rate": tiny.RATE_HZ}
    return pipe(**{**call, **sound, "strategy": strategy, "generator": tiny.generator(), **arguments})


def test_guided_candidates_are_halved(pipe):
    halved = draw(pipe, FEW)
    both = draw(pipe, Together(Guide(scale=0.2), FEW), keep_candidates=True)
    assert len(both.candidates) == 4 and sum(one.score is not None for one in both.candidates) == 2
    assert both.scores[0] > halved.scores[0]
    guided = draw(pipe, Guide(scale=0.2, num_candidates=4), keep_candidates=True)
    by_seed = {one.seed: one for one in guided.candidates}
    for one in both.candidates[:2]:
        torch.testing.assert_close(one.image, by_seed[one.seed].image, atol=1e-4, rtol=0)


def test_one_after_the_other_each_sees_what_the_other_left(pipe):
    """Two halvings in one are the stricter of both, and two guides are a guide of both lengths."""
    output = draw(pipe, Together(FEW, Halving(num_candidates=4, rounds=((0.6, 0.25),))))
    assert sum(one.score is not None for one in output.candidates) == 1
    same = Halving(num_candidates=8, rounds=((0.5, 0.5),))
    half_of_half = Together(same, Halving(num_candidates=8, rounds=((0.5, 0.25),)))
    assert sum(one.score is not None for one in draw(pipe, half_of_half).candidates) == 2
    once = draw(pipe, Guide(scale=0.1)).scores[0]
    assert draw(pipe, Together(Guide(scale=0.1), Guide(scale=0.1))).scores[0] > once


def test_names_settings_and_back():
    strategy = strategy_named("guide + halving", scale=0.3, num_candidates=8)
    assert strategy.name == "guide+halving" and strategy.steers and strategy.needs_prompts
    assert strategy.num_candidates == 8 and strategy.parts[0].scale == 0.3
    assert strategy_named("guide+halving").num_candidates == 20
    for one in (strategy, *(kind() for kind in STRATEGIES.values()), FEW, Guide(scale=0.4, every=2)):
        told = json.loads(json.dumps(one.settings()))
        assert strategy_named(told.pop("name"), **told) == one
    assert strategy_named(FEW, num_candidates=6) == Halving(num_candidates=6, rounds=FEW.rounds)
    assert strategy_named(strategy, scale=0.1).parts == (Guide(scale=0.1), Halving())
    assert strategy_named(Together(Guide(), Rerank())).num_candidates == 20
    assert not strategy_named("embed+halving").needs_prompts


@pytest.mark.parametrize(
    ("given", "settings", "words"),
    [
        ("halfing", {}, "no strategy 'halfing': it is one of rerank, halving, guide, embed"),
        ("guide+", {}, "no strategy ''"),
        (None, {}, "no strategy None"),
        ("halving", {"scale": 1.0}, "halving has no setting 'scale': it has apart, num_candidates"),
        ("guide+halving", {"colour": 1.0}, "none of guide.halving has the setting 'colour'"),
        ("embed+guide", {"scale": 1.0}, "more than one of embed.guide"),
        ("guide+halving", {"num_candidates": 0}, "num_candidates must be at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, settings, words):
    with pytest.raises(ValueError, match=words):
        strategy_named(given, **settings)


def test_together_takes_two_plain_strategies():
    for parts in ((Guide(),), (Guide(), "halving"), (Together(Guide(), Halving()), Rerank())):
        with pytest.raises(ValueError, match="Together takes"):
            Together(*parts)


def test_components_are_given_back_when_the_second_cannot_begin(pipe):
    class Cannot(Rerank):
        def during(self, request):
            raise RuntimeError("no")

    wanted = [one.requires_grad for one in pipe.vae.parameters()]
    with pytest.raises(RuntimeError, match="no"):
        draw(pipe, Together(Guide(), Cannot()))
    assert [one.requires_grad for one in pipe.vae.parameters()] == wanted and any(wanted)
