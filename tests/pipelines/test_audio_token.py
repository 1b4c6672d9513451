"""Sounds as words of a prompt: the same as a longer token table, and whatever the pipeline could do before."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_audio_token  # noqa: E402
import tiny_diffusion  # noqa: E402
from diffusers import StableDiffusionPipeline  # noqa: E402
from tiny_audio_token import picture  # noqa: E402
from tiny_diffusion import RATE_HZ, SIDE, generator, sound  # noqa: E402

from unibrivl.modeling import AudioCue  # noqa: E402
from unibrivl.pipelines import (  # noqa: E402
    AudioTokenImg2ImgPipeline,
    AudioTokenInpaintPipeline,
    AudioTokenPipeline,
    AudioTokenXLPipeline,
    UniBriVLPipeline,
)

DRAWN = {"num_inference_steps": 3, "output_type": "np", "height": SIDE, "width": SIDE}
HEARD = {**DRAWN, "audio_sampling_rate": RATE_HZ}


@pytest.fixture(scope="module")
def shared():
    return tiny_audio_token.pipeline()


@pytest.fixture
def pipe(shared):
    return shared


def longer_table(pipe, words_KD: torch.Tensor) -> StableDiffusionPipeline:
    """Plain diffusers with the words as new rows: what a textual inversion does."""
    parts = {name: copy.deepcopy(pipe.components[name]) for name in tiny_diffusion.sd_parts() if name != "unet"}
    stock = StableDiffusionPipeline(**parts, unet=pipe.unet, requires_safety_checker=False)
    stock.load_textual_inversion({"<sound>": words_KD}, token="<sound>")  # noqa: S106  (a word, not a password)
    return tiny_diffusion.quiet(stock)


# ---- against what others do


@pytest.mark.parametrize("words", [1, 2])
def test_a_sound_is_what_a_row_in_a_longer_table_would_be(words):
    pipe = tiny_audio_token.pipeline(adapter={"num_words": words})
    heard = pipe.encode_audio(sound(), RATE_HZ)["text_encoder"]
    wanted = longer_table(pipe, heard[0])("a cat, with <sound>", generator=generator(), **DRAWN).images
    found = pipe("a cat, with <audio>", audio=sound(), generator=generator(), **HEARD).images
    assert np.abs(found - wanted).max() <= 1e-6
    assert not np.array_equal(found, pipe("a cat, with", generator=generator(), **DRAWN).images)


def test_a_cue_and_encoded_words_stand_for_the_sound(pipe):
    wanted = pipe("a <audio>", audio=sound(), generator=generator(), **HEARD).images
    words = pipe.encode_audio(sound(), RATE_HZ)
    for given in ({"audio_embeds": words}, {"audio_embeds": words["text_encoder"][0]}):
        assert np.array_equal(pipe("a <audio>", **given, generator=generator(), **DRAWN).images, wanted)
    cue = AudioCue.for_base({"text_encoder": words["text_encoder"][0]}, {"text_encoder": pipe.text_encoder})
    assert np.array_equal(pipe("a <audio>", audio=cue, generator=generator(), **DRAWN).images, wanted)
    assert np.array_equal(pipe("a <audio>", audio_embeds=cue, generator=generator(), **DRAWN).images, wanted)


def test_without_a_sound_it_is_the_plain_pipeline(pipe):
    stock = tiny_diffusion.quiet(StableDiffusionPipeline(**tiny_diffusion.sd_parts()))
    wanted = stock("a dog", generator=generator(), **DRAWN).images
    assert np.array_equal(pipe("a dog", generator=generator(), **DRAWN).images, wanted)


def test_a_saved_one_loads_as_itself_as_unibrivls_and_as_diffusers_own(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = tiny_diffusion.quiet(AudioTokenPipeline.from_pretrained(tmp_path))
    wanted = pipe(audio=sound(), generator=generator(), **HEARD).images
    assert np.array_equal(again(audio=sound(), generator=generator(), **HEARD).images, wanted)
    plain = pipe("a dog", generator=generator(), **DRAWN).images
    for kind in (StableDiffusionPipeline, UniBriVLPipeline):
        stock = tiny_diffusion.quiet(kind.from_pretrained(tmp_path, dtype=torch.float32))
        assert np.array_equal(stock("a dog", generator=generator(), **DRAWN).images, plain)


def test_components_are_loaded_by_name(pipe, tmp_path):
    StableDiffusionPipeline(**tiny_diffusion.sd_parts(), requires_safety_checker=False).save_pretrained(
        tmp_path / "sd"
    )
    pipe.audio_adapter.save_pretrained(tmp_path / "adapter")
    pipe.matcher.save_pretrained(tmp_path / "ears")
    pipe.matcher_processor.save_pretrained(tmp_path / "ears")
    found = tiny_diffusion.quiet(
        AudioTokenPipeline.from_pretrained(
            tmp_path / "sd", audio_adapter=str(tmp_path / "adapter"), audio_encoder=str(tmp_path / "ears")
        )
    )
    assert found.matcher is None and type(found.audio_encoder) is type(pipe.matcher)
    wanted = pipe(audio=sound(), generator=generator(), **HEARD).images
    assert np.array_equal(found(audio=sound(), generator=generator(), **HEARD).images, wanted)


# ---- what is left as it was


def test_nothing_of_the_pipeline_changes(pipe):
    before = copy.deepcopy(pipe.text_encoder.state_dict())
    size, config = len(pipe.tokenizer), dict(pipe.config)
    pipe(audio=sound(), generator=generator(), **HEARD)
    with pytest.raises(RuntimeError, match="on purpose"):
        pipe(audio=sound(), **HEARD, callback_on_step_end=broken)
    assert len(pipe.tokenizer) == size and dict(pipe.config) == config
    assert all(torch.equal(before[name], value) for name, value in pipe.text_encoder.state_dict().items())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in pipe.text_encoder.modules())
    assert pipe._spoken is None


def broken(*_):
    raise RuntimeError("on purpose")


def test_clip_skip_works_with_this_transformers(pipe):
    found = [pipe("a dog", generator=generator(), clip_skip=skip, **DRAWN).images for skip in (None, 1)]
    assert not np.array_equal(*found) and "text_model" not in pipe.text_encoder.__dict__
    pipe(audio=sound(), generator=generator(), clip_skip=1, **HEARD)


# ---- which sound is where


def test_batches_are_what_each_prompt_gives_alone(pipe):
    prompts, sounds = ["a <audio>", "a cat beside <audio>"], [sound(1), sound(2)]
    together = pipe(prompts, audio=sounds, generator=[generator(1), generator(2)], **HEARD).images
    for number in range(2):
        alone = pipe(prompts[number], audio=sounds[number], generator=generator(number + 1), **HEARD).images
        assert np.abs(together[number] - alone[0]).max() <= 1e-5
    same = pipe(None, audio=sounds, generator=[generator(1), generator(2)], **HEARD).images
    named = pipe(["A photo of <audio>"] * 2, audio=sounds, generator=[generator(1), generator(2)], **HEARD).images
    assert np.array_equal(same, named)


def test_several_sounds_stand_where_their_numbers_are(pipe):
    first, second = sound(1), sound(2)
    there = pipe("<audio:0> beside <audio:1>", audio=[first, second], generator=generator(), **HEARD).images
    turned = pipe("<audio:1> beside <audio:0>", audio=[second, first], generator=generator(), **HEARD).images
    other = pipe("<audio:0> beside <audio:1>", audio=[second, first], generator=generator(), **HEARD).images
    assert np.array_equal(there, turned) and not np.array_equal(there, other)


def test_weights_lead_from_an_average_word_through_the_sound(pipe):
    plain = pipe(audio=sound(), generator=generator(), **HEARD).images
    whole, none, half = (
        pipe(audio=sound(), audio_weights=one, generator=generator(), **HEARD).images for one in (1, 0, 0.5)
    )
    other = pipe(audio=sound(5), audio_weights=0, generator=generator(), **HEARD).images
    assert np.array_equal(whole, plain) and np.array_equal(none, other)
    assert not np.array_equal(half, plain) and not np.array_equal(half, none)


def test_mixes_of_one_kind_are_that_kind_and_arcs_keep_their_length(pipe):
    from unibrivl.pipelines.mixing_audio_token import arc, between

    wanted = pipe(audio=sound(1), generator=generator(), **HEARD).images
    for mix in ("lerp", "slerp"):
        found = pipe(
            audio=[sound(1), sound(2)], audio_mix=mix, audio_weights=[1, 0], generator=generator(), **HEARD
        ).images
        assert np.abs(found - wanted).max() <= 1e-5
    start, end = torch.eye(4)[:1] * 2, torch.eye(4)[1:2] * 4
    assert arc(start, end, 0.5).norm().item() == pytest.approx(3.0, abs=1e-6)
    assert between(start, end, 0.5).norm().item() == pytest.approx(5**0.5, abs=1e-6)
    assert torch.allclose(arc(start, start, 0.3), start) and arc(start, -start, 0.5).isfinite().all()


def test_a_sound_in_the_negative_prompt(pipe):
    plain = pipe("a cat", generator=generator(), **DRAWN).images
    found = pipe("a cat", negative_audio=sound(), generator=generator(), **HEARD).images
    wanted = pipe("a cat", negative_prompt="<audio>", negative_audio=sound(), generator=generator(), **HEARD).images
    assert np.array_equal(found, wanted) and not np.array_equal(found, plain)
    both = pipe("a <audio>", negative_prompt="bad <audio>", audio=sound(), generator=generator(), **HEARD).images
    assert not np.array_equal(both, pipe("a <audio>", audio=sound(), generator=generator(), **HEARD).images)


# ---- with a matcher


@pytest.mark.parametrize("strategy", ["rerank", "halving"])
def test_candidates_of_an_audio_word_are_ranked_by_the_sound(pipe, strategy):
    output = pipe("a <audio>", audio=sound(), num_candidates=4, strategy=strategy, generator=generator(), **HEARD)
    scores = [one.score for one in output.candidates if one.score is not None]
    assert output.scores[0] == max(scores) and len(output.candidates) == 4
    wanted = pipe("a <audio>", audio=sound(), generator=generator(output.candidates[0].seed), **HEARD).images
    assert np.abs(output.images - wanted).max() <= 1e-5


def test_by_default_candidates_of_an_audio_word_are_compared_with_one_another_too(pipe):
    steps = {**HEARD, "num_inference_steps": 4}
    output = pipe("a <audio>", audio=sound(), num_candidates=6, generator=generator(), **steps)
    told = output.receipts[0]["strategy"]
    assert told["name"] == "halving" and 0 < told["typical"] < 1
    assert sum(one.score is not None for one in output.candidates) == 1
    named = pipe("a <audio>", audio=sound(), num_candidates=6, strategy="halving", generator=generator(), **steps)
    assert named.receipts[0]["strategy"]["typical"] == 0
    four = pipe("a <audio>", audio=sound(), num_candidates=6, num_images_per_prompt=4, generator=generator(), **steps)
    assert len(four.images) == 4 and four.scores == sorted(four.scores, reverse=True)


def test_several_sounds_rank_by_the_weights_of_their_words(pipe):
    both = {"audio": [sound(1), sound(2)], "audio_weights": [0.9, 0.2]}
    for mix, prompt in (("separate", "<audio:0> and <audio:1>"), ("lerp", "a <audio>")):
        output = pipe(prompt, **both, audio_mix=mix, num_candidates=2, generator=generator(), **HEARD)
        query = pipe.encode_query(both["audio"], sampling_rate=RATE_HZ, mix=[0.9, 0.2]).embeds
        even = pipe.encode_query(both["audio"], sampling_rate=RATE_HZ, mix=[1.0, 1.0]).embeds
        pictures = pipe.embed_pictures(pipe.image_processor.numpy_to_pil(output.images))
        assert output.scores == pytest.approx((pictures @ query[0]).tolist(), abs=1e-4)
        assert output.scores != pytest.approx((pictures @ even[0]).tolist(), abs=1e-4)
    with pytest.raises(ValueError, match="are all 0, so no sound ranks"):
        pipe("<audio:0>, <audio:1>", audio=[sound(1), sound(2)], audio_weights=0.0, num_candidates=2, **HEARD)


# ---- pictures that become others


def test_pictures_become_others_and_holes_are_filled(pipe):
    seen, hole = picture(), picture(1).convert("L")
    other = tiny_diffusion.quiet(AudioTokenImg2ImgPipeline.from_pipe(pipe))
    call = {"audio_sampling_rate": RATE_HZ, "num_inference_steps": 4, "output_type": "np"}
    found = [other(audio=sound(n), image=seen, strength=0.5, generator=generator(), **call).images for n in (1, 2)]
    assert found[0].shape == (1, SIDE, SIDE, 3) and not np.array_equal(*found)
    assert len(other(audio=sound(), image=seen, num_candidates=3, generator=generator(), **call).candidates) == 3
    filled = tiny_diffusion.quiet(AudioTokenInpaintPipeline.from_pipe(pipe))
    call |= {"image": seen, "mask_image": hole, "height": SIDE, "width": SIDE}
    found = [filled(audio=sound(n), generator=generator(), **call).images for n in (1, 2)]
    assert not np.array_equal(*found)
    assert len(filled(audio=sound(), num_candidates=3, generator=generator(), **call).candidates) == 3
    with pytest.raises(ValueError, match="strategy='rerank'"):
        filled(audio=sound(), num_candidates=3, strategy="halving", **call)


def test_xl_reads_the_sound_with_both_encoders():
    pipe = tiny_audio_token.xl_pipeline()
    found = [pipe(audio=sound(n), generator=generator(), **HEARD).images for n in (1, 2)]
    assert not np.array_equal(*found)
    assert set(pipe.encode_audio(sound(), RATE_HZ)) == {"text_encoder", "text_encoder_2"}
    ranked = pipe("a <audio>", audio=sound(), num_candidates=2, generator=generator(), **HEARD)
    assert len(ranked.candidates) == 2


# ---- what is wrong is said


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"prompt": "a cat", "audio": "S"}, "speaks of 0 sounds, and 1 were given"),
        ({"prompt": "<audio:1>", "audio": "S"}, "speaks of 2 sounds, and 1 were given"),
        ({"prompt": "a <audio>"}, "speaks of a sound, and there is none"),
        ({"prompt": ["<audio>"] * 3, "audio": ["S", "S"]}, "3 prompts and 2 sounds"),
        ({"prompt": "<audio>", "audio": []}, "empty list"),
        ({"prompt": "<audio>", "audio": "S", "audio_mix": "add"}, "separate, lerp, slerp"),
        ({"prompt": "<audio>", "audio": "S", "audio_weights": [1, 2]}, "2 weights for 1 sounds"),
        ({"prompt": "<audio>", "audio": "S", "audio_weights": float("nan")}, "finite"),
        ({"prompt": "<audio>", "audio": "silence"}, "silent"),
        ({"audio": "S", "audio_embeds": torch.zeros(1, 32)}, "one of the two"),
        ({"audio_embeds": torch.zeros(1, 7)}, "made for another base"),
        ({"prompt": "cat " * 80 + "<audio>", "audio": "S"}, "would be cut off"),
        ({"prompt_embeds": torch.zeros(1, 77, 32), "audio": "S"}, "already read"),
        ({"audio_embeds": torch.zeros(1, 32), "num_candidates": 2}, "ranked by a sound"),
        ({"num_candidates": 2, "prompt": "a cat"}, "there is none"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_drawn(pipe, call, words):
    known = {"S": sound(), "silence": np.zeros(RATE_HZ, np.float32)}
    audio = call.get("audio")
    if audio is not None:
        call = call | {"audio": known[audio] if isinstance(audio, str) else [known[one] for one in audio]}
    with pytest.raises(ValueError, match=words):
        pipe(**call, **HEARD)


def test_missing_parts_and_other_bases_are_named(pipe):
    bare = tiny_diffusion.quiet(AudioTokenPipeline(**tiny_diffusion.sd_parts()))
    with pytest.raises(ValueError, match="no audio_adapter"):
        bare(audio=sound(), **HEARD)
    deaf = tiny_diffusion.quiet(AudioTokenPipeline(**tiny_diffusion.sd_parts(), audio_adapter=pipe.audio_adapter))
    with pytest.raises(ValueError, match="has no ears"):
        deaf(audio=sound(), **HEARD)
    with pytest.raises(ValueError, match="load the base it was made for"):
        other = tiny_diffusion.sd_parts(seed=9)
        tiny_diffusion.quiet(AudioTokenPipeline(**other, audio_adapter=pipe.audio_adapter))(audio=sound(), **HEARD)


def test_signatures_show_both(pipe):
    shown = inspect.signature(AudioTokenImg2ImgPipeline.__call__).parameters
    assert {"prompt", "image", "strength", "audio", "audio_weights", "num_candidates"} <= set(shown)
    assert "audio_mix" in AudioTokenPipeline.__call__.__doc__
    for cls in (AudioTokenPipeline, AudioTokenXLPipeline):  # what diffusers and its users look at
        stock = next(one for one in cls.__mro__ if one.__module__.startswith("diffusers."))
        assert inspect.signature(cls.encode_prompt) == inspect.signature(stock.encode_prompt)
