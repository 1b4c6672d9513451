"""BriVL's image processor: pictures of any size and kind -> one batch of normalised squares; and a detector's boxes.

The resize is what decides parity: straight to the square, bilinear with half-pixel centres and without antialiasing,
on floats. Pillow's and today's torchvision's resize antialias, and differ by up to 2 in normalised units.

Shapes: B batch, C channels, H x W a picture, S the side of the square, n boxes of a detector, N regions.
"""

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    PILImageResampling,
    is_pil_image,
)
from transformers.processing_utils import ImagesKwargs

from .code_unibrivl import CarriesCode

# BriVL-1.0's code, whose weights need it; UniBriVL's paper: the centre square of a video's frame, 360 pixels
BRIVL_IMAGE_PRESETS: dict[str, dict] = {
    "brivl": {"size": {"height": 380, "width": 380}, "do_center_square": False},
    "unibrivl": {"size": {"height": 360, "width": 360}, "do_center_square": True},
}
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
SLACK = 1e-3  # what a float picture may leave 0..1 by: rounding, not another scale


class BriVLImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """
    do_center_square (`bool`): cut the middle square out of each picture, before it is resized.
    """

    do_center_square: bool | None


class BriVLImageProcessor(CarriesCode, PilBackend):
    """
    Takes Pillow images, arrays and tensors, channels first or last, of 1, 3 or 4 channels, and lists and batches of
    them. Grey becomes RGB and transparency is dropped, as Pillow's `convert("RGB")` does. The type tells the scale:
    whole numbers are 0 to 255, floats are 0 to 1 already and never rescaled; anything else is refused. Pictures are
    taken as they stand: whoever opens files applies their EXIF orientation.

    Args:
        size (`int` or `dict`): side of the square, 380. The public weights were also run at 456.
        do_center_square (`bool`): cut the middle square out first. Off, the aspect ratio is lost, as in BriVL.
        do_resize, do_rescale, do_normalize (`bool`): the steps. Without `do_normalize` pictures stay in 0..1, which is
            what training augments; `normalize_pixels` does the rest.
        image_mean, image_std (`list[float]`): of ImageNet.
    """

    valid_kwargs = BriVLImageProcessorKwargs
    model_input_names = ["pixel_values"]

    do_convert_rgb = True
    do_center_square = False
    do_resize = True
    size = {"height": 380, "width": 380}
    resample = PILImageResampling.BILINEAR
    do_rescale = True
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD

    def _standardize_kwargs(self, **kwargs) -> dict:
        """Canonical arguments, both of the processor and of one call of it. What it cannot do is refused here."""
        kwargs = super()._standardize_kwargs(**kwargs)
        size = kwargs["size"]
        if size is not None and ((size.height or 0) < 1 or size.height != size.width):
            raise ValueError(
                f"size must be one side or an equal height and width, got {dict(size)}: BriVL sees squares"
            )
        if kwargs.get("resample") not in (None, PILImageResampling.BILINEAR):
            raise ValueError("BriVL's resize is bilinear without antialiasing; leave resample alone")
        if kwargs.get("do_center_crop"):
            raise ValueError("do_center_crop cuts after a resize, BriVL before it: pass do_center_square=True")
        if kwargs.get("do_pad"):
            raise ValueError("do_pad is not supported: every picture becomes a square of the same size")
        if kwargs.get("data_format") not in (None, ChannelDimension.FIRST, ChannelDimension.FIRST.value):
            raise ValueError("the tower takes channels first; permute pixel_values if you need them last")
        return kwargs

    def _prepare_image_like_inputs(self, images, *args, **kwargs) -> list[torch.Tensor]:
        pictures = []
        for index, image in enumerate(flat(images)):
            try:
                pictures.append(self.process_image(image, *args, **kwargs))
            except ValueError as error:
                raise ValueError(f"picture {index}: {error}") from error
        if not pictures:
            raise ValueError("no picture: pass at least one")
        return pictures

    def process_image(self, image, do_convert_rgb=True, input_data_format=None, **kwargs) -> torch.Tensor:
        """One picture as (C, H, W), RGB unless told otherwise: uint8 in 0..255, or float32 in 0..1."""
        if is_pil_image(image):
            array, input_data_format = pil_array(image, do_convert_rgb), ChannelDimension.LAST
        elif isinstance(image, torch.Tensor):
            image = image.detach().cpu()
            array = (image.float() if image.is_floating_point() else image).numpy()
        else:
            array = image
        if array.ndim == 2:
            array, input_data_format = array[None], ChannelDimension.FIRST
        if array.ndim != 3 or 0 in array.shape:
            raise ValueError(
                f"has shape {array.shape}: a picture is (height, width) with 1, 3 or 4 channels, not empty"
            )
        if channel_axis(array.shape, input_data_format) == 2:
            array = np.moveaxis(array, 2, 0)
        array = checked_scale(array[:3] if do_convert_rgb else array)  # a fourth channel is transparency
        if not array.flags.writeable or min(array.strides) < 0:  # torch takes neither
            array = array.copy(order="K")
        picture_CHW = torch.from_numpy(array)
        return picture_CHW.expand(3, -1, -1) if do_convert_rgb else picture_CHW

    def _preprocess(
        self,
        images,
        do_center_square,
        do_resize,
        size,
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
            is_bytes = not picture_CHW.is_floating_point()
            if is_bytes and not do_rescale:
                raise ValueError("whole numbers are 0 to 255 and need do_rescale; pass floats in 0..1 to go without")
            if do_center_square:
                picture_CHW = center_square(picture_CHW)
            picture_CHW = picture_CHW.float()
            if do_resize:
                picture_CHW = torch.nn.functional.interpolate(
                    picture_CHW[None], size=(size.height, size.width), mode="bilinear", align_corners=False
                )[0]
            pictures.append(normalized(picture_CHW, rescale_factor if is_bytes else 1, shift, gain))
        return batch_of(pictures, return_tensors, "do_resize")

    def normalize_pixels(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """What `do_normalize=False` left out, for pictures in 0..1 that something else, an augmentation, changed."""
        shift, gain = scale_of(self.image_mean, self.image_std)
        return pixels_BCHW * gain.to(pixels_BCHW) - shift.to(pixels_BCHW)


def flat(images) -> list:
    """Pictures out of a picture, a batch of them in one array, or lists of either."""
    if isinstance(images, (list, tuple)):
        return [picture for item in images for picture in flat(item)]
    if is_pil_image(images):
        return [images]
    if isinstance(images, (str, bytes)):
        raise ValueError("got text or bytes: open the file first, with PIL.Image.open")
    if not isinstance(images, (np.ndarray, torch.Tensor)):
        raise ValueError(f"got a {type(images).__name__}: a picture is a Pillow image, an array or a tensor")
    return list(images) if images.ndim == 4 else [images]


def pil_array(image, do_convert_rgb: bool) -> np.ndarray:
    """(H, W, 3) in uint8; without conversion grey, RGB and RGBA stay what they are."""
    if image.mode in DEEP_MODES:
        raise ValueError(f"has Pillow's mode {image.mode!r}, deeper than 8 bits: scale it to 0..255 and convert('L')")
    if not do_convert_rgb and image.mode in ("L", "RGB", "RGBA"):
        return np.array(image)
    if "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB would warn
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def channel_axis(shape, input_data_format=None) -> int:
    channels = (1, 3, 4)
    if input_data_format is not None:
        axis = 2 if ChannelDimension(input_data_format) == ChannelDimension.LAST else 0
        if shape[axis] in channels:
            return axis
    elif (shape[0] in channels) != (shape[2] in channels):
        return 0 if shape[0] in channels else 2
    elif shape[0] in channels:
        raise ValueError(f"has shape {shape}: first or last, which axis is colour? Pass input_data_format")
    raise ValueError(f"has shape {shape}: it needs 1, 3 or 4 channels, first or last")


def checked_scale(array: np.ndarray) -> np.ndarray:
    """Whole numbers in 0..255 as uint8, floats in 0..1 as float32; all else is an error."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "uif":
        raise ValueError(f"holds {array.dtype}: a picture is of whole numbers in 0..255 or floats in 0..1")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if not np.isfinite(low + high):
            raise ValueError("holds NaN or infinite values")
        if low < -SLACK or high > 1 + SLACK:
            raise ValueError(
                f"holds floats from {low:.3g} to {high:.3g}: floats are 0 to 1. Pass 0..255 as uint8; "
                "a picture that is normalised already needs no processor"
            )
        return array.astype(np.float32, copy=False)
    if low < 0 or high > 255:
        raise ValueError(f"holds whole numbers from {low} to {high}: they are 0 to 255. Scale deeper pictures first")
    return array.astype(np.uint8)


def center_square(picture_CHW: torch.Tensor) -> torch.Tensor:
    height, width = picture_CHW.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture_CHW[:, top : top + side, left : left + side]


def scale_of(mean, std) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalisation as a shift and a gain, (C, 1, 1) or (1, 1, 1) each: x * gain - shift."""
    mean, std = (torch.as_tensor(value, dtype=torch.float64).reshape(-1, 1, 1) for value in (mean, std))
    return torch.broadcast_tensors((mean / std).float(), (1 / std).float())


def normalized(picture_CHW: torch.Tensor, factor: float, shift: torch.Tensor | None, gain) -> torch.Tensor:
    """A picture times `factor`, which brings it to 0..1, and normalised, unless `shift` is None; see `scale_of`."""
    if shift is not None and len(shift) not in (1, len(picture_CHW)):
        raise ValueError(f"image_mean and image_std are for {len(shift)} channels, not {len(picture_CHW)}")
    picture_CHW = picture_CHW.float() * (gain * factor)
    return picture_CHW if shift is None else picture_CHW.sub_(shift)


def batch_of(pictures: list[torch.Tensor], return_tensors, step: str) -> BatchFeature:
    """Pictures as `pixel_values`: a list without `return_tensors`, else one batch, which `step` makes possible."""
    if return_tensors is None:
        return BatchFeature({"pixel_values": [picture_CHW.numpy() for picture_CHW in pictures]})
    if len({picture_CHW.shape for picture_CHW in pictures}) > 1:
        raise ValueError(f"pictures of several sizes make no batch: leave {step} on")
    return BatchFeature({"pixel_values": torch.stack(pictures).numpy()}, tensor_type=return_tensors)


def detector_boxes(boxes, image_size, target: int, num_regions: int = 37) -> tuple[torch.Tensor, torch.Tensor]:
    """The regions of one picture from a detector's boxes, as BriVL-1.0 was trained, for the vision tower.

    The first 36 boxes, then the whole picture, then boxes of zeros that the mask takes out. For pictures that were
    resized as a whole: not with `do_center_square`.

    Args:
        boxes: (n, 4), corners x1, y1, x2, y2 in pixels of the original picture, best first.
        image_size: height and width of the original picture.
        target (`int`): the side it was resized to.
        num_regions (`int`): 36 boxes and the whole picture.

    Returns:
        boxes (N, 4) in pixels of the resized picture, and their mask (N,); stack them for a batch.
    """
    boxes_n4 = torch.as_tensor(boxes, dtype=torch.float32)
    boxes_n4 = boxes_n4.reshape(0, 4) if boxes_n4.numel() == 0 else boxes_n4[: num_regions - 1]
    is_corners = boxes_n4.dim() == 2 and boxes_n4.shape[1] == 4 and boxes_n4.isfinite().all()
    if not is_corners or (boxes_n4[:, :2] > boxes_n4[:, 2:]).any():
        raise ValueError("boxes must be corners, rows of (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, in pixels")
    height, width = image_size
    regions_N4 = torch.zeros(num_regions, 4)
    regions_N4[: len(boxes_n4)] = boxes_n4 * (target / torch.tensor([width, height, width, height]))
    regions_N4[len(boxes_n4)] = torch.tensor([0.0, 0.0, target, target])
    mask_N = (torch.arange(num_regions) <= len(boxes_n4)).long()
    return regions_N4, mask_N


__all__ = ["BRIVL_IMAGE_PRESETS", "BriVLImageProcessor", "BriVLImageProcessorKwargs", "detector_boxes"]
