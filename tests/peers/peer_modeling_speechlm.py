"""transformers' own common tests on SpeechLM's tower and recogniser: `make mixins` runs them."""

from __future__ import annotations

import unittest

import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor

from unibrivl.modeling import SPEECHLM_PRESETS, SpeechLMConfig, SpeechLMForCTC, SpeechLMModel

SAMPLES = 2000
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_speech_layers": 1,
    "num_shared_layers": 1,
    "conv_dim": [24] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "max_relative_position": 20,
    "max_source_positions": 120,
    "unit_vocab_size": 37,
    "unit_proj_size": 12,
    "ctc_vocab_size": 11,
}


class SpeechTester:
    """What the mixin asks about a model."""

    batch_size, is_training = 3, False  # the tower has no loss
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4
    seq_length = SAMPLES
    encoder_seq_length = output_seq_length = key_length = (SAMPLES - 400) // 320 + 1

    def __init__(self, preset):
        self.preset = preset

    def prepare_config_and_inputs_for_common(self):
        config = SpeechLMConfig(**{**SPEECHLM_PRESETS[self.preset], **SMALL})
        mask = torch.ones(self.batch_size, SAMPLES, dtype=torch.long)
        return config, {"input_values": floats_tensor(list(mask.shape), scale=1.0), "attention_mask": mask}


class SpeechLMBaseTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (SpeechLMModel, SpeechLMForCTC)
    test_resize_embeddings = False  # units are not a vocabulary that grows
    preset = "base-p"

    def setUp(self):
        self.model_tester = SpeechTester(self.preset)
        self.config_tester = ConfigTester(
            self,
            config_class=SpeechLMConfig,
            has_text_modality=False,
            common_properties=["hidden_size", "num_attention_heads", "num_hidden_layers"],
            hidden_size=32,
            num_attention_heads=4,
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    @unittest.skip("our loading refuses a file without the weights; tests/modeling/test_loading.py has its rules")
    def test_can_init_all_missing_weights(self):
        raise AssertionError


class SpeechLMLargeTest(SpeechLMBaseTest):
    preset = "large-p"
