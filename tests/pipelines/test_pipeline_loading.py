"""How a pipeline comes together: a base and a matcher by name or as objects, one folder for all, adapters of the base.

What goes over a Hub, and what runs without this package, is in `test_pipeline_hub.py`.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_diffusion  # noqa: E402
from diffusers import (  # noqa: E402
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from tiny_diffusion import RATE_HZ, SIDE, generator, sound  # noqa: E402

from unibrivl.hub.flat import write_code  # noqa: E402
from unibrivl.pipelines import UniBriVLPipeline, UniBriVLXLPipeline  # noqa: E402

CALL = {"prompt": "a dog", "num_inference_steps": 2, "output_type": "np", "height": SIDE, "width": SIDE}
CALL |= {"num_candidates": 2, "strategy": "rerank"}
MAKE = {"sd": tiny_diffusion.pipeline, "xl": tiny_diffusion.xl_pipeline}
CLASSES = {"sd": UniBriVLPipeline, "xl": UniBriVLXLPipeline}
STOCK = {"sd": StableDiffusionPipeline, "xl": StableDiffusionXLPipeline}


def draw(pipe, rate_hz: int = RATE_HZ):
    tiny_diffusion.quiet(pipe)
    return pipe(audio=sound(), sampling_rate=rate_hz, **CALL, generator=generator())


def same(first, second) -> bool:
    return np.array_equal(first.images, second.images) and first.scores == second.scores


@pytest.fixture(scope="module", params=["sd", pytest.param("xl", marks=pytest.mark.slow)])
def saved(request, tmp_path_factory):
    """The kind, folders of a whole pipeline, of its base and of its matcher, and what the pipeline draws."""
    folder = tmp_path_factory.mktemp(request.param)
    pipe = MAKE[request.param]()
    pipe.save_pretrained(folder / "whole")
    STOCK[request.param].from_pipe(pipe).save_pretrained(folder / "base")
    pipe.matcher.save_pretrained(folder / "matcher")
    pipe.matcher_processor.save_pretrained(folder / "matcher")
    return request.param, folder, draw(pipe)


def test_one_folder_holds_all_with_code_or_without(saved, tmp_path):
    kind, folder, wanted = saved
    shutil.copytree(folder / "whole", tmp_path / "flat")
    assert write_code(tmp_path / "flat") and write_code(tmp_path / "flat") == []
    for place in (folder / "whole", tmp_path / "flat"):
        pipe = CLASSES[kind].from_pretrained(place)
        assert same(draw(pipe), wanted)
        assert type(pipe.matcher).__module__ == "unibrivl.modeling.modeling_unibrivl"
    pipe.save_pretrained(tmp_path / "again")
    names = [json.loads((place / "model_index.json").read_text()) for place in (folder / "whole", tmp_path / "again")]
    assert names[1].pop("_name_or_path") == str(tmp_path / "flat")
    assert names[0] == names[1] and names[0]["_class_name"] == CLASSES[kind].__name__
    write_code(tmp_path / "again")
    assert "_name_or_path" not in json.loads((tmp_path / "again" / "model_index.json").read_text()), "it is private"
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(tmp_path / "flat")


def test_the_plain_class_reads_a_saved_folder(saved):
    kind, folder, _ = saved
    plain = {name: value for name, value in CALL.items() if name not in ("num_candidates", "strategy")}
    pipes = [tiny_diffusion.quiet(STOCK[kind].from_pretrained(folder / name)) for name in ("whole", "base")]
    first, second = (pipe(**plain, generator=generator()).images for pipe in pipes)
    assert np.array_equal(first, second)


def test_a_base_and_a_matcher_are_joined_by_name_or_as_objects(saved):
    kind, folder, wanted = saved
    cls, base, matcher = CLASSES[kind], folder / "base", folder / "matcher"
    joined = cls.from_pretrained(base, matcher=str(matcher))
    assert same(draw(joined), wanted)
    assert same(draw(cls.from_pretrained(base, matcher=matcher, matcher_processor=matcher)), wanted)
    objects = cls.from_pretrained(base, matcher=joined.matcher, matcher_processor=joined.matcher_processor)
    assert same(draw(objects), wanted) and objects.matcher is joined.matcher
    assert same(draw(cls.from_pipe(STOCK[kind].from_pretrained(base), matcher=matcher)), wanted)
    with pytest.raises(ValueError, match="has no matcher, so it cannot hear"):
        draw(cls.from_pretrained(base))
    assert cls.from_pretrained(folder / "whole", matcher=None).matcher is None


def test_precision_and_arguments_of_the_matcher(saved):
    kind, folder, _ = saved
    cls, base, matcher = CLASSES[kind], folder / "base", folder / "matcher"
    half = cls.from_pretrained(base, matcher=matcher, torch_dtype=torch.bfloat16)
    assert {half.unet.dtype, half.matcher.dtype} == {torch.bfloat16}
    assert np.isfinite(draw(half).scores).all()
    own = cls.from_pretrained(base, matcher=matcher, matcher_kwargs={"dtype": torch.bfloat16})
    assert (own.unet.dtype, own.matcher.dtype) == (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="matcher_kwargs are for loading a matcher"):
        cls.from_pretrained(base, matcher=own.matcher, matcher_kwargs={"revision": "main"})
    with pytest.raises(ValueError, match="load the processor, or pass both names"):
        cls.from_pretrained(base, matcher=own.matcher, matcher_processor=str(matcher))


def test_a_variant_is_one_of_all_models(saved, tmp_path):
    kind, folder, wanted = saved
    cls = CLASSES[kind]
    pipe = cls.from_pretrained(folder / "whole")
    pipe.save_pretrained(tmp_path, variant="fp16", max_shard_size="100KB")
    shards = list((tmp_path / "matcher").glob("model.fp16-*.safetensors"))
    assert len(shards) > 1 and not list(tmp_path.rglob("model.safetensors"))
    assert same(draw(cls.from_pretrained(tmp_path, variant="fp16")), wanted)
    with pytest.raises(ValueError, match="no such modeling files"):
        cls.from_pretrained(folder / "whole", variant="fp16")


def test_pe_av_is_a_matcher_like_any_other(tmp_path, monkeypatch):
    model, processor = tiny_diffusion.pe_av()
    # what is saved is read back as a tower of timm, which is not there, and no other
    monkeypatch.setattr(type(model), "from_pretrained", lambda *args, **kwargs: model)
    pipe = tiny_diffusion.pipeline(matcher=model, matcher_processor=processor)
    wanted = draw(pipe, 48000)
    pipe.save_pretrained(tmp_path / "whole")
    assert same(draw(UniBriVLPipeline.from_pretrained(tmp_path / "whole"), 48000), wanted)
    StableDiffusionPipeline.from_pipe(pipe).save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "pe-av")
    processor.feature_extractor.save_pretrained(tmp_path / "pe-av")
    processor.tokenizer.save_pretrained(tmp_path / "pe-av")
    joined = UniBriVLPipeline.from_pretrained(tmp_path / "base", matcher=tmp_path / "pe-av")
    assert same(draw(joined, 48000), wanted)
    assert type(joined.matcher_processor).__name__ == "UniBriVLProcessor"


def test_other_bases_are_refused_with_what_would_load_them(saved, tmp_path):
    kind, folder, _ = saved
    other = CLASSES["xl" if kind == "sd" else "sd"]
    with pytest.raises(ValueError, match=f"which {CLASSES[kind].__name__} loads"):
        other.from_pretrained(folder / "base")
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]})
    )
    with pytest.raises(ValueError, match="is of a FluxPipeline"):
        CLASSES[kind].from_pretrained(tmp_path)


def test_from_pipe_there_and_back_keeps_the_components():
    pipe = tiny_diffusion.pipeline()
    wanted = draw(pipe)
    editing = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    assert editing.unet is pipe.unet and editing.vae is pipe.vae
    back = UniBriVLPipeline.from_pipe(editing, matcher=pipe.matcher, matcher_processor=pipe.matcher_processor)
    assert same(draw(back), wanted)


def test_lora_of_the_base_is_loaded_as_ever(tmp_path):
    pytest.importorskip("peft", reason="LoRA needs peft: pip install 'unibrivl[dev]'")
    from diffusers.training_utils import _collate_lora_metadata
    from peft import LoraConfig, get_peft_model_state_dict

    pipe = tiny_diffusion.pipeline()
    plain = draw(pipe)
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights=False))
    wanted = draw(pipe)
    state, metadata = get_peft_model_state_dict(pipe.unet), _collate_lora_metadata({"unet": pipe.unet})
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=state, **metadata)
    fresh = tiny_diffusion.pipeline()
    fresh.load_lora_weights(str(tmp_path))
    assert same(draw(fresh), wanted) and not same(plain, wanted)
    fresh.unload_lora_weights()
    assert same(draw(fresh), plain)


def ip_adapter(pipe, width: int = 20) -> dict:
    """Weights of an IP-Adapter with random numbers, in the layout in which they are published."""
    generator = torch.Generator().manual_seed(4)
    cross = pipe.unet.config.cross_attention_dim
    layers = [one for name, one in pipe.unet.named_modules() if name.endswith("attn2")]
    weights = {}
    for number, layer in enumerate(layers):
        for part in ("k", "v"):
            shape = (layer.to_k.out_features, cross)
            weights[f"{2 * number + 1}.to_{part}_ip.weight"] = torch.randn(shape, generator=generator)
    proj = {"proj.weight": torch.randn(4 * cross, width, generator=generator), "proj.bias": torch.zeros(4 * cross)}
    return {
        "image_proj": proj | {"norm.weight": torch.ones(cross), "norm.bias": torch.zeros(cross)},
        "ip_adapter": weights,
    }


def test_pictures_of_an_ip_adapter_go_with_the_candidates(saved):
    kind, _, _ = saved
    pipe = MAKE[kind]()
    pipe.unet._load_ip_adapter_weights([ip_adapter(pipe)])
    embeds = torch.randn(2, 1, 20, generator=generator(8))  # without and with guidance
    call = {**CALL, "ip_adapter_image_embeds": [embeds], "audio": sound(), "sampling_rate": RATE_HZ}
    together = pipe(**call | {"strategy": "halving", "num_candidates": 6}, generator=generator(), keep_candidates=True)
    plain = {name: value for name, value in CALL.items() if name not in ("num_candidates", "strategy")}
    for one in together.candidates:
        if one.score is not None:
            again = pipe(**plain, ip_adapter_image_embeds=[embeds], generator=generator(one.seed)).images[0]
            assert np.abs(again - one.image).max() <= 1e-4
            other = pipe(**plain, ip_adapter_image_embeds=[-embeds], generator=generator(one.seed)).images[0]
            assert np.abs(again - other).max() > 1e-3
