"""Editing by a sound: the source comes out as it went in, the controls do what they say, and nothing stays behind."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_audio_token  # noqa: E402
import tiny_diffusion  # noqa: E402
from diffusers import (  # noqa: E402
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)
from tiny_audio_token import picture  # noqa: E402
from tiny_diffusion import RATE_HZ, SIDE, generator, sound  # noqa: E402

from unibrivl.pipelines import AudioTokenEditPipeline, AudioTokenPipeline  # noqa: E402
from unibrivl.pipelines.alignment_audio_token import alignment, replaced  # noqa: E402
from unibrivl.pipelines.attention_audio_token import Control  # noqa: E402
from unibrivl.pipelines.inversion_audio_token import ddim  # noqa: E402

CALL = {"num_inference_steps": 4, "output_type": "np", "audio_sampling_rate": RATE_HZ}
DRAWN = {**CALL, "height": SIDE, "width": SIDE, "source_prompt": "a dog"}


@pytest.fixture(scope="module")
def pipe():
    return tiny_audio_token.pipeline(AudioTokenEditPipeline)


def decoded(pipe, image) -> np.ndarray:
    """What the autoencoder makes of a picture."""
    with torch.no_grad():
        latents = pipe.vae.encode(pipe.image_processor.preprocess(image)).latent_dist.mode()
        return pipe.image_processor.postprocess(pipe.vae.decode(latents).sample, "np")


# ---- alignment


def test_replaced_words_hand_their_maps_on_and_new_ones_keep_theirs():
    a, photo, of, dog, audio, comma, start, end = range(1, 9)
    source = [start, a, photo, of, a, dog, end, end, end, end]
    target = [start, a, photo, of, audio, end, end, end, end, end]
    maps, taken = alignment(source, target, end)
    assert maps[4, 4] == maps[5, 4] == 1  # "a dog" gives both its maps to the sound
    assert maps[:4, :4].equal(torch.eye(4)) and taken.tolist() == [1.0] * 10
    assert maps[6:, 5].tolist() == [1, 0, 0, 0] and maps[9, 9] == 1  # ends and padding in order, the last again
    assert replaced(source, target, end) == ([4, 5], [4])
    target = [start, a, photo, of, a, dog, comma, audio, end, end]
    maps, taken = alignment(source, target, end)
    assert taken.tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 1, 1] and not maps[:, 6:8].any()
    assert replaced(source, target, end) == ([], [6, 7])
    target = [start, a, photo, of, audio, audio, comma, end, end, end]
    maps, _ = alignment(source, target, end)
    assert torch.allclose(maps[4:6, 4:7], torch.full((2, 3), 1 / 3))  # mass is spread, none is lost
    same, everything = alignment(source, source, end)
    assert same.equal(torch.eye(10)) and everything.all()
    with pytest.raises(ValueError, match="padded to one length"):
        alignment(source, target[:-1], end)


# ---- the invariants of prompt-to-prompt


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_the_source_comes_out_as_the_autoencoder_has_it(pipe, guidance):
    seen = picture()
    output = pipe("a <audio>", seen, source_prompt="a dog", audio=sound(), guidance_scale=guidance, **CALL)
    assert np.abs(output.source_images - decoded(pipe, seen)).max() <= 1e-5
    assert np.abs(output.images - output.source_images).max() > 0.01


def test_the_same_text_draws_the_same_picture(pipe):
    output = pipe("a dog", generator=generator(), **DRAWN)
    assert np.abs(output.images - output.source_images).max() <= 1e-5


def test_without_control_source_and_target_are_two_plain_pictures(pipe):
    free = {"cross_replace_steps": 0.0, "self_replace_steps": 0.0}
    output = pipe("a <audio>", audio=sound(), generator=generator(), **DRAWN, **free)
    stock = tiny_diffusion.quiet(StableDiffusionPipeline(**tiny_diffusion.sd_parts()))
    plain = {"num_inference_steps": 4, "output_type": "np", "height": SIDE, "width": SIDE}
    assert np.abs(stock("a dog", generator=generator(), **plain).images - output.source_images).max() <= 1e-5
    drawn = tiny_audio_token.pipeline(AudioTokenPipeline)(
        "a <audio>", audio=sound(), audio_sampling_rate=RATE_HZ, generator=generator(), **plain
    )
    assert np.abs(drawn.images - output.images).max() <= 1e-5


def test_control_holds_the_target_to_the_source(pipe):
    away = {}
    for share in (0.0, 1.0):
        call = {**DRAWN, "cross_replace_steps": share, "self_replace_steps": share}
        output = pipe("a <audio>", audio=sound(), generator=generator(), **call)
        away[share] = np.abs(output.images - output.source_images).mean()
    assert away[1.0] < away[0.0]


def test_processors_come_back_whatever_happens(pipe):
    before = dict(pipe.unet.attn_processors)
    scheduler = pipe.scheduler

    def broken(*_):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        pipe("a <audio>", audio=sound(), callback_on_step_end=broken, **DRAWN)
    pipe("a <audio>", audio=sound(), **DRAWN)
    assert all(one is before[name] for name, one in pipe.unet.attn_processors.items())
    assert pipe.scheduler is scheduler
    assert not any("get_attention_scores" in one.__dict__ for one in pipe.unet.modules())


def test_the_users_callback_sees_every_step(pipe):
    seen = []

    def watching(_, step, __, tensors):
        seen.append((step, len(tensors["latents"])))
        return tensors

    pipe("a <audio>", audio=sound(), callback_on_step_end=watching, **DRAWN)
    assert seen == [(step, 2) for step in range(4)]


def test_large_layers_attend_as_before(pipe, monkeypatch):
    from unibrivl.pipelines import attention_audio_token

    wanted = pipe("a <audio>", audio=sound(), generator=generator(), **DRAWN)
    monkeypatch.setattr(attention_audio_token, "MOST_PLACES", 1)
    found = pipe("a <audio>", audio=sound(), generator=generator(), **DRAWN)
    free = {"cross_replace_steps": 0.0, "self_replace_steps": 0.0}
    plain = pipe("a <audio>", audio=sound(), generator=generator(), **DRAWN, **free)
    assert np.abs(found.images - plain.images).max() <= 1e-5
    assert not np.array_equal(found.images, wanted.images)


@pytest.mark.parametrize("kind", [HeunDiscreteScheduler, EulerDiscreteScheduler, PNDMScheduler])
def test_steps_of_ddim_have_the_noise_of_the_pipelines_own(kind):
    """Also where it was left to defaults, which DDIM has others of."""
    scheduler = kind()
    assert torch.equal(ddim(scheduler).alphas_cumprod, scheduler.alphas_cumprod)
    assert ddim(scheduler).config.steps_offset == scheduler.config.get("steps_offset", 0)


# ---- blending and weights


def test_blending_leaves_the_source_where_the_words_do_not_look():
    heat = torch.zeros(2, 16, 4)
    heat[0, :, 1], heat[1, :, 2] = 0.01, 0.01
    heat[0, 0, 1] = heat[1, 3, 2] = 1.0  # two corners of 4 x 4 places: the word that goes, the word that comes
    control = Control(torch.eye(4)[None], torch.ones(1, 4), 4, 0.0, 0.0, blend=[([1], [2])])
    control.seen = {16: heat}
    latents = torch.stack([torch.zeros(4, 8, 8), torch.ones(4, 8, 8)])
    found = control.blended(latents)
    assert not found[0].any() and found[1, :, 0, 0].all() and found[1, :, 0, 7].all() and not found[1, :, 7].any()


def test_blending_and_weights_of_words_change_what_is_drawn(pipe):
    plain = pipe("a <audio>", audio=sound(), generator=generator(), **DRAWN).images
    for more in ({"local_blend": True}, {"local_blend": ("dog", "<audio>")}, {"word_weights": {"<audio>": 3.0}}):
        found = pipe("a <audio>", audio=sound(), generator=generator(), **DRAWN, **more).images
        assert found.shape == plain.shape
    assert not np.array_equal(found, plain)
    with pytest.raises(ValueError, match="'cat' does not stand in 'a dog'"):
        pipe("a <audio>", audio=sound(), local_blend=("cat", "<audio>"), **DRAWN)


# ---- sounds on both sides, several pictures


def test_one_sound_becomes_another(pipe):
    output = pipe(None, picture(), source_audio=sound(1), audio=sound(2), **CALL)
    assert np.abs(output.source_images - decoded(pipe, picture())).max() <= 1e-5
    assert np.abs(output.images - output.source_images).max() > 0.01


def test_several_pictures_are_what_each_is_alone(pipe):
    pictures, sounds = [picture(1), picture(2)], [sound(1), sound(2)]
    together = pipe(["a <audio>"] * 2, pictures, source_prompt="a dog", audio=sounds, **CALL).images
    for number in range(2):
        alone = pipe("a <audio>", pictures[number], source_prompt="a dog", audio=sounds[number], **CALL).images
        assert np.abs(alone[0] - together[number]).max() <= 1e-4


# ---- other ways


def test_sdedit_changes_more_the_stronger_it_is(pipe):
    seen = picture()
    given = decoded(pipe, seen)
    away = [
        np.abs(
            pipe(None, seen, audio=sound(), edit_method="sdedit", strength=strength, generator=generator(), **CALL)
            .images - given
        ).mean()
        for strength in (0.25, 1.0)
    ]  # fmt: skip
    assert away[0] < away[1]


def test_ledits_reads_the_sound_and_gives_the_processors_back(pipe):
    before = dict(pipe.unet.attn_processors)
    call = CALL | {"edit_method": "ledits++", "generator": generator()}
    found = [
        pipe("<audio>", picture(side=64), audio=sound(n), **call | {"generator": generator()}).images for n in (1, 2)
    ]
    assert not np.array_equal(*found)
    assert all(one is before[name] for name, one in pipe.unet.attn_processors.items())
    with pytest.raises(ValueError, match="multiples of 32"):
        pipe("<audio>", picture(side=40), audio=sound(), **call)


def test_styles_with_a_picture_and_without(pipe):
    drawn = tiny_audio_token.pipeline()
    call = {"num_inference_steps": 3, "output_type": "np", "audio_sampling_rate": RATE_HZ, "audio": sound()}
    wanted = drawn("a dog in the style of <audio>", height=SIDE, width=SIDE, generator=generator(), **call).images
    assert np.array_equal(pipe.stylize("a dog", height=SIDE, width=SIDE, generator=generator(), **call).images, wanted)
    kept = drawn.stylize(image=picture(), **call)
    assert np.abs(kept.source_images - decoded(pipe, picture())).max() <= 1e-5
    with pytest.raises(ValueError, match="say what to draw"):
        pipe.stylize(**call)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"edit_method": "magic"}, "p2p, sdedit, ledits"),
        ({"source_prompt": None}, "neither a prompt nor a sound|source_prompt="),
        ({"cross_replace_steps": 2.0}, "from 0 to 1"),
        ({"num_images_per_prompt": 2}, "num_images_per_prompt"),
        ({"latents": torch.zeros(1, 4, 16, 16)}, "latents is not for"),
        ({"image": "two"}, "2 pictures and 1 prompts"),
        ({"source_prompt": ["a", "b"]}, "2 source prompts and 1 prompts"),
        ({"edit_method": "sdedit", "image": None}, "pass image="),
        ({"edit_method": "sdedit", "strength": 0.2}, "a strength of 0.2 leaves 0 of 4 steps"),
        ({"edit_method": "sdedit", "strength": 1.5}, "take one up to 1"),
        ({"edit_method": "ledits++", "image": None}, "pass image="),
        ({"negative_prompt": ["a", "b", "c"]}, "3 negative prompts"),
    ],
)
def test_what_is_wrong_is_said(pipe, call, words):
    given = {"image": picture(), "source_prompt": "a dog", **CALL, **call}
    if given["image"] == "two":
        given["image"] = [picture(1), picture(2)]
    with pytest.raises(ValueError, match=words):
        pipe("a <audio>", audio=sound(), **given)


def test_the_call_shows_what_it_hands_on():
    shown = inspect.signature(AudioTokenEditPipeline.__call__).parameters
    assert {"source_prompt", "edit_method", "guidance_scale", "negative_prompt", "generator", "height"} <= set(shown)
    assert not {"latents", "prompt_embeds", "num_images_per_prompt", "eta"} & set(shown)  # what it refuses
    assert list(shown)[:3] == ["self", "prompt", "image"]
