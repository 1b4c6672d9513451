"""transformers' own common tests on UniBriVL's models: `make mixins` runs them."""

from __future__ import annotations

import unittest

import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor
from tiny_towers import AUDIO, unibrivl_config
from transformers.modeling_layers import GradientCheckpointingLayer

from unibrivl.modeling import (
    UniBriVLAudioModel,
    UniBriVLConfig,
    UniBriVLForAudioCaptioning,
    UniBriVLForAudioClassification,
    UniBriVLModel,
)

SAMPLES = 2000
QUIET = {
    "speechlm": {"num_speech_layers": 1, "num_shared_layers": 1, "layerdrop": 0.0},
    "hubert": {"num_hidden_layers": 2, "layerdrop": 0.0, "mask_time_prob": 0.0},
}
DECODER = {
    "model_type": "gpt2",
    "n_embd": 16,
    "n_layer": 1,
    "n_head": 2,
    "vocab_size": 50,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 1,
}


FRAMES = (SAMPLES - 400) // 320 + 1


class LanguageTester:
    """What the mixin asks about models of sound."""

    batch_size = 3
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4
    seq_length = SAMPLES
    encoder_seq_length = output_seq_length = key_length = FRAMES

    is_training = False  # the tower has no loss

    def __init__(self, audio):
        self.tower = {**AUDIO[audio], **QUIET[audio]}

    def get_config(self):  # with all parts, also where the class has no use for them: older mixins count on it
        parts = {"audio_config": self.tower, "decoder_config": DECODER}
        return unibrivl_config("speechlm", "clip", "clip", **parts, num_labels=4)

    def prepare_config_and_inputs_for_common(self):
        mask = torch.ones(self.batch_size, SAMPLES, dtype=torch.long)
        return self.get_config(), {"input_values": floats_tensor(list(mask.shape), scale=1.0), "attention_mask": mask}


class PairTester(LanguageTester):
    """What it asks about sounds and pictures together."""

    def prepare_config_and_inputs_for_common(self):
        config, sounds = super().prepare_config_and_inputs_for_common()
        return config, {**sounds, "pixel_values": floats_tensor([self.batch_size, 3, 32, 32])}


class HeadTester(LanguageTester):
    is_training = True


class CaptionTester(HeadTester):
    """Hidden states and attentions are the language model's, over the prefix."""

    hidden_size, num_hidden_layers, num_attention_heads = 16, 1, 2
    encoder_seq_length = output_seq_length = key_length = 10


class Common(ModelTesterMixin):
    test_resize_embeddings = False  # units are not a vocabulary that grows
    labels: torch.Tensor | None = None

    def setUp(self):
        self.model_tester = self.tester
        self.config_tester = ConfigTester(
            self, config_class=UniBriVLConfig, has_text_modality=False, common_properties=["embed_dim"], embed_dim=24
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        return {**inputs, "labels": self.labels} if return_labels and self.labels is not None else inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_training_gradient_checkpointing_use_reentrant_true(self):
        if "__call__" in vars(GradientCheckpointingLayer):
            self.skipTest("here checkpointing hides the layers from hooks, and the layer mix refuses it")
        super().test_training_gradient_checkpointing_use_reentrant_true()

    @unittest.skip("our loading refuses a file without the weights; tests/modeling/test_loading.py has its rules")
    def test_can_init_all_missing_weights(self):
        raise AssertionError


class SpeechLMInUniBriVLTest(Common, unittest.TestCase):
    all_model_classes = (UniBriVLAudioModel,)
    tester = LanguageTester("speechlm")


class HubertInUniBriVLTest(Common, unittest.TestCase):
    all_model_classes = (UniBriVLAudioModel,)
    tester = LanguageTester("hubert")

    @unittest.skip("a tower that hears and does not read has no token embeddings")
    def test_model_get_set_embeddings(self):
        raise AssertionError


class UniBriVLModelTest(Common, unittest.TestCase):
    all_model_classes = (UniBriVLModel,)
    _is_composite = True
    skip_test_audio_features_output_shape = True  # frames of the shared space, not of the backbone's width
    tester = PairTester("speechlm")

    def setUp(self):
        super().setUp()
        if self._testMethodName.startswith("test_get_text_features"):
            self.skipTest("texts are units here, unit_ids, and the mixin knows input_ids alone")
        if self._testMethodName.startswith("test_eager_matches_sdpa"):
            self.skipTest("looks for scores of other names; test_sdpa_equals_eager of our own tests compares ours")

    @unittest.skip("the language tower gives them, and is tested alone; the pair's output holds the towers' outputs")
    def test_hidden_states_output(self):
        raise AssertionError

    @unittest.skip("the language tower gives them, and is tested alone; the pair's output holds the towers' outputs")
    def test_attention_outputs(self):
        raise AssertionError

    @unittest.skip("the language tower gives them, and is tested alone; the pair's output holds the towers' outputs")
    def test_retain_grad_hidden_states_attentions(self):
        raise AssertionError


class UniBriVLForAudioClassificationTest(Common, unittest.TestCase):
    all_model_classes = (UniBriVLForAudioClassification,)
    test_all_params_have_gradient = False  # the probe stands before the projection
    tester = HeadTester("hubert")
    labels = torch.tensor([0, 3, 1])

    @unittest.skip("a tower that hears and does not read has no token embeddings")
    def test_model_get_set_embeddings(self):
        raise AssertionError


class UniBriVLForAudioCaptioningTest(Common, unittest.TestCase):
    all_model_classes = (UniBriVLForAudioCaptioning,)
    all_generative_model_classes = ()  # `generate` hands a sound to the language model's own, which has its own tests
    _is_composite = True
    test_all_params_have_gradient = False  # the prefix is made of frames, which no projection follows
    tester = CaptionTester("hubert")
    labels = torch.tensor([[3, 4, 5, 1], [7, 1, -100, -100], [9, 9, 9, 1]])
