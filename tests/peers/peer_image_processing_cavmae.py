"""transformers' own common tests on CAV-MAE's image processor: `make mixins` runs them."""

from __future__ import annotations

import unittest

import tests.test_image_processing_common as common

from unibrivl.modeling import CAVMAEImageProcessor

if not hasattr(common, "ImageProcessingTester"):
    raise unittest.SkipTest("this transformers' mixin is of an older form, which these lines do not speak")


class PictureTester(common.ImageProcessingTester):
    """What the mixin asks about the processor: its class, its fields, and the shape that comes out."""

    def __init__(self, parent):
        self.size, self.crop_size = {"shortest_edge": 24}, {"height": 20, "width": 20}
        self.image_mean, self.image_std = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]
        super().__init__(parent, min_resolution=30, max_resolution=80)

    def _get_image_processing_classes(self):
        return {"pil": CAVMAEImageProcessor}


class CAVMAEImageProcessorTest(common.ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = PictureTester

    @unittest.skip("a rule for models inside transformers; this one needs no torchvision, on purpose")
    def test_new_models_require_torchvision_backend(self):
        raise AssertionError
