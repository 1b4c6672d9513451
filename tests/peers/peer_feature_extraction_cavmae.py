"""transformers' own common tests on CAV-MAE's feature extractor: `make mixins` runs them.

They are about saving and loading, and about padding and cutting by transformers' `pad`, which ours inherits.
"""

from __future__ import annotations

import unittest

import numpy as np
from tests.test_sequence_feature_extraction_common import SequenceFeatureExtractionTestMixin

from unibrivl.modeling import CAVMAEFeatureExtractor


class FramesTester:
    """What the mixin asks about the extractor: its fields, and frames of clips of many lengths."""

    batch_size, min_seq_length, max_seq_length = 7, 40, 200
    seq_length_diff = (max_seq_length - min_seq_length) // (batch_size - 1)
    feature_size, padding_value, sampling_rate = 8, 0.0, 16000

    def prepare_feat_extract_dict(self):
        fields = {name: getattr(self, name) for name in ("feature_size", "padding_value", "sampling_rate")}
        return {**fields, "num_mel_bins": self.feature_size, "max_length": 64, "mean": -4.0, "std": 3.0}

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        lengths = range(self.min_seq_length, self.max_seq_length, self.seq_length_diff)
        generator = np.random.default_rng(0)
        clips = [generator.random((80 if equal_length else length, self.feature_size)) for length in lengths]
        return clips if numpify else [clip.tolist() for clip in clips]


class CAVMAEFeatureExtractorTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = CAVMAEFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = FramesTester()

    @property
    def feat_extract_dict(self):
        return self.feat_extract_tester.prepare_feat_extract_dict()
