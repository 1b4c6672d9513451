"""Steering: a hand on the pipeline for one call, and off it again whatever happens."""

from __future__ import annotations

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")

import tiny_diffusion as tiny  # noqa: E402

from unibrivl.pipelines import rows_unibrivl  # noqa: E402
from unibrivl.pipelines.rows_unibrivl import free_memory, free_of_the_system, rows_that_fit  # noqa: E402
from unibrivl.pipelines.steering_unibrivl import NoiseOfRows, Steering, let_go, pick  # noqa: E402
from unibrivl.pipelines.strategy_halving import Halving  # noqa: E402

FEW = Halving(num_candidates=4, rounds=((0.3, 0.5),))


@pytest.fixture
def pipe():
    return tiny.pipeline()


def draw(pipe, strategy=FEW, **arguments):
    call = {"num_inference_steps": 3, "height": tiny.SIDE, "width": tiny.SIDE, "output_type": "pt", "prompt": "a dog"}
    sound = {"audio": tiny.sound(3), "sampling_rate": tiny.RATE_HZ}
    return pipe(**{**call, **sound, "strategy": strategy, "generator": tiny.generator(), **arguments})


ENTRANCES = (("scheduler", "step"), ("unet", "forward"), ("unet", "_compiled_call_impl"))


def doors(pipe):
    """What stands where steering stands: nothing, offload's or the compiler's own, or a door."""
    found = [vars(getattr(pipe, part)).get(name) for part, name in ENTRANCES]
    return [one and ("door" if hasattr(one, "is_a_door") else one.__qualname__) for one in found]


def watch(pipe, seen):
    """Calls `seen(rows)` where the UNet begins, inside of steering."""
    return pipe.unet.conv_in.register_forward_pre_hook(lambda module, args: seen(len(args[0])))


class Stop(Exception):
    pass


def stop(*args, **kwargs):
    raise Stop


def stopped_in_the_unet(pipe):
    handle = pipe.unet.register_forward_pre_hook(stop)
    with pytest.raises(Stop):
        draw(pipe)
    handle.remove()


def stopped_in_the_callback(pipe):
    with pytest.raises(Stop):
        draw(pipe, callback_on_step_end=stop)


def stopped_while_scoring(pipe):
    listen = pipe.embed_pictures
    pipe.embed_pictures = stop
    with pytest.raises(Stop):
        draw(pipe)
    pipe.embed_pictures = listen


@pytest.mark.parametrize(
    ("accident", "offload"),
    [
        (stopped_in_the_unet, None),
        (stopped_in_the_callback, None),
        (stopped_while_scoring, None),
        (stopped_in_the_callback, "whole models"),
        (stopped_in_the_unet, "the UNet's layers"),
    ],
)
def test_doors_are_free_after_any_accident_and_the_next_call_is_as_ever(pipe, accident, offload):
    if offload == "whole models":
        pipe.enable_model_cpu_offload(device="cpu")
    elif offload:
        accelerate.cpu_offload(pipe.unet, execution_device=torch.device("cpu"))
    before = doors(pipe)
    first = draw(pipe)
    accident(pipe)
    assert doors(pipe) == before
    assert torch.equal(draw(pipe).images, first.images)


@pytest.mark.slow
def test_a_compiled_unet_is_steered_and_given_back(pipe):
    wanted = draw(pipe, guidance_scale=1.0)
    plain = pipe.unet
    pipe.unet = torch.compile(plain, backend="eager")
    before = doors(pipe)
    torch.testing.assert_close(draw(pipe, guidance_scale=1.0).images, wanted.images, atol=1e-5, rtol=0)
    assert doors(pipe) == before
    pipe.unet = plain
    plain.compile(backend="eager")
    before = doors(pipe)
    assert before[2] is not None
    torch.testing.assert_close(draw(pipe, guidance_scale=1.0).images, wanted.images, atol=1e-5, rtol=0)
    stopped_in_the_callback(pipe)
    assert doors(pipe) == before


def test_a_call_within_a_call_is_an_error_and_the_outer_one_goes_on(pipe):
    wanted, said = draw(pipe), []
    other = tiny.pipeline(scheduler=pipe.scheduler, unet=pipe.unet)

    def again(*args):
        with pytest.raises(RuntimeError, match="components of its own") as caught, Steering(other, 1):
            pass
        said.append(caught.value)
        return {}

    assert torch.equal(draw(pipe, callback_on_step_end=again).images, wanted.images)
    assert len(said) == 3 and doors(pipe) == [None] * 3
    shared = tiny.pipeline(unet=pipe.unet)
    with Steering(pipe, 1), pytest.raises(RuntimeError, match="UNet2DConditionModel is in another call"):
        Steering(shared, 1).__enter__()
    assert doors(shared) == doors(pipe) == [None] * 3


def test_one_candidate_is_not_steered_at_all(pipe, monkeypatch):
    stock = diffusers.StableDiffusionPipeline(**tiny.sd_parts())
    stock.set_progress_bar_config(disable=True)
    size = {"num_inference_steps": 3, "height": tiny.SIDE, "width": tiny.SIDE, "output_type": "pt"}
    wanted = stock("a dog", **size, generator=tiny.generator()).images
    monkeypatch.setattr(Steering, "__enter__", stop)
    assert torch.equal(draw(pipe, "rerank", num_candidates=1).images, wanted)
    with pytest.raises(Stop):
        draw(pipe, "rerank", num_candidates=2)


def test_an_interrupted_call_returns_what_is_there(pipe):
    def interrupt(pipe, step, timestep, tensors):
        pipe._interrupt = step == 1
        return {}

    output = draw(pipe, callback_on_step_end=interrupt)
    assert output.images.shape == (1, 3, tiny.SIDE, tiny.SIDE) and doors(pipe) == [None] * 3


@pytest.mark.parametrize(("max_rows", "guidance"), [(1, 1.0), (3, 1.0), (1, 7.5), (6, 7.5), (100, 7.5)])
def test_pieces_of_a_batch_are_the_batch(pipe, max_rows, guidance):
    whole = draw(pipe, guidance_scale=guidance)
    sizes = []
    handle = watch(pipe, sizes.append)
    cut = draw(pipe, guidance_scale=guidance, max_rows=max_rows)
    handle.remove()
    copies = 2 if guidance > 1 else 1
    assert max(sizes) <= max(max_rows, copies) and sum(sizes) == copies * (1 * 4 + 2 * 2)
    assert all(size % copies == 0 for size in sizes)
    torch.testing.assert_close(cut.images, whole.images, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="max_rows"):
        draw(pipe, max_rows=0)


def test_attention_that_tells_copies_by_their_place_sees_them_together(pipe):
    """PAG's processors cut a batch in three and treat each third in its way."""
    parts = {name: value for name, value in pipe.components.items() if not name.startswith("matcher")}
    pag = diffusers.StableDiffusionPAGPipeline(**parts, pag_applied_layers=["mid"])
    pag.set_progress_bar_config(disable=True)
    size = {"num_inference_steps": 3, "height": tiny.SIDE, "width": tiny.SIDE, "output_type": "pt"}
    sizes = []
    watch(pag, sizes.append)
    call = {"num_images_per_prompt": 4, "pag_scale": 3.0, **size}
    wanted = pag("a dog", **call, generator=[tiny.generator(seed) for seed in range(4)]).images
    with Steering(pag, 4, max_rows=6):
        found = pag("a dog", **call, generator=[tiny.generator(seed) for seed in range(4)]).images
    assert sizes == [12] * 3 + [6] * 6
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_when_memory_runs_out_pieces_become_smaller(pipe):
    wanted, sizes = draw(pipe), []

    def small(rows):
        if rows > 4:
            raise torch.OutOfMemoryError("no room")
        sizes.append(rows)

    watch(pipe, small)
    torch.testing.assert_close(draw(pipe).images, wanted.images, atol=1e-5, rtol=0)
    assert max(sizes) == 4
    watch(pipe, lambda rows: small(5))
    with pytest.raises(torch.OutOfMemoryError):
        draw(pipe)
    assert doors(pipe) == [None] * 3


def test_the_default_is_what_fits_the_free_memory(pipe, monkeypatch):
    latents = torch.zeros(8, 4, 16, 16)
    row = rows_unibrivl.ACTIVATIONS_OF_A_ROW * 32 * 16 * 16 * 4
    fits = {free: rows_that_fit(pipe.unet, latents, free) for free in (0, 2 * row, 13 * row, 10**15)}
    assert list(fits.values()) == [1, 1, 4, 64]
    assert rows_that_fit(pipe.unet, latents.half(), 13 * row) == 8
    monkeypatch.setattr(rows_unibrivl, "free_memory", lambda device: 10 * row)
    sizes = []
    watch(pipe, sizes.append)
    draw(pipe, "rerank", num_candidates=5)
    assert sizes == [4, 4, 2] * 3
    monkeypatch.setattr(rows_unibrivl, "free_memory", lambda device: None)
    assert rows_that_fit(pipe.unet, latents) == 8


def test_what_is_free_comes_from_the_system_and_its_container(tmp_path):
    assert free_of_the_system(str(tmp_path)) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  8000 kB\nMemAvailable:    3000 kB\n")
    assert free_of_the_system(str(tmp_path)) == 3000 * 1024
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("1000\n")
    for limit, found in (("max\n", 3000 * 1024), ("501000\n", 500000)):
        (tmp_path / "sys/fs/cgroup/memory.max").write_text(limit)
        assert free_of_the_system(str(tmp_path)) == found
    here = free_memory(torch.device("cpu"))
    assert here is None or here > 1 << 20
    assert free_memory(torch.device("meta")) is None


def test_conditions_are_picked_wherever_they_lie():
    rows, tables = torch.arange(6.0)[:, None], torch.arange(5)
    given = {"text": rows, "more": [rows, (tables, "name")], "none": None}
    found = pick(given, torch.tensor([4, 1]), 6)
    assert found["text"].tolist() == [[4.0], [1.0]] and found["more"][0].tolist() == [[4.0], [1.0]]
    assert found["more"][1][0] is tables and found["none"] is None


def test_a_schedulers_own_noise_is_asked_for_the_rows_that_are_left():
    class Brownian:
        noise_sampler = None

    scheduler = Brownian()
    scheduler.noise_sampler = lambda start, end: torch.arange(4.0) * (end - start)
    let_go(scheduler, torch.tensor([1, 3]), 4)
    let_go(scheduler, torch.tensor([1]), 2)
    assert isinstance(scheduler.noise_sampler, NoiseOfRows)
    assert scheduler.noise_sampler(0.0, 2.0).tolist() == [6.0]


def test_a_pipeline_that_counts_otherwise_is_told_so(pipe):
    with Steering(pipe, 3), pytest.raises(ValueError, match="3"):
        pipe.scheduler.step(torch.zeros(2, 4, 8, 8), 1, torch.zeros(2, 4, 8, 8))
    with Steering(pipe, 3), pytest.raises(ValueError, match="no multiple"):
        pipe.unet(torch.zeros(4, 4, 8, 8), 1, encoder_hidden_states=torch.zeros(4, 7, 32))
