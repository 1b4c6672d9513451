"""transformers' own common tests on the mel encoder over three kinds of backbone, and its feature extractor."""

from __future__ import annotations

import random
import unittest

import numpy as np
import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor
from tests.test_sequence_feature_extraction_common import SequenceFeatureExtractionTestMixin

from unibrivl.modeling import MelEncoderConfig, MelEncoderFeatureExtractor, MelEncoderModel

BACKBONES = {
    "resnet": {
        "num_channels": 1,
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "layer_type": "basic",
    },
    "efficientnet": {
        "num_channels": 1,
        "width_coefficient": 0.1,
        "depth_coefficient": 0.2,
        "hidden_dim": 128,
        "in_channels": [32, 16, 24],
        "out_channels": [16, 24, 40],
        "kernel_sizes": [3, 3, 5],
        "strides": [1, 2, 2],
        "num_block_repeats": [1, 1, 1],
        "expand_ratios": [1, 2, 2],
        "drop_connect_rate": 0.0,
        "dropout_rate": 0.0,
    },
    "vit": {
        "num_channels": 1,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "image_size": 32,
        "patch_size": 8,
    },
}


class MelEncoderModelTester:
    def __init__(self, parent, backbone):
        self.parent, self.backbone = parent, backbone
        self.batch_size, self.num_frames, self.num_mel_bins = 3, 64, 32
        self.is_training = False  # it has no loss
        self.seq_length = self.num_frames
        self.hidden_size = self.get_config().hidden_size
        self.num_hidden_layers = 2

    def get_config(self):
        backbone_config = {"model_type": self.backbone, **BACKBONES[self.backbone]}
        return MelEncoderConfig(backbone_config=backbone_config, num_mel_bins=self.num_mel_bins)

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {
            "input_features": floats_tensor([self.batch_size, self.num_frames, self.num_mel_bins], scale=2.0),
            "attention_mask": torch.ones(self.batch_size, self.num_frames, dtype=torch.long),
        }


class MelEncoderResNetTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (MelEncoderModel,)
    backbone = "resnet"
    has_attentions = False
    test_resize_embeddings = False
    test_torch_exportable = False  # clips run at their own length

    def setUp(self):
        self.model_tester = MelEncoderModelTester(self, self.backbone)
        self.config_tester = ConfigTester(
            self,
            config_class=MelEncoderConfig,
            has_text_modality=False,
            common_properties=["hidden_size"],
            num_mel_bins=32,
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    @unittest.skip(reason="A tower that hears has no token embeddings")
    def test_model_get_set_embeddings(self):
        pass

    @unittest.skip(reason="The backbone's own hidden states, maps of many sizes: see tests/modeling")
    def test_hidden_states_output(self):
        pass


class MelEncoderEfficientNetTest(MelEncoderResNetTest):
    backbone = "efficientnet"


class MelEncoderViTTest(MelEncoderResNetTest):
    backbone = "vit"


class FeatureExtractionTester:
    batch_size, min_seq_length, max_seq_length, feature_size, padding_value, sampling_rate = (
        7,
        400,
        2000,
        8,
        0.0,
        16000,
    )
    return_attention_mask = True
    do_normalize = True

    def prepare_feat_extract_dict(self):
        return {"feature_size": self.feature_size, "padding_value": 0.0, "sampling_rate": 16000, "fmin": 100.0}

    @property
    def seq_length_diff(self):
        return (self.max_seq_length - self.min_seq_length) // (self.batch_size - 1)

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        lengths = [self.max_seq_length] * self.batch_size
        if not equal_length:
            lengths = list(range(self.min_seq_length, self.max_seq_length, self.seq_length_diff))
        rng = random.Random(0)
        clips = [[[rng.random() for _ in range(self.feature_size)] for _ in range(length)] for length in lengths]
        return [np.asarray(clip) for clip in clips] if numpify else clips


class MelEncoderFeatureExtractionTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = MelEncoderFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = FeatureExtractionTester()

    @property
    def feat_extract_dict(self):
        return self.feat_extract_tester.prepare_feat_extract_dict()
