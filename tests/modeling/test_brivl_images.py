"""BriVL's image processor: the original's pixels, every kind of picture, and what it refuses instead of guessing."""

from __future__ import annotations

import json
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # 5.4 exports a substitute

from unibrivl.modeling import (
    BRIVL_IMAGE_PRESETS,
    BriVLConfig,
    BriVLImageProcessor,
    BriVLVisionConfig,
    detector_boxes,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "brivl"
FACTS = json.loads((GOLDEN / "preprocess.json").read_text())
# the goldens are of torch 2.13; releases before it place some sampling points one rounding error away
GOLDEN_LIMIT = 1e-5 if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13) else 5e-5


def photo(height, width, seed="photo"):
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(seed.encode())))
    return generator.integers(0, 256, (height, width, 3), np.uint8)


def pixels(images, **kwargs):
    return BriVLImageProcessor(size=48)(images, return_tensors="pt", **kwargs).pixel_values


@pytest.fixture
def processor():
    return BriVLImageProcessor(size=48)


@pytest.mark.parametrize("name", ["down", "up"])
def test_golden_pixels(name):
    """The original's resize and normalisation, and the statistics of every pixel between the stored ones."""
    fact = FACTS[name]
    ours = BriVLImageProcessor(size=fact["S"])(
        photo(fact["H"], fact["W"], fact["seed"]), return_tensors="pt"
    ).pixel_values
    assert ours.shape == (1, 3, fact["S"], fact["S"]) and ours.dtype == torch.float32
    wanted = load_file(GOLDEN / "preprocess.safetensors")[f"{name}.pixels_slice"]
    assert (ours[0, :, ::23, ::23] - wanted).abs().max() < GOLDEN_LIMIT
    found = {"mean": ours.mean(), "std": ours.std(), "min": ours.min(), "max": ours.max()}
    for statistic, value in found.items():
        assert abs(float(value) - fact[statistic]) < 1e-5, statistic


def test_an_antialiased_resize_would_be_caught():
    """Pillow's bilinear resize is another function when it shrinks: the golden is sensitive to it."""
    picture = photo(500, 700, FACTS["down"]["seed"])
    other = BriVLImageProcessor()(Image.fromarray(picture).resize((380, 380), Image.Resampling.BILINEAR))
    ours = BriVLImageProcessor()(picture)
    assert np.abs(ours.pixel_values[0] - other.pixel_values[0]).max() > 1


def test_a_pixel_by_hand():
    """One pixel stays itself: (bytes / 255 - mean) / std, nothing else."""
    colour = pixels(np.full((5, 9, 3), (0, 128, 255), np.uint8))[0, :, 7, 11]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(colour, (torch.tensor([0, 128, 255]) / 255 - mean) / std, atol=1e-6, rtol=0)


# ---- kinds of pictures ----------------------------------------------------------------------------------------------


def kinds(picture):
    """One picture in every form it may come in, and the same bits are wanted from each."""
    first = np.ascontiguousarray(picture.transpose(2, 0, 1))
    read_only = picture.copy()
    read_only.flags.writeable = False
    return {
        "hwc": picture,
        "chw": first,
        "pil": Image.fromarray(picture),
        "tensor hwc": torch.from_numpy(picture),
        "tensor chw": torch.from_numpy(first),
        "int64": picture.astype(np.int64),
        "uint16": picture.astype(np.uint16),
        "read only": read_only,
        "mirrored twice": picture[:, ::-1].copy()[:, ::-1],
        "bgr": picture[..., ::-1].copy()[..., ::-1],
        "rgba": Image.fromarray(np.dstack([picture, np.full(picture.shape[:2], 7, np.uint8)])),
        "rgba array": np.dstack([picture, np.full(picture.shape[:2], 7, np.uint8)]),
        "with gradient": torch.from_numpy(first).float().div(255).requires_grad_(),
    }


@pytest.mark.parametrize("kind", list(kinds(photo(8, 8))))
def test_every_kind_of_picture_gives_the_same(kind):
    picture = photo(61, 77)
    ours, wanted = pixels(kinds(picture)[kind]), pixels(picture)
    if kind == "with gradient":
        torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=0)
    else:
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("dtype, limit", [(np.float32, 1e-6), (np.float64, 1e-6), (np.float16, 3e-3)])
def test_floats_are_0_to_1_and_never_rescaled(dtype, limit):
    picture = photo(61, 77)
    for arguments in ({}, {"do_rescale": False}):
        ours = pixels((picture / 255).astype(dtype), **arguments)
        torch.testing.assert_close(ours, pixels(picture), atol=limit, rtol=0)
    brain = pixels(torch.from_numpy(picture).permute(2, 0, 1).div(255).bfloat16())
    torch.testing.assert_close(brain, pixels(picture), atol=3e-2, rtol=0)
    assert torch.equal(pixels(np.zeros((6, 6, 3), dtype)), pixels(np.zeros((6, 6, 3), np.uint8))), "black is black"


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "CMYK", "YCbCr", "HSV"])
def test_pillow_modes_become_rgb(mode):
    image = Image.fromarray(photo(61, 77)).convert(mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = pixels(image)
    assert torch.equal(ours, pixels(np.array(image.convert("RGB"))))


def test_palettes_with_transparency_do_not_warn():
    image = Image.fromarray(photo(61, 77)).convert("P")
    wanted = pixels(image)
    image.info["transparency"] = bytes(range(256))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(pixels(image), wanted)


def test_grey_arrays_become_three_equal_channels():
    grey = photo(61, 77)[..., 0]
    wanted = pixels(np.repeat(grey[..., None], 3, 2))
    for form in (grey, grey[None], grey[..., None], torch.from_numpy(grey), Image.fromarray(grey)):
        assert torch.equal(pixels(form), wanted)


def test_channels_stay_when_told(processor):
    four = np.dstack([photo(61, 77), photo(61, 77, "alpha")[..., 0]])
    mean, std = [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]
    for form in (four, Image.fromarray(four)):
        ours = processor(form, do_convert_rgb=False, image_mean=mean, image_std=std, return_tensors="pt").pixel_values
        wanted = pixels(four[..., 3], image_mean=0.4, image_std=0.8)[:, 0]
        assert ours.shape == (1, 4, 48, 48) and torch.equal(ours[:, 3], wanted)
    assert pixels(four[..., 0], do_convert_rgb=False, do_normalize=False).shape == (1, 1, 48, 48)
    with pytest.raises(ValueError, match="for 3 channels, not 4"):
        processor(four, do_convert_rgb=False)


def test_a_picture_as_thin_as_a_channel_needs_a_word():
    thin = photo(3, 77)
    with pytest.raises(ValueError, match="which axis is colour"):
        pixels(thin)
    wanted = pixels(Image.fromarray(thin))
    assert torch.equal(pixels(thin, input_data_format="channels_last"), wanted)
    assert torch.equal(pixels(thin.transpose(2, 0, 1), input_data_format="channels_first"), wanted)


def test_a_single_pixel():
    square = pixels(Image.new("RGB", (1, 1), (9, 99, 199)))
    assert (square - square[:, :, :1, :1]).abs().max() < 1e-6


# ---- batches --------------------------------------------------------------------------------------------------------


def test_a_batch_is_bit_for_bit_its_pictures():
    pictures = [photo(61, 77, "a"), photo(20, 300, "b"), photo(61, 77, "c")]
    together = pixels(pictures)
    assert torch.equal(together, torch.cat([pixels(picture) for picture in pictures]))


def test_lists_of_lists_and_arrays_of_pictures(processor):
    pictures = np.stack([photo(61, 77, str(index)) for index in range(4)])
    wanted = pixels(list(pictures))
    forms = [
        pictures,
        torch.from_numpy(pictures),
        [list(pictures[:2]), tuple(pictures[2:])],
        [pictures[:3], pictures[3]],
    ]
    for form in forms:
        assert torch.equal(pixels(form), wanted)
    arrays = processor(pictures, return_tensors="np").pixel_values
    assert isinstance(arrays, np.ndarray) and np.array_equal(arrays, wanted)
    loose = processor(pictures).pixel_values
    assert [type(array) for array in loose] == [np.ndarray] * 4 and np.array_equal(loose, wanted)


# ---- steps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(61, 77), (77, 61), (60, 77), (50, 50)])
def test_the_centre_square_is_cut_before_the_resize(height, width):
    picture = photo(height, width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    wanted = pixels(picture[top : top + side, left : left + side])
    assert torch.equal(pixels(picture, do_center_square=True), wanted)
    if height != width:
        assert not torch.equal(pixels(picture), wanted)


def test_normalising_later_is_the_same(processor):
    """What training does: un-normalised pictures in 0..1, an augmentation, then the rest."""
    picture = photo(61, 77)
    raw = processor(picture, do_normalize=False, return_tensors="pt").pixel_values
    assert raw.min() >= 0 and raw.max() <= 1 and raw.std() > 0.1
    torch.testing.assert_close(processor.normalize_pixels(raw), pixels(picture), atol=1e-6, rtol=0)
    assert processor.normalize_pixels(raw.half()).dtype == torch.float16


def test_without_resize(processor):
    picture = photo(61, 77)
    assert processor(picture, do_resize=False, return_tensors="pt").pixel_values.shape == (1, 3, 61, 77)
    assert [array.shape for array in processor([picture, photo(5, 6)], do_resize=False).pixel_values] == [
        (3, 61, 77), (3, 5, 6)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="several sizes"):
        processor([picture, photo(5, 6)], do_resize=False, return_tensors="pt")


def test_the_input_is_left_alone():
    for picture in (photo(61, 77), (photo(48, 48) / 255).astype(np.float32)):
        before = picture.copy()
        pixels(picture)
        pixels(picture, do_resize=False)
        pixels(torch.from_numpy(picture), do_resize=False)
        assert np.array_equal(picture, before)


def test_presets():
    brivl, unibrivl = (BriVLImageProcessor(**BRIVL_IMAGE_PRESETS[name]) for name in ("brivl", "unibrivl"))
    assert brivl.to_dict() == BriVLImageProcessor().to_dict()
    assert (brivl.size.height, brivl.do_center_square) == (380, False)
    assert (unibrivl.size.height, unibrivl.do_center_square) == (360, True)
    assert unibrivl(photo(61, 77), return_tensors="pt").pixel_values.shape == (1, 3, 360, 360)


# ---- saving ---------------------------------------------------------------------------------------------------------


def test_saved_and_loaded(tmp_path):
    ours = BriVLImageProcessor(**BRIVL_IMAGE_PRESETS["unibrivl"], image_mean=[0.5, 0.5, 0.5])
    ours.save_pretrained(tmp_path)
    again = BriVLImageProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == ours.to_dict() and again.do_center_square
    picture = photo(61, 77)
    assert np.array_equal(again(picture).pixel_values, ours(picture).pixel_values)
    assert BriVLImageProcessor.from_pretrained(tmp_path, do_center_square=False).do_center_square is False


@pytest.mark.parametrize("config", [BriVLConfig, BriVLVisionConfig])
def test_the_auto_class_finds_it(config, tmp_path):
    BriVLImageProcessor(size=64).save_pretrained(tmp_path)
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), BriVLImageProcessor)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    del saved["image_processor_type"]  # an older file: then the model's config decides
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(saved))
    config().save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(again, BriVLImageProcessor) and again.size.height == 64


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "picture, message",
    [
        ([], "no picture"),
        (np.zeros((0, 3, 8, 8), np.uint8), "no picture"),
        (np.zeros((0, 8, 3), np.uint8), "shape .0, 8, 3."),
        (Image.new("RGB", (0, 4)), "not empty"),
        (np.zeros((8, 8, 2), np.uint8), "channels"),
        (np.zeros((5, 8, 8), np.uint8), "channels"),
        (np.zeros(8, np.uint8), "shape"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), "shape"),
        (np.full((8, 8, 3), np.nan), "NaN"),
        (np.full((8, 8, 3), np.inf), "NaN or infinite"),
        (np.full((8, 8, 3), 255.0), "floats are 0 to 1"),
        (np.full((8, 8, 3), -2.1, np.float32), "normalised already"),
        (np.full((8, 8, 3), 256), "0 to 255"),
        (np.full((8, 8, 3), -1), "0 to 255"),
        (np.full((8, 8, 3), 40000, np.uint16), "deeper"),
        (np.zeros((8, 8, 3), bool), "bool"),
        (np.zeros((8, 8, 3), complex), "complex"),
        (Image.new("I;16", (8, 8)), "deeper than 8 bits"),
        (Image.new("F", (8, 8)), "deeper than 8 bits"),
        ("dog.jpg", "open the file"),
        ([[1, 2], [3, 4]], "got a int"),
        (None, "NoneType"),
        ([photo(8, 8), np.full((8, 8, 3), np.nan)], "picture 1: holds NaN"),
    ],
)  # fmt: skip
def test_pictures_that_are_refused(picture, message):
    with pytest.raises(ValueError, match=message):
        pixels(picture)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": {"shortest_edge": 380}}, "squares"),
        ({"size": {"height": 380, "width": 360}}, "squares"),
        ({"size": 0}, "squares"),
        ({"size": {"height": -5, "width": -5}}, "squares"),
        ({"resample": 3}, "bilinear"),
        ({"do_center_crop": True, "crop_size": 30}, "do_center_square"),
        ({"do_pad": True, "pad_size": 30}, "do_pad"),
        ({"data_format": "channels_last"}, "channels first"),
    ],
)
def test_settings_that_are_refused(arguments, message, processor):
    with pytest.raises(ValueError, match=message):
        BriVLImageProcessor(**arguments)
    with pytest.raises(ValueError, match=message):
        processor(photo(8, 8), **arguments)


def test_a_call_without_size(processor):
    assert processor(photo(8, 9), size=None, do_resize=False, return_tensors="pt").pixel_values.shape == (1, 3, 8, 9)
    with pytest.raises(ValueError, match="size"):
        processor(photo(8, 9), size=None)


def test_bytes_need_rescaling(processor):
    with pytest.raises(ValueError, match="need do_rescale"):
        processor(photo(8, 8), do_rescale=False)


# ---- a detector's boxes ---------------------------------------------------------------------------------------------


def test_detector_boxes_are_rescaled_and_padded():
    """A picture of 200 x 400 resized to 100: x shrinks by 4, y by 2; then the whole picture, then nothing."""
    boxes, mask = detector_boxes([[40, 20, 400, 200], [0, 0, 4, 2]], (200, 400), 100)
    assert boxes.shape == (37, 4) and mask.shape == (37,)
    assert boxes[:3].tolist() == [[10, 10, 100, 100], [0, 0, 1, 1], [0, 0, 100, 100]]
    assert not boxes[3:].any() and mask.tolist() == [1] * 3 + [0] * 34


@pytest.mark.parametrize("number", [0, 36, 100])
def test_any_number_of_boxes(number):
    found = np.tile(np.array([[1.0, 2.0, 30.0, 40.0]]), (number, 1))
    boxes, mask = detector_boxes(found, (50, 50), 380)
    kept = min(number, 36)
    assert mask.sum() == kept + 1 and boxes[kept].tolist() == [0, 0, 380, 380]
    assert (boxes[:kept] == torch.tensor([1.0, 2.0, 30.0, 40.0]) * 7.6).all()


@pytest.mark.parametrize("boxes", [[[10, 0, 5, 5]], [[0, 0, float("nan"), 5]], [[0, 0, 5]], [[0, 0, 5, 5, 0.9]]])
def test_boxes_that_are_no_corners(boxes):
    with pytest.raises(ValueError, match="corners"):
        detector_boxes(boxes, (50, 50), 380)
