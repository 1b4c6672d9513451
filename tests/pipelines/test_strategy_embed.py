"""A sound's embedding in the place of a picture's: IP-Adapter on Stable Diffusion, and Stable unCLIP."""

from __future__ import annotations

import inspect

import pytest
import torch

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_diffusion as tiny  # noqa: E402
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # noqa: E402

from unibrivl.pipelines.pipeline_unibrivl_unclip import UniBriVLUnCLIPPipeline  # noqa: E402
from unibrivl.pipelines.strategy_embed import Embed  # noqa: E402
from unibrivl.pipelines.strategy_halving import Halving  # noqa: E402
from unibrivl.pipelines.strategy_together import Together  # noqa: E402

WIDTH = tiny.CLIP_WIDTH


def adapter_weights(unet, width: int = WIDTH, tokens: int = 4) -> dict:
    """An IP-Adapter's file, random: projections of the embedding, and keys and values for each cross-attention."""
    torch.manual_seed(7)
    inner = unet.config.cross_attention_dim
    weights, place = {}, 1
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            for part in ("to_k", "to_v"):
                weights[f"{place}.{part}_ip.weight"] = 0.5 * torch.randn_like(getattr(module, part).weight)
            place += 2
    projection = {
        "proj.weight": torch.randn(tokens * inner, width),
        "proj.bias": torch.randn(tokens * inner),
        "norm.weight": torch.ones(inner),
        "norm.bias": torch.zeros(inner),
    }
    return {"image_proj": projection, "ip_adapter": weights}


def with_adapter(width: int = WIDTH, make=tiny.pipeline, **parts):
    pipe = make(**parts)
    pipe.unet._load_ip_adapter_weights([adapter_weights(pipe.unet, width)])
    return pipe


@pytest.fixture(scope="module")
def pipe():
    return with_adapter()


def draw(pipe, strategy="embed", sound=3, **arguments):
    call = {"num_inference_steps": 3, "height": 16, "width": 16, "output_type": "pt"}
    heard = {"audio": tiny.sound(sound), "sampling_rate": tiny.RATE_HZ}
    return pipe(**{**call, **heard, "strategy": strategy, "generator": tiny.generator(), **arguments})


def far(left, right) -> bool:
    return float((left - right).abs().max()) > 1e-3


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_the_adapter_gets_the_sound_as_the_plain_pipeline_gets_a_picture(pipe, guidance):
    found = draw(pipe, prompt="a dog", guidance_scale=guidance)
    sound = pipe.listener.encode_audio([tiny.sound(3)])
    native = pipe.listener.native_part(sound)
    torch.testing.assert_close(
        native, pipe.matcher.get_native_audio_features(**heard_by(pipe)).pooler_output, atol=1e-5, rtol=1e-4
    )
    embeds = (native * pipe.listener.native_length())[:, None]
    embeds = torch.cat([torch.zeros_like(embeds), embeds]) if guidance > 1 else embeds
    call = {"num_inference_steps": 3, "height": 16, "width": 16, "output_type": "pt", "guidance_scale": guidance}
    plain = pipe("a dog", ip_adapter_image_embeds=[embeds], generator=tiny.generator(), **call)
    torch.testing.assert_close(found.images, plain.images, atol=1e-5, rtol=0)


def heard_by(pipe):
    return pipe.matcher_processor(audio=[tiny.sound(3)], sampling_rate=tiny.RATE_HZ)


def test_without_a_prompt_the_sound_alone_conditions(pipe):
    output = draw(pipe)
    assert output.candidates[0].prompt == "" and len(output.images) == 1
    assert torch.equal(output.images, draw(pipe, prompt="").images)
    assert far(output.images, draw(pipe, sound=4).images)


def test_sounds_of_one_call_condition_each_its_own_row(pipe):
    sounds = [tiny.sound(3), tiny.sound(4)]
    together = draw(pipe, audio=sounds, generator=[tiny.generator(5), tiny.generator(6)])
    for number, seed in enumerate((5, 6)):
        alone = draw(pipe, audio=sounds[number], generator=tiny.generator(seed))
        torch.testing.assert_close(together.images[number : number + 1], alone.images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("make", [tiny.pipeline, tiny.xl_pipeline])
def test_embedded_candidates_are_halved(make):
    pipe = with_adapter(make=make)
    few = Halving(num_candidates=4, rounds=((0.4, 0.5),))
    sounds = [tiny.sound(3), tiny.sound(4)]
    halved = draw(pipe, Together(Embed(), few), audio=sounds, max_rows=2)
    full = draw(pipe, Embed(num_candidates=4), audio=sounds)
    by_seed = {one.seed: one.score for one in full.candidates}
    survivors = [one for one in halved.candidates if one.score is not None]
    assert len(survivors) == 4
    assert all(one.score == pytest.approx(by_seed[one.seed], abs=1e-4) for one in survivors)


def test_the_adapters_scale_holds_for_the_call_alone(pipe):
    def scales():
        return [list(one.scale) for one in pipe.unet.attn_processors.values() if hasattr(one, "scale")]

    pipe.set_ip_adapter_scale(0.7)
    before = scales()
    weak, strong = draw(pipe, Embed(scale=0.0)), draw(pipe, Embed(scale=1.0))
    assert far(weak.images, strong.images) and scales() == before and before[0] == [0.7]
    torch.testing.assert_close(draw(pipe, Embed(scale=0.7)).images, draw(pipe).images, atol=0, rtol=0)
    with pytest.raises(KeyboardInterrupt):
        draw(pipe, Embed(scale=0.2), callback_on_step_end=interrupted)
    assert scales() == before
    pipe.set_ip_adapter_scale(1.0)


def interrupted(*args):
    raise KeyboardInterrupt


def test_the_embedding_is_as_long_as_those_of_pictures(pipe):
    pixels = pipe.matcher_processor.image_processor(
        [torch.full((3, 40, 40), 99, dtype=torch.uint8)], return_tensors="pt"
    )
    lengths = pipe.matcher.vision_model(**pixels).image_embeds.norm()
    assert 0.5 * float(lengths) < pipe.listener.native_length() < 2 * float(lengths)
    assert far(draw(pipe, Embed(length=1e-3)).images, draw(pipe, Embed(length=10.0)).images)
    with pytest.raises(ValueError, match="length must be more than 0"):
        Embed(length=0)


def test_what_the_components_cannot_do_is_said_before_the_first_step_with_what_they_could(pipe):
    others = "rerank, halving and guide"
    with pytest.raises(ValueError, match=f"load an IP-Adapter.*UniBriVLUnCLIPPipeline.*{others}"):
        draw(tiny.pipeline())
    with pytest.raises(ValueError, match=f"33 numbers and the matcher's image tower gives 20.*{others}"):
        draw(with_adapter(width=33))
    with pytest.raises(ValueError, match="pass one of both"):
        draw(pipe, ip_adapter_image_embeds=[torch.zeros(2, 1, WIDTH)])
    two = tiny.pipeline()
    two.unet._load_ip_adapter_weights([adapter_weights(two.unet)] * 2)
    with pytest.raises(ValueError, match="2 IP-Adapters are loaded"):
        draw(two)


def test_a_matcher_without_an_image_space_of_its_own_is_told_so():
    model, processor = tiny.pe_av()
    pipe = with_adapter(matcher=model, matcher_processor=processor)
    with pytest.raises(ValueError, match="PE-AV has none"):
        draw(pipe, audio=None, audio_embeds=torch.randn(1, 32), sampling_rate=None)


@pytest.mark.parametrize("space", ["native", "shared"])
def test_other_spaces_of_the_matcher_lead_to_the_same_embedding(pipe, space):
    from unibrivl.modeling.matcher_unibrivl import UniBriVLMatcher

    other = UniBriVLMatcher(pipe.matcher, pipe.matcher_processor, space)
    wanted = pipe.listener.native_part(pipe.listener.encode_audio([tiny.sound(3)]))
    found = other.native_part(other.encode_audio([tiny.sound(3)]))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


# ---- unCLIP


def unclip(**parts):
    model, processor = tiny.matcher()
    return tiny.quiet(
        UniBriVLUnCLIPPipeline(**{**tiny.unclip_parts(), "matcher": model, "matcher_processor": processor, **parts})
    )


def test_unclip_shows_all_that_it_takes():
    """Those of the sound, and those of diffusers' own call, though both go through a call that looks at few."""
    shown = inspect.signature(UniBriVLUnCLIPPipeline.__call__).parameters
    stock = inspect.signature(diffusers.StableUnCLIPImg2ImgPipeline.__call__).parameters
    assert set(stock) - {"args", "kwargs"} <= set(shown)
    assert {"audio", "audio_embeds", "windows", "volume", "num_candidates"} <= set(shown) and "args" not in shown
    assert list(shown)[:3] == ["self", "image", "prompt"]


def heard(pipe, **arguments):
    call = {"num_inference_steps": 3, "height": 16, "width": 16, "output_type": "pt", "generator": tiny.generator()}
    return pipe(**{**call, "audio": tiny.sound(3), "sampling_rate": tiny.RATE_HZ, **arguments})


def test_unclip_draws_a_sound_without_an_image_encoder_as_diffusers_draws_a_picture():
    pipe = unclip()
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(hidden_size=32, intermediate_size=37, num_hidden_layers=1, num_attention_heads=4,
                         image_size=32, patch_size=8, projection_dim=WIDTH)
    )  # fmt: skip
    stock = diffusers.StableUnCLIPImg2ImgPipeline(**{**tiny.unclip_parts(), "image_encoder": encoder})
    stock.set_progress_bar_config(disable=True)
    native = pipe.listener.native_part(pipe.listener.encode_audio([tiny.sound(3)]))
    mean, std = pipe.image_normalizer.mean, pipe.image_normalizer.std
    embeds = native * (mean**2 + std**2).sum().sqrt()
    call = {"num_inference_steps": 3, "height": 16, "width": 16, "output_type": "pt"}
    wanted = stock(prompt="a dog", image_embeds=embeds, generator=tiny.generator(), **call).images
    torch.testing.assert_close(heard(pipe, prompt="a dog").images, wanted.detach(), atol=1e-5, rtol=0)
    plain = pipe(prompt="a dog", image_embeds=embeds, generator=tiny.generator(), **call).images
    torch.testing.assert_close(plain, wanted, atol=1e-5, rtol=0)
    several = pipe(image_embeds=embeds, num_images_per_prompt=2, generator=tiny.generator(), **call).images
    wanted = stock(image_embeds=embeds, num_images_per_prompt=2, generator=tiny.generator(), **call).images
    torch.testing.assert_close(several, wanted, atol=1e-5, rtol=0)


def test_unclip_halves_sounds_with_noise_of_their_own_rows():
    pipe = unclip()
    few = Together(Embed(), Halving(num_candidates=4, rounds=((0.4, 0.5),)))
    sounds = [tiny.sound(3), tiny.sound(4)]
    halved = heard(pipe, audio=sounds, strategy=few, noise_level=300, num_images_per_prompt=2)
    full = heard(pipe, audio=sounds, strategy=Embed(num_candidates=4), noise_level=300)
    by_seed = {one.seed: one.score for one in full.candidates}
    survivors = [one for one in halved.candidates if one.score is not None]
    assert len(halved.images) == 4 and len(survivors) == 4
    assert all(one.score == pytest.approx(by_seed[one.seed], abs=1e-4) for one in survivors)


def test_unclip_says_what_it_lacks():
    pipe = unclip()
    with pytest.raises(ValueError, match="no image_encoder"):
        pipe(torch.zeros(1, 3, 32, 32), "a dog", num_inference_steps=1, height=16, width=16)
    with pytest.raises(ValueError, match="noise_level"):
        heard(pipe, strategy=Embed(scale=0.5))
    with pytest.raises(ValueError, match="image_embeds"):
        heard(pipe, strategy="rerank", prompt="a dog")
    with pytest.raises(ValueError, match="no matcher"):
        heard(unclip(matcher=None))


def test_unclip_stops_where_latents_are_no_numbers():
    pipe = unclip()
    pipe.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="after step 1"):
        heard(pipe)


def test_unclip_is_saved_and_loaded(tmp_path):
    pipe = unclip()
    wanted = heard(pipe).images
    pipe.save_pretrained(tmp_path)
    again = tiny.quiet(UniBriVLUnCLIPPipeline.from_pretrained(tmp_path))
    assert torch.equal(heard(again).images, wanted) and again.image_encoder is None
