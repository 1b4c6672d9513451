"""Guidance: the gradient is that of the score, pictures fit the sound better for it, and nothing stays changed."""

from __future__ import annotations

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_diffusion as tiny  # noqa: E402

from unibrivl.pipelines.strategy_guide import Guide  # noqa: E402
from unibrivl.pipelines.strategy_unibrivl import Request  # noqa: E402

STEPS = 4


@pytest.fixture(scope="module")
def pipe():
    return tiny.pipeline()


def draw(pipe, strategy, seed=0, **arguments):
    call = {"num_inference_steps": STEPS, "height": tiny.SIDE, "width": tiny.SIDE, "output_type": "pt"}
    sound = {"audio": tiny.sound(3), "sampling_rate": tiny.RATE_HZ}
    return pipe("a dog", **sound, strategy=strategy, generator=tiny.generator(seed), **{**call, **arguments})


def request_of(pipe) -> Request:
    queries = pipe.listener.encode_audio([tiny.sound(3), tiny.sound(4)])
    return Request(pipe, queries, [["a dog"], ["rain"]], num_seeds=1, num_kept=1, call={})


def test_guided_pictures_score_higher_than_the_same_seeds_unguided(pipe):
    plain = [draw(pipe, "rerank", seed, num_candidates=1).scores[0] for seed in range(4)]
    guided = [draw(pipe, Guide(scale=0.2), seed).scores[0] for seed in range(4)]
    assert sum(after > before for before, after in zip(plain, guided, strict=True)) >= 3


def test_a_scale_of_zero_is_the_plain_pipeline_bit_for_bit(pipe):
    plain = draw(pipe, "rerank", num_candidates=1)
    assert torch.equal(draw(pipe, Guide(scale=0.0)).images, plain.images)


def test_the_gradient_is_that_of_the_score(pipe):
    """Along its own direction the score's finite difference is the gradient's length."""
    request, rows, guide = request_of(pipe), torch.arange(2), Guide(rows=2)
    # decoded within 0..1, where nothing is clipped
    clean = 0.3 * torch.randn(2, 4, 8, 8, generator=tiny.generator(5), dtype=torch.float32)
    with guide.during(request):
        gradient = guide.gradient(clean, rows, request) / 1024
        length = gradient.flatten(1).norm(dim=1)
        direction = gradient / length[:, None, None, None]
        step = 0.02
        with torch.no_grad():
            after, before = (guide.score(clean + sign * step * direction, rows, request) for sign in (1, -1))
    torch.testing.assert_close((after - before) / (2 * step), length, rtol=0.05, atol=0)


@pytest.mark.parametrize("changes", [{"rows": 2}, {"checkpointing": False}])
def test_cheaper_gradients_are_the_same_gradients(pipe, changes):
    request, rows = request_of(pipe), torch.arange(2)
    clean = torch.randn(2, 4, 8, 8, generator=tiny.generator(5))
    found = []
    for guide in (Guide(), Guide(**changes)):
        with guide.during(request):
            found.append(guide.gradient(clean, rows, request))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4 * float(found[0].abs().max()))


def test_large_pictures_are_decoded_smaller_for_the_gradient(pipe, monkeypatch):
    request, seen = request_of(pipe), []
    decode = pipe.decode_pictures
    monkeypatch.setattr(pipe, "decode_pictures", lambda latents: seen.append(latents.shape) or decode(latents))
    gradient = Guide(side=16).gradient(torch.randn(2, 4, 16, 8), torch.arange(2), request)
    assert seen == [(1, 4, 8, 4)] * 2 and gradient.shape == (2, 4, 16, 8) and bool(gradient.abs().sum() > 0)


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Counts the numbers that autograd keeps for the way back."""

    def __init__(self):
        self.kept: dict[int, int] = {}
        super().__init__(self.keep, lambda value: value)

    def keep(self, value):
        self.kept[value.data_ptr()] = value.numel()
        return value


def test_checkpointing_keeps_less_for_the_way_back(pipe):
    request, kept = request_of(pipe), []
    clean = torch.randn(1, 4, 16, 16)
    for guide in (Guide(checkpointing=True), Guide(checkpointing=False)):
        saved = Saved()
        with guide.during(request), saved:
            leaf = clean.clone().requires_grad_()
            guide.score(leaf, torch.arange(1), request)
        kept.append(sum(saved.kept.values()))
    assert kept[0] < 0.5 * kept[1]


def flags(*modules):
    names = ("training", "gradient_checkpointing", "_gradient_checkpointing_func")
    found = [[(name, vars(part).get(name)) for name in names] for one in modules for part in one.modules()]
    return found + [[value.requires_grad for value in one.parameters()] for one in modules]


def test_vae_and_matcher_are_as_before_whatever_happens(pipe):
    next(pipe.vae.parameters()).requires_grad_(False)
    before = flags(pipe.vae, pipe.matcher)
    draw(pipe, Guide())
    assert flags(pipe.vae, pipe.matcher) == before
    guide, request = Guide(), request_of(pipe)
    with pytest.raises(KeyboardInterrupt), guide.during(request):
        assert pipe.vae.decoder.gradient_checkpointing and flags(pipe.vae, pipe.matcher) != before
        raise KeyboardInterrupt
    assert flags(pipe.vae, pipe.matcher) == before
    pipe.vae.enable_gradient_checkpointing()  # the caller's own
    draw(pipe, Guide())
    assert pipe.vae.is_gradient_checkpointing
    pipe.vae.disable_gradient_checkpointing()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("DDIMScheduler", {"prediction_type": "v_prediction", "clip_sample": False}),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
        pytest.param("DDIMScheduler", {"prediction_type": "sample", "clip_sample": False}, marks=pytest.mark.slow),
        pytest.param("EulerDiscreteScheduler", {}, marks=pytest.mark.slow),
        pytest.param("UniPCMultistepScheduler", {}, marks=pytest.mark.slow),
        pytest.param("KDPM2DiscreteScheduler", {}, marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_prediction_is_guided(name, fields):
    scheduler = getattr(diffusers, name)(**tiny.NOISE, **fields)
    pipe = tiny.pipeline(scheduler=scheduler)
    plain, guided = draw(pipe, "rerank", num_candidates=1), draw(pipe, Guide(scale=0.2))
    assert guided.scores[0] > plain.scores[0]


def test_repeats_and_every_say_how_many_gradients_there_are(pipe, monkeypatch):
    counted = []
    gradient = Guide.gradient
    monkeypatch.setattr(Guide, "gradient", lambda *args: counted.append(1) or gradient(*args))
    draw(pipe, Guide(start=0, stop=1, every=2, repeats=3))
    assert len(counted) == 6
    assert [step for step in range(10) if Guide().works_at(step, 10)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_call_within_inference_mode_is_guided_too(pipe):
    outside = draw(pipe, Guide())
    with torch.inference_mode():
        inside = draw(pipe, Guide())
    assert torch.equal(inside.images, outside.images)


def test_offloaded_components_are_guided_to_the_same_picture():
    pipe = tiny.pipeline()
    wanted = draw(pipe, Guide()).images
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(draw(pipe, Guide()).images, wanted)


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (tiny.xl_pipeline, torch.float16),
        pytest.param(tiny.xl_pipeline, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(tiny.pipeline, torch.float16, marks=pytest.mark.slow),
        pytest.param(tiny.pipeline, torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_half_precision_keeps_its_direction(make, dtype):
    """SDXL's VAE is upcast for each decoding, and must stay so until the gradient is back."""
    pipe = make().to(dtype)
    assert pipe.vae.config.force_upcast
    plain, guided = draw(pipe, "rerank", num_candidates=1), draw(pipe, Guide(scale=0.3))
    assert guided.scores[0] > plain.scores[0] and pipe.vae.dtype == dtype


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": -1.0}, "leads away"),
        ({"start": 0.5, "stop": 0.5}, "start < stop"),
        ({"every": 0}, "every must be at least 1"),
        ({"num_candidates": 0}, "num_candidates must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Guide(**settings)
