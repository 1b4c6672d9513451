"""`UniBriVLPipeline` and `UniBriVLXLPipeline` with tiny components of the real classes: what a user of diffusers
expects, and what a sound adds. Strategies, sounds and receipts have files of their own.
"""

from __future__ import annotations

import inspect
from collections import Counter

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_diffusion  # noqa: E402
from diffusers import (  # noqa: E402
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.callbacks import SDCFGCutoffCallback  # noqa: E402
from tiny_diffusion import RATE_HZ, SIDE, generator, sound  # noqa: E402

from unibrivl.pipelines import UniBriVLPipeline, UniBriVLXLPipeline  # noqa: E402

PLAIN = {"prompt": "a dog", "num_inference_steps": 4, "output_type": "np", "height": SIDE, "width": SIDE}
HEARD = {**PLAIN, "sampling_rate": RATE_HZ, "num_candidates": 4, "strategy": "rerank"}
MAKE = {"sd": tiny_diffusion.pipeline, "xl": tiny_diffusion.xl_pipeline}
STOCK = {"sd": StableDiffusionPipeline, "xl": StableDiffusionXLPipeline}
PARTS = {"sd": tiny_diffusion.sd_parts, "xl": tiny_diffusion.xl_parts}


@pytest.fixture(scope="module", params=["sd", pytest.param("xl", marks=pytest.mark.slow)])
def kind(request):
    return request.param


@pytest.fixture
def pipe(kind):
    return MAKE[kind]()


@pytest.fixture
def stock(kind):
    return tiny_diffusion.quiet(STOCK[kind](**PARTS[kind]()))


def test_without_a_sound_it_is_the_plain_pipeline(pipe, stock):
    wanted = stock(**PLAIN, generator=generator())
    found = pipe(**PLAIN, generator=generator())
    assert type(found) is type(wanted) and np.array_equal(found.images, wanted.images)
    assert np.array_equal(pipe("a dog", **{k: v for k, v in PLAIN.items() if k != "prompt"}, generator=generator())[0],
                          wanted.images)  # fmt: skip


def test_one_candidate_is_the_plain_pipeline_bit_for_bit_and_is_scored(pipe, stock):
    wanted = stock(**PLAIN, generator=generator()).images
    output = pipe(audio=sound(), **HEARD | {"num_candidates": 1}, generator=generator())
    assert np.array_equal(output.images, wanted)
    score = pipe.embed_pictures(pipe.image_processor.numpy_to_pil(wanted)) @ pipe.listener.encode_audio(sound()).T
    assert output.scores == pytest.approx([float(score)], abs=1e-6)


def test_of_sdxl_too():
    stock = tiny_diffusion.quiet(StableDiffusionXLPipeline(**tiny_diffusion.xl_parts()))
    pipe, call = tiny_diffusion.xl_pipeline(), {**HEARD, "prompt_2": "rain"}
    wanted = stock(**PLAIN, prompt_2="rain", generator=generator()).images
    found = pipe(audio=sound(), **call | {"num_candidates": 1}, generator=generator())
    assert np.array_equal(found.images, wanted)
    pipe(audio=sound(), **call | {"strategy": "halving", "num_candidates": 6})


def test_the_best_come_first_and_all_are_told(pipe):
    output = pipe(audio=sound(), **HEARD, num_images_per_prompt=2, keep_candidates=True, generator=generator())
    scores = [one.score for one in output.candidates]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True)
    assert output.scores == scores[:2] and output.images.shape == (2, SIDE, SIDE, 3)
    assert all(np.array_equal(output.candidates[n].image, output.images[n]) for n in range(2))
    assert {one.prompt for one in output.candidates} == {"a dog"} and len({one.seed for one in output.candidates}) == 4


@pytest.mark.parametrize(("sure", "counts"), [(1e6, [7]), (1e-6, [2, 2, 1, 1, 1])])
def test_of_a_sound_it_is_sure_of_it_draws_one_label(sure, counts):
    pipe = tiny_diffusion.pipeline(reads="native")
    pipe.listener.logit_scale = sure
    call = {name: value for name, value in HEARD.items() if name != "prompt"} | {"num_candidates": 7}
    output = pipe(audio=[sound(), sound(1)], **call, keep_candidates=True, generator=generator())
    for number in range(2):
        drawn = Counter(one.prompt for one in output.candidates if one.sound == number)
        assert sorted(drawn.values(), reverse=True) == counts
    one = output.candidates[-1]  # the prompt it is said to have is the one it was drawn for
    again = pipe(**PLAIN | {"prompt": one.prompt}, generator=generator(one.seed)).images[0]
    assert np.abs(again - one.image).max() <= 1e-5


def test_a_candidate_is_drawn_again_from_its_seed(pipe):
    output = pipe(audio=sound(), **HEARD, keep_candidates=True, generator=generator(3))
    for one in output.candidates:
        again = pipe(**PLAIN, generator=generator(one.seed)).images[0]
        assert np.abs(again - one.image).max() <= 1e-5


def test_several_sounds_give_what_each_gives_alone(pipe):
    sounds = [sound(1), sound(2, 0.3)]
    prompts = ["a dog", "rain"]
    seeds = [generator(5), generator(6)]
    together = pipe(audio=sounds, generator=seeds, **HEARD | {"prompt": prompts}, keep_candidates=True)
    for number in range(2):
        call = HEARD | {"prompt": prompts[number]}
        alone = pipe(audio=sounds[number], generator=generator(5 + number), **call, keep_candidates=True)
        assert alone.scores[0] == pytest.approx(together.scores[number], abs=1e-5)
        assert np.abs(alone.images[0] - together.images[number]).max() <= 1e-4
        mine = [one for one in together.candidates if one.sound == number]
        assert [one.seed for one in mine] == [one.seed for one in alone.candidates]


def test_negative_prompts_and_second_prompts_are_one_for_all_or_one_for_each(kind, pipe):
    more = {"negative_prompt": "cat"} | ({"prompt_2": "rain", "negative_prompt_2": "a cat"} if kind == "xl" else {})
    call = HEARD | {"prompt": ["a dog", "a dog"], "num_candidates": 2}
    single = pipe(audio=sound(), generator=[generator(1), generator(2)], **call, **more)
    lists = {name: [value, value] for name, value in more.items()}
    both = pipe(audio=sound(), generator=[generator(1), generator(2)], **call, **lists)
    assert np.array_equal(single.images, both.images)
    assert not np.array_equal(
        single.images, pipe(audio=sound(), generator=[generator(1), generator(2)], **call).images
    )
    with pytest.raises(ValueError, match="negative_prompt for 2 sounds"):
        pipe(audio=sound(), **call | {"negative_prompt": ["a"] * 3})


def test_output_types_and_tuples(kind, pipe):
    def call(**how):
        return pipe(audio=sound(), **HEARD | how, generator=generator())

    arrays, pictures, tensors = (call(output_type=one).images for one in ("np", "pil", "pt"))
    assert np.array_equal(np.asarray(pictures[0]), (arrays[0] * 255).round().astype("uint8"))
    assert torch.equal(tensors[0].permute(1, 2, 0), torch.from_numpy(arrays[0]))
    latents = call(output_type="latent")
    assert latents.images.shape == (1, 4, SIDE // 2, SIDE // 2)
    assert latents.scores == pytest.approx(call().scores, abs=1e-5)
    plain = call(return_dict=False)
    assert isinstance(plain, tuple) and len(plain) == (2 if kind == "sd" else 1)
    assert np.array_equal(plain[0], arrays)


def test_prompt_embeds_latents_and_precomputed_sounds(kind, pipe):
    embeds = pipe.listener.encode_audio(sound())
    wanted = pipe(audio=sound(), **HEARD, generator=generator())
    found = pipe(
        audio_embeds=embeds, **{k: v for k, v in HEARD.items() if k != "sampling_rate"}, generator=generator()
    )
    assert np.array_equal(found.images, wanted.images) and found.scores == wanted.scores
    encoded = pipe.encode_prompt("a dog", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    given = dict(zip(names, encoded, strict=False))
    found = pipe(audio=sound(), **{k: v for k, v in HEARD.items() if k != "prompt"}, **given, generator=generator())
    assert np.abs(found.images - wanted.images).max() <= 1e-5 and found.candidates[0].prompt is None
    noise = torch.randn(4, 4, SIDE // 2, SIDE // 2, generator=generator())
    pipe(audio=sound(), **HEARD, latents=noise)
    with pytest.raises(ValueError, match="latents have 4 rows and 3 candidates"):
        pipe(audio=sound(), **HEARD | {"num_candidates": 3}, latents=noise)


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler])
def test_schedulers_are_exchanged_by_their_config(pipe, stock, scheduler):
    for one in (pipe, stock):
        one.scheduler = scheduler.from_config(one.scheduler.config)
    wanted = stock(**PLAIN, generator=generator()).images
    found = pipe(audio=sound(), **HEARD | {"num_candidates": 1}, generator=generator()).images
    assert np.array_equal(found, wanted)
    pipe(audio=sound(), **HEARD | {"strategy": "halving", "num_candidates": 6})


def test_callbacks_are_called_and_may_change_the_latents(pipe):
    seen = []

    def callback(given, step, timestep, tensors):
        assert given is pipe and set(tensors) == {"latents"}
        seen.append((step, len(tensors["latents"])))
        return {"latents": torch.zeros_like(tensors["latents"])}

    output = pipe(audio=sound(), **HEARD | {"output_type": "latent"}, callback_on_step_end=callback)
    assert seen == [(step, 4) for step in range(4)] and not output.images.any()


def test_a_callback_sees_the_tensors_it_asked_for(kind, pipe, stock):
    def callback(given, step, timestep, tensors):
        assert set(tensors) == {"prompt_embeds"}
        return {"prompt_embeds": tensors["prompt_embeds"] * 2}

    how = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    wanted = stock(**PLAIN, **how, generator=generator()).images
    assert np.array_equal(
        pipe(audio=sound(), **HEARD | {"num_candidates": 1}, **how, generator=generator()).images, wanted
    )
    if kind == "sd":  # an official callback says itself what it needs
        cutoff = SDCFGCutoffCallback(cutoff_step_ratio=0.5)
        wanted = stock(**PLAIN, callback_on_step_end=cutoff, generator=generator()).images
        call = HEARD | {"num_candidates": 1}
        found = pipe(audio=sound(), **call, callback_on_step_end=cutoff, generator=generator()).images
        assert np.array_equal(found, wanted)


def test_latents_that_are_no_numbers_end_the_call_with_the_step(pipe):
    def poison(given, step, timestep, tensors):
        return {"latents": tensors["latents"] * (float("nan") if step == 2 else 1)}

    with pytest.raises(ValueError, match="no numbers after step 3"):
        pipe(audio=sound(), **HEARD, callback_on_step_end=poison)
    assert "forward" not in vars(pipe.unet) and "step" not in vars(pipe.scheduler)


def test_slicing_and_tiling_of_the_vae_stay_as_they_were(pipe):
    wanted = pipe(audio=sound(), **HEARD | {"num_candidates": 6}, generator=generator()).images
    assert not pipe.vae.use_slicing
    pipe.vae.enable_slicing()
    found = pipe(audio=sound(), **HEARD | {"num_candidates": 6}, generator=generator()).images
    assert pipe.vae.use_slicing and np.abs(found - wanted).max() <= 1e-5
    pipe.vae.enable_tiling()
    pipe(audio=sound(), **HEARD | {"strategy": "halving", "num_candidates": 6})


def test_offload_is_as_declared(kind, pipe):
    wanted = pipe(audio=sound(), **HEARD | {"strategy": "halving"}, generator=generator())
    assert pipe._exclude_from_cpu_offload[-1] == "matcher"
    assert pipe.model_cpu_offload_seq == STOCK[kind].model_cpu_offload_seq
    other = MAKE[kind]()
    other.enable_model_cpu_offload(device="cpu")
    for _ in range(2):
        found = other(audio=sound(), **HEARD | {"strategy": "halving"}, generator=generator())
        assert np.array_equal(found.images, wanted.images)
    assert hasattr(other.vae, "_hf_hook") and not hasattr(other.matcher, "_hf_hook")
    other = MAKE[kind]()
    other.enable_sequential_cpu_offload(device="cpu")  # to run it takes an accelerator, for the plain pipeline too
    assert other.unet.device.type == "meta" and other.matcher.device.type == "cpu"
    assert other.listener.encode_audio(sound()).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_of_precision(pipe, dtype):
    pipe.to(dtype)
    output = pipe(audio=sound(), **HEARD | {"strategy": "halving"})
    assert np.isfinite(output.images).all() and np.isfinite(output.scores).all()
    assert pipe.vae.dtype == dtype


def test_the_signature_and_the_docstring_say_all(kind, pipe):
    names = list(inspect.signature(type(pipe).__call__).parameters)
    theirs = list(inspect.signature(STOCK[kind].__call__).parameters)
    assert names[: len(theirs) - 1] == theirs[:-1]
    assert {"audio", "strategy", "num_candidates", "mix", "windows"} < set(names)
    for name in set(names) - {"self", "kwargs"}:
        assert f"{name} " in type(pipe).__call__.__doc__ or f"{name}:" in type(pipe).__call__.__doc__, name
    with pytest.raises(TypeError, match="takes no argument 'guidance'"):
        pipe("a dog", guidance=3)


def flagging(pipe, flagged: list[bool]):
    def run(image, device, dtype):
        for row, bad in enumerate(flagged):
            if bad:
                image[row] = 0
        return image, list(flagged)

    pipe.run_safety_checker = run


def test_pictures_that_the_safety_checker_has_blackened_come_last():
    pipe = tiny_diffusion.pipeline()
    best = pipe(audio=sound(), **HEARD, keep_candidates=True, generator=generator())
    order = [one.seed for one in best.candidates]
    drawn = [one.seed for one in sorted(best.candidates, key=lambda one: order.index(one.seed))]
    rows = pipe(audio=sound(), **HEARD, num_images_per_prompt=4, generator=generator())
    assert rows.nsfw_content_detected is None and len(drawn) == 4
    flagging(pipe, [True, False, True, True])
    output = pipe(audio=sound(), **HEARD, num_images_per_prompt=4, generator=generator())
    assert output.nsfw_content_detected == [False, True, True, True]
    assert output.images[0].any() and not output.images[1:].any()


# ---- components


def test_optional_components_and_errors_before_the_first_step(kind, pipe):
    def never(*args, **kwargs):
        raise AssertionError("a step was made")

    pipe.unet.forward = never
    for call, message in (
        ({"num_candidates": 0}, "num_candidates must be at least 1"),
        ({"strategy": "best"}, "there is no strategy 'best'"),
        ({"prompt": ["a", "b", "c"], "audio": [sound(), sound(1)]}, "2 sounds and 3 prompts"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe(**{"audio": sound(), **HEARD, **call})
    without = type(pipe)(**{**pipe.components, "matcher_processor": None})
    with pytest.raises(ValueError, match="without what prepares its input"):
        without(audio=sound(), **HEARD)
    without = type(pipe)(**PARTS[kind]())
    with pytest.raises(ValueError, match="has no matcher, so it cannot hear"):
        without(audio=sound(), **HEARD)
    with pytest.raises(ValueError, match="mix is about a sound, and there is none"):
        pipe("a dog", mix=[1.0])
    pipe.unet.register_to_config(cross_attention_dim=48)
    with pytest.raises(ValueError, match="conditions of width 48"):
        pipe(audio=sound(), **HEARD)
    pipe.unet.register_to_config(in_channels=9)
    with pytest.raises(ValueError, match="width 48|9 channels"):
        pipe(audio=sound(), **HEARD)


def test_a_matcher_is_exchanged_by_assignment(pipe):
    before = pipe(audio=sound(), **HEARD, generator=generator()).scores
    pipe.matcher, pipe.matcher_processor = tiny_diffusion.matcher(seed=9)
    assert pipe(audio=sound(), **HEARD, generator=generator()).scores != before


def test_a_matcher_by_the_protocol_needs_no_processor(kind):
    model, processor = tiny_diffusion.matcher()
    matcher = model.as_matcher(processor)
    found = MAKE[kind](matcher=matcher, matcher_processor=None)(audio=sound(), **HEARD, generator=generator())
    assert found.scores == MAKE[kind]()(audio=sound(), **HEARD, generator=generator()).scores


def test_models_without_sound_are_refused(pipe):
    from transformers import CLIPConfig, CLIPModel

    pipe.matcher = CLIPModel(CLIPConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    with pytest.raises(ValueError, match="a pipeline needs sounds and pictures"):
        pipe(audio=sound(), **HEARD)


def test_both_classes_are_public():
    import unibrivl

    assert unibrivl.UniBriVLPipeline is UniBriVLPipeline and unibrivl.UniBriVLXLPipeline is UniBriVLXLPipeline
