"""transformers' own common tests on BrewCLIP's models: `make mixins` runs them."""

from __future__ import annotations

import unittest

import tiny_brewclip as tiny
import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor

from unibrivl.modeling import BrewCLIPConfig, BrewCLIPForSpeechClassification, BrewCLIPModel

TEXT = {**tiny.TEXT, "num_hidden_layers": 2}


class SpokenTester:
    """What the mixin asks about spoken sounds with transcripts."""

    batch_size, is_training = 3, False
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4
    seq_length = 100
    encoder_seq_length = output_seq_length = key_length = 50

    def get_config(self):
        return tiny.config(audio_config={**tiny.AUDIO, "encoder_layers": 2}, text_config=TEXT, num_labels=4)

    def prepare_config_and_inputs_for_common(self):
        sound = floats_tensor([self.batch_size, tiny.AUDIO["num_mel_bins"], self.seq_length])
        words = ids_tensor([self.batch_size, 7], tiny.EOS - 1) + 1
        words[:, 0], words[:, -1] = 0, tiny.EOS
        mask = torch.ones(self.batch_size, self.seq_length, dtype=torch.long)
        return self.get_config(), {"input_features": sound, "attention_mask": mask, "input_ids": words}


class PairTester(SpokenTester):
    """What it asks about them beside pictures."""

    def prepare_config_and_inputs_for_common(self):
        config, spoken = super().prepare_config_and_inputs_for_common()
        return config, {**spoken, "pixel_values": floats_tensor([self.batch_size, 3, tiny.SIDE, tiny.SIDE])}


class HeadTester(SpokenTester):
    is_training = True


class Common(ModelTesterMixin):
    test_resize_embeddings = False  # the text tower is CLIP's, and frozen
    test_all_params_have_gradient = False  # towers are frozen
    _is_composite = True
    labels: torch.Tensor | None = None

    def setUp(self):
        self.model_tester = self.tester
        self.config_tester = ConfigTester(
            self, config_class=BrewCLIPConfig, has_text_modality=False, common_properties=["num_prompts"],
            num_attention_heads=4, num_prompts=3,
        )  # fmt: skip
        for name, reason in self.skipped.items():
            if self._testMethodName.startswith(name):
                self.skipTest(reason)

    skipped = {
        "test_hidden_states_output": "towers give them, and are transformers' own; the output holds vectors",
        "test_attention_outputs": "towers give them, and are transformers' own; the output holds vectors",
        "test_retain_grad_hidden_states_attentions": "towers give them; the output holds vectors",
        "test_can_init_all_missing_weights": "our loading refuses a file without the weights",
        "test_get_text_features_hidden_states": "texts of many parts have vectors, and no states of one shape",
        "test_get_text_features_attentions": "texts of many parts have vectors, and no states of one shape",
        "test_get_audio_features_hidden_states": "two channels have vectors, and no states of one shape",
        "test_get_audio_features_output": "asks without transcripts, which the channel of words refuses",
        "test_eager_matches_sdpa": "looks for scores of other names; our own tests compare ours",
        "test_can_capture_specific_layers": "the output holds vectors, and towers are transformers' own",
        "test_capture_outputs_decorator": "the output holds vectors, and towers are transformers' own",
        "test_get_text_features_output": "texts of many parts have vectors, and no states of one shape",
        "test_training_gradient_checkpointing": "the first layer it looks at is of a frozen tower, in eval mode",
        "test_get_audio_features_attentions": "two channels have vectors, and no states of one shape",
    }

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        return {**inputs, "labels": self.labels} if return_labels and self.labels is not None else inputs

    def test_config(self):
        self.config_tester.run_common_tests()


class BrewCLIPModelTest(Common, unittest.TestCase):
    all_model_classes = (BrewCLIPModel,)
    tester = PairTester()


class BrewCLIPForSpeechClassificationTest(Common, unittest.TestCase):
    all_model_classes = (BrewCLIPForSpeechClassification,)
    tester = HeadTester()
    labels = torch.tensor([0, 3, 1])
