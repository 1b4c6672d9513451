"""diffusers' own common tests on our pipelines, each twice: as the plain pipeline, and with a sound.

They are in diffusers' repository and in none of its distributions: `make mixins ARGS="--diffusers CHECKOUT"` runs them
out of a checkout of it, at the tag of the installed version.
"""

from __future__ import annotations

import diffusers
import pytest
import tiny_diffusion
import torch
from tests.pipelines.testing_utils.common import BasePipelineTesterConfig, PipelineTesterMixin

from unibrivl.pipelines import UniBriVLPipeline, UniBriVLUnCLIPPipeline, UniBriVLXLPipeline

TEXT_TO_IMAGE = {
    *("prompt", "height", "width", "guidance_scale", "negative_prompt", "prompt_embeds", "negative_prompt_embeds"),
    *("cross_attention_kwargs", "audio"),
}


class PipelineConfig(BasePipelineTesterConfig):
    required_input_params_in_call_signature = frozenset(TEXT_TO_IMAGE)
    batch_input_params = frozenset({"prompt", "negative_prompt"})
    callback_cfg_params = frozenset({"prompt_embeds"})
    output_shape = (3, tiny_diffusion.SIDE, tiny_diffusion.SIDE)
    heard = False

    @pytest.fixture(autouse=True)
    def parents_where_diffusers_looks(self, monkeypatch):
        """It reads the source of `encode_prompt` of a class of its own by the name of ours."""
        for cls in (UniBriVLPipeline, UniBriVLUnCLIPPipeline, UniBriVLXLPipeline):
            parent = next(one for one in cls.__mro__ if one.__module__.startswith("diffusers."))
            monkeypatch.setattr(diffusers.pipelines, cls.__name__, parent, raising=False)

    def get_dummy_components(self):
        model, processor = tiny_diffusion.matcher()
        return {"image_encoder": None, **self.parts(), "matcher": model, "matcher_processor": processor}

    def get_dummy_inputs(self):
        side = tiny_diffusion.SIDE
        inputs = {"prompt": "a dog in the rain", "num_inference_steps": 2, "height": side, "width": side}
        inputs |= {"guidance_scale": 6.0, "output_type": "pt", "generator": self.get_generator(0)}
        if self.heard:
            embeds = torch.randn(1, self.width(), generator=self.get_generator(1))
            inputs |= {"audio_embeds": embeds, "strategy": "rerank", "num_candidates": 2}
        return inputs

    @staticmethod
    def width() -> int:
        """Of the matcher's vectors."""
        config = tiny_diffusion.matcher()[0].config
        return config.embed_dim + config.native_dim


class SDConfig(PipelineConfig):
    pipeline_class = UniBriVLPipeline

    def test_encode_prompt_works_in_isolation(self):
        more = {"device": "cpu", "do_classifier_free_guidance": True}
        super().test_encode_prompt_works_in_isolation(more)

    @staticmethod
    def parts():
        return tiny_diffusion.sd_parts()


class XLConfig(PipelineConfig):
    pipeline_class = UniBriVLXLPipeline
    callback_cfg_params = frozenset({"prompt_embeds", "add_text_embeds", "add_time_ids"})

    @staticmethod
    def parts():
        return {**tiny_diffusion.xl_parts(), "feature_extractor": None}


class UnCLIPConfig(SDConfig):
    """Without a sound the embedding of a picture is given; with one it is the sound's."""

    pipeline_class = UniBriVLUnCLIPPipeline
    required_input_params_in_call_signature = frozenset(TEXT_TO_IMAGE | {"image", "image_embeds", "noise_level"})

    @staticmethod
    def parts():
        return tiny_diffusion.unclip_parts()

    def get_dummy_inputs(self):
        inputs = super().get_dummy_inputs()
        if self.heard:
            return {**inputs, "strategy": "embed"}
        embeds = torch.randn(1, tiny_diffusion.CLIP_WIDTH, generator=self.get_generator(1))
        return {**inputs, "image_embeds": embeds}

    def test_half_precision_inference_no_nan(self):
        pytest.skip("it casts each part with to(dtype=), which diffusers' StableUnCLIPImageNormalizer does not take")

    def test_save_load_float16(self):
        pytest.skip("it casts each part with to(dtype=), which diffusers' StableUnCLIPImageNormalizer does not take")


class TestUniBriVLPipeline(SDConfig, PipelineTesterMixin):
    pass


class TestUniBriVLXLPipeline(XLConfig, PipelineTesterMixin):
    def test_save_load_optional_components(self):
        pytest.skip("SDXL's optional components include the text encoders, and the inputs have a prompt")


class TestUniBriVLPipelineWithASound(SDConfig, PipelineTesterMixin):
    heard = True

    def test_save_load_optional_components(self):
        pytest.skip("without the matcher, which is optional, nothing can be heard")


class TestUniBriVLXLPipelineWithASound(XLConfig, PipelineTesterMixin):
    heard = True

    def test_save_load_optional_components(self):
        pytest.skip("without the matcher, which is optional, nothing can be heard")


class TestUniBriVLUnCLIPPipeline(UnCLIPConfig, PipelineTesterMixin):
    pass


class TestUniBriVLUnCLIPPipelineWithASound(UnCLIPConfig, PipelineTesterMixin):
    heard = True

    def test_save_load_optional_components(self):
        pytest.skip("without the matcher, which is optional, nothing can be heard")
