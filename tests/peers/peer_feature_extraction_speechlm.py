"""transformers' own common tests on SpeechLM's feature extractor: `make mixins` runs them."""

from __future__ import annotations

import unittest

import numpy as np
from tests.test_sequence_feature_extraction_common import SequenceFeatureExtractionTestMixin

from unibrivl.modeling import SpeechLMFeatureExtractor


class ClipTester:
    """What the mixin asks about the extractor: its fields, and clips of many lengths."""

    batch_size, min_seq_length, max_seq_length = 7, 400, 2000
    seq_length_diff = (max_seq_length - min_seq_length) // (batch_size - 1)
    feature_size, padding_value, sampling_rate = 1, 0.0, 16000
    return_attention_mask = do_normalize = True

    def prepare_feat_extract_dict(self):
        names = ("feature_size", "padding_value", "sampling_rate", "return_attention_mask", "do_normalize")
        return {name: getattr(self, name) for name in names}

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        lengths = range(self.min_seq_length, self.max_seq_length, self.seq_length_diff)
        generator = np.random.default_rng(0)
        clips = [generator.random(800 if equal_length else length) for length in lengths]
        return clips if numpify else [clip.tolist() for clip in clips]


class SpeechLMFeatureExtractorTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = SpeechLMFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = ClipTester()

    @property
    def feat_extract_dict(self):
        return self.feat_extract_tester.prepare_feat_extract_dict()
