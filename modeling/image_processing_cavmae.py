"""CAV-MAE's image processor: the shorter side to 224 pixels, the middle 224 x 224 of it, ImageNet's normalisation.

Two rules decide parity. Pillow's bicubic resize, which antialiases, on whole numbers; and torchvision's centre crop,
which rounds half of an odd remainder to the even side where transformers' rounds down: one pixel apart when the
remainder leaves 3 on division by 4.

Shapes: C channels, H x W a picture.
"""

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_transforms import to_pil_image
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    PILImageResampling,
)

from .code_unibrivl import CarriesCode
from .image_processing_brivl import BriVLImageProcessor, batch_of, normalized, scale_of


class CAVMAEImageProcessor(CarriesCode, PilBackend):
    """
    Takes the pictures that `BriVLImageProcessor` takes, and refuses those that it refuses.

    Args:
        size (`int` or `dict`): the shorter side after the resize, `{"shortest_edge": 224}`.
        crop_size (`int` or `dict`): side of the square cut out of the middle, 224.
        do_resize, do_center_crop, do_rescale, do_normalize (`bool`): the steps. Without `do_normalize` pictures stay
            in 0..1, and `normalize_pixels` does the rest.
        image_mean, image_std (`list[float]`): of ImageNet.
    """

    model_input_names = ["pixel_values"]

    do_convert_rgb = True
    do_resize = True
    size = {"shortest_edge": 224}
    default_to_square = False
    resample = PILImageResampling.BICUBIC
    do_center_crop = True
    crop_size = {"height": 224, "width": 224}
    do_rescale = True
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD

    _prepare_image_like_inputs = BriVLImageProcessor._prepare_image_like_inputs
    process_image = BriVLImageProcessor.process_image
    normalize_pixels = BriVLImageProcessor.normalize_pixels

    def _standardize_kwargs(self, **kwargs) -> dict:
        """Canonical arguments, both of the processor and of one call of it. What it cannot do is refused here."""
        kwargs = super()._standardize_kwargs(**kwargs)
        size, crop = kwargs["size"], kwargs["crop_size"]
        if size is not None and (size.shortest_edge or 0) < 1:
            raise ValueError(f'size must be {{"shortest_edge": pixels}} or one number, got {dict(size)}')
        if crop is not None and ((crop.height or 0) < 1 or crop.height != crop.width):
            raise ValueError(f"crop_size must be one side or an equal height and width, got {dict(crop)}")
        both = kwargs.get("do_resize") and kwargs.get("do_center_crop") and size is not None and crop is not None
        if both and crop.height > size.shortest_edge:
            raise ValueError(f"crop_size ({crop.height}) is larger than the resized picture ({size.shortest_edge})")
        if kwargs.get("resample") not in (None, PILImageResampling.BICUBIC):
            raise ValueError("CAV-MAE's resize is Pillow's bicubic; leave resample alone")
        if kwargs.get("do_pad"):
            raise ValueError("do_pad is not supported: every picture becomes a square of the same size")
        if kwargs.get("data_format") not in (None, ChannelDimension.FIRST, ChannelDimension.FIRST.value):
            raise ValueError("the tower takes channels first; permute pixel_values if you need them last")
        return kwargs

    def _preprocess(
        self,
        images,
        do_resize,
        size,
        do_center_crop,
        crop_size,
        do_rescale,
        rescale_factor,
        do_normalize,
        image_mean,
        image_std,
        return_tensors,
        **kwargs,
    ) -> BatchFeature:
        shift, gain = scale_of(image_mean, image_std) if do_normalize else (None, 1.0)
        pictures = []
        for picture_CHW in images:
            if not do_rescale:
                raise ValueError("do_rescale=False is not supported: the resize works on, and gives, 0 to 255")
            if picture_CHW.is_floating_point():  # Pillow resizes what a file holds: whole numbers
                picture_CHW = (picture_CHW * 255).round_().to(torch.uint8)
            if do_resize:
                picture_CHW = resized(picture_CHW, size.shortest_edge)
            if do_center_crop:
                picture_CHW = center_crop(picture_CHW, crop_size.height)
            pictures.append(normalized(picture_CHW, rescale_factor, shift, gain))
        return batch_of(pictures, return_tensors, "do_center_crop")


def resized(picture_CHW: torch.Tensor, shorter: int) -> torch.Tensor:
    """Bytes with the shorter side of so many pixels, by Pillow; the longer one rounded down, as torchvision does."""
    height, width = picture_CHW.shape[1:]
    if min(height, width) == shorter:
        return picture_CHW
    longer = int(shorter * max(height, width) / min(height, width))
    size = (longer, shorter) if height <= width else (shorter, longer)  # width first
    picture = to_pil_image(picture_CHW.numpy(), do_rescale=False, input_data_format=ChannelDimension.FIRST)
    array = np.array(picture.resize(size, resample=PILImageResampling.BICUBIC))
    return torch.from_numpy(array).reshape(size[1], size[0], -1).permute(2, 0, 1)


def center_crop(picture_CHW: torch.Tensor, side: int) -> torch.Tensor:
    """The middle square by torchvision's rule: Python's round, half to even."""
    height, width = picture_CHW.shape[1:]
    if min(height, width) < side:
        raise ValueError(f"a picture of {height} x {width} has no square of {side}: leave do_resize on")
    top, left = round((height - side) / 2), round((width - side) / 2)
    return picture_CHW[:, top : top + side, left : left + side]


__all__ = ["CAVMAEImageProcessor"]
