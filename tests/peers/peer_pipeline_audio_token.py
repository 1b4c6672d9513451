"""diffusers' own common tests on our pipelines in which sounds are words, each without a sound and with one.

They are in diffusers' repository and in none of its distributions: `make mixins ARGS="--diffusers CHECKOUT"` runs them
out of a checkout of it, at the tag of the installed version.
"""

from __future__ import annotations

import diffusers
import pytest
import tiny_audio_token
import tiny_diffusion
import torch
from PIL import Image
from tests.pipelines.testing_utils.common import BasePipelineTesterConfig, PipelineTesterMixin

from unibrivl.pipelines import (
    AudioTokenEditPipeline,
    AudioTokenImg2ImgPipeline,
    AudioTokenInpaintPipeline,
    AudioTokenPipeline,
    AudioTokenXLPipeline,
)

SIDE = tiny_diffusion.SIDE
WORDS = 1  # of a sound
OURS = {"audio", "audio_embeds", "audio_sampling_rate", "audio_weights", "audio_mix", "negative_audio"}
TEXT_TO_IMAGE = OURS | {
    *("prompt", "guidance_scale", "negative_prompt", "prompt_embeds", "negative_prompt_embeds"),
    "cross_attention_kwargs",
}


class PipelineConfig(BasePipelineTesterConfig):
    required_input_params_in_call_signature = frozenset(TEXT_TO_IMAGE | {"height", "width"})
    batch_input_params = frozenset({"prompt", "negative_prompt"})
    callback_cfg_params = frozenset({"prompt_embeds"})
    output_shape = (3, SIDE, SIDE)
    prompt = "a dog in the rain"
    heard = False

    @pytest.fixture(autouse=True)
    def parents_where_diffusers_looks(self, monkeypatch):
        """It reads the source of `encode_prompt` of a class of its own by the name of ours."""
        cls = self.pipeline_class
        parent = next(one for one in cls.__mro__ if one.__module__.startswith("diffusers."))
        monkeypatch.setattr(diffusers.pipelines, cls.__name__, parent, raising=False)

    @staticmethod
    def parts():
        return {**tiny_diffusion.sd_parts(), "image_encoder": None}

    def get_dummy_components(self):
        parts = self.parts()
        model, processor = tiny_diffusion.matcher()
        adapter = tiny_audio_token.adapter_for(parts, model, processor)
        parts |= {"matcher": model, "matcher_processor": processor, "audio_adapter": adapter}
        return {**parts, "audio_encoder": None, "audio_feature_extractor": None}

    def get_dummy_inputs(self):
        inputs = {"prompt": self.prompt, "num_inference_steps": 2, "guidance_scale": 6.0, "output_type": "pt"}
        inputs |= {"generator": self.get_generator(0), **self.picture()}
        if self.heard:
            inputs |= {"prompt": f"<audio>, {self.prompt}", "audio_embeds": self.words()}
        return inputs

    @staticmethod
    def picture():
        return {"height": SIDE, "width": SIDE}

    def words(self):
        """One sound for all prompts, whatever they are."""
        widths = {"text_encoder": 32, "text_encoder_2": 32}
        parts = self.parts()
        return {
            name: 0.02 * torch.randn(WORDS, width, generator=self.get_generator(1))
            for name, width in widths.items()
            if name in parts
        }


class Heard:
    """With a sound. The tester's own batches have prompts that do not speak of it, which is refused."""

    heard = True

    def batch(self, count):
        inputs = self.get_dummy_inputs()
        prompts = [inputs["prompt"], "<audio>", f"<audio>, {100 * 'very long '}"][:count]
        inputs |= {"prompt": prompts, "generator": [self.get_generator(number) for number in range(count)]}
        return inputs

    def test_inference_batch_consistent(self):
        assert len(self.get_pipeline()(**self.batch(2))[0]) == 2

    def test_inference_batch_single_identical(self):
        pipe = self.get_pipeline()
        together = pipe(**self.batch(3))[0]
        alone = pipe(**self.get_dummy_inputs())[0]
        assert len(together) == 3
        torch.testing.assert_close(together[0], alone[0], atol=1e-4, rtol=0)

    def test_encode_prompt_works_in_isolation(self):
        pytest.skip("words of sounds are read within a call, which refuses prompt_embeds beside them")


class SDConfig(PipelineConfig):
    pipeline_class = AudioTokenPipeline

    def test_encode_prompt_works_in_isolation(self):
        super().test_encode_prompt_works_in_isolation({"device": "cpu", "do_classifier_free_guidance": True})


class Img2ImgConfig(SDConfig):
    pipeline_class = AudioTokenImg2ImgPipeline
    required_input_params_in_call_signature = frozenset(TEXT_TO_IMAGE | {"image", "strength"})
    optional_input_params = PipelineConfig.optional_input_params - {"latents"}  # the stock pipeline takes none

    @staticmethod
    def picture():
        return {"image": tiny_audio_token.picture(), "strength": 1.0}


class InpaintConfig(Img2ImgConfig):
    pipeline_class = AudioTokenInpaintPipeline
    required_input_params_in_call_signature = frozenset(
        TEXT_TO_IMAGE | {"image", "mask_image", "strength", "height", "width"}
    )
    optional_input_params = PipelineConfig.optional_input_params
    callback_cfg_params = frozenset({"prompt_embeds", "mask", "masked_image_latents"})

    @staticmethod
    def picture():
        mask = Image.new("L", (SIDE, SIDE), 255)
        return {"image": tiny_audio_token.picture(), "mask_image": mask, "height": SIDE, "width": SIDE}


class XLConfig(PipelineConfig):
    pipeline_class = AudioTokenXLPipeline
    callback_cfg_params = frozenset({"prompt_embeds", "add_text_embeds", "add_time_ids"})

    @staticmethod
    def parts():
        return {**tiny_diffusion.xl_parts(), "image_encoder": None, "feature_extractor": None}


class EditConfig(SDConfig):
    pipeline_class = AudioTokenEditPipeline
    refused = {"latents", "num_images_per_prompt", "prompt_embeds", "negative_prompt_embeds"}
    required_input_params_in_call_signature = frozenset(
        TEXT_TO_IMAGE - refused | {"image", "source_prompt", "edit_method", "strength", "height", "width"}
    )
    optional_input_params = PipelineConfig.optional_input_params - refused

    @staticmethod
    def picture():
        return {"source_prompt": "a cat in the rain", "height": SIDE, "width": SIDE}

    def test_encode_prompt_works_in_isolation(self):
        pytest.skip("an edit compares the texts themselves, and refuses prompt_embeds")


class EditPictureConfig(EditConfig):
    @staticmethod
    def picture():
        return {"source_prompt": "a cat in the rain", "image": tiny_audio_token.picture()}


class TestAudioTokenPipeline(SDConfig, PipelineTesterMixin):
    pass


class TestAudioTokenImg2ImgPipeline(Img2ImgConfig, PipelineTesterMixin):
    pass


class TestAudioTokenInpaintPipeline(InpaintConfig, PipelineTesterMixin):
    pass


class TestAudioTokenXLPipeline(XLConfig, PipelineTesterMixin):
    def test_save_load_optional_components(self):
        pytest.skip("SDXL's optional components include the text encoders, and the inputs have a prompt")


class TestAudioTokenPipelineWithASound(Heard, SDConfig, PipelineTesterMixin):
    pass


class TestAudioTokenImg2ImgPipelineWithASound(Heard, Img2ImgConfig, PipelineTesterMixin):
    pass


class TestAudioTokenInpaintPipelineWithASound(Heard, InpaintConfig, PipelineTesterMixin):
    pass


class TestAudioTokenXLPipelineWithASound(Heard, XLConfig, PipelineTesterMixin):
    def test_save_load_optional_components(self):
        pytest.skip("SDXL's optional components include the text encoders, and the inputs have a prompt")


class TestAudioTokenEditPipeline(EditConfig, PipelineTesterMixin):
    pass


class TestAudioTokenEditPipelineWithAPicture(EditPictureConfig, PipelineTesterMixin):
    pass


class TestAudioTokenEditPipelineWithASound(Heard, EditPictureConfig, PipelineTesterMixin):
    pass
