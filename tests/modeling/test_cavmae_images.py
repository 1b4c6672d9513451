"""CAV-MAE's image processor against the rule written out with Pillow, and every kind of picture and setting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from unibrivl.modeling.image_processing_cavmae import CAVMAEImageProcessor, center_crop

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def literal(picture, side=224):
    """What the original's torchvision transforms do to a Pillow image, step by step."""
    image = Image.fromarray(picture)
    width, height = image.size
    short, long = min(width, height), max(width, height)
    longer = int(side * long / short)
    image = image.resize((side, longer) if width <= height else (longer, side), Image.Resampling.BICUBIC)
    width, height = image.size
    top, left = int(round((height - side) / 2.0)), int(round((width - side) / 2.0))
    array = np.asarray(image.crop((left, top, left + side, top + side))).astype(np.float64) / 255
    return ((array - MEAN) / STD).transpose(2, 0, 1)


def pixels(images, **kwargs):
    return CAVMAEImageProcessor()(images, return_tensors="pt", **kwargs).pixel_values


@pytest.mark.parametrize("height, width", [(300, 500), (500, 300), (224, 227), (229, 224), (224, 224), (100, 131)])
def test_pixels_are_the_originals(height, width):
    """Remainders 3 and 5 after the resize round to different sides; small pictures grow."""
    picture = photo(height, width)
    found = pixels(picture)
    assert found.shape == (1, 3, 224, 224) and found.dtype == torch.float32
    assert np.abs(found[0].numpy() - literal(picture)).max() < 1e-6


@pytest.mark.parametrize("rest, offset", [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (7, 4)])
def test_half_a_pixel_goes_to_the_even_side(rest, offset):
    row = torch.arange(10 + rest).expand(1, 10 + rest, -1)
    assert int(center_crop(row, 10)[0, 0, 0]) == offset


def test_transformers_rule_would_be_caught():
    picture = photo(224, 227)
    theirs = CLIPImageProcessorPil(image_mean=MEAN.tolist(), image_std=STD.tolist())(picture, return_tensors="pt")
    found = pixels(picture)
    assert not torch.allclose(found, theirs.pixel_values, atol=1e-2)
    torch.testing.assert_close(found[..., :-1], theirs.pixel_values[..., 1:], atol=1e-6, rtol=0)


def test_kinds_of_pictures():
    picture = photo(60, 80)
    wanted = pixels(picture)
    for kind in (
        Image.fromarray(picture), torch.from_numpy(picture), np.ascontiguousarray(picture.transpose(2, 0, 1)),
        picture / 255, torch.from_numpy(picture).permute(2, 0, 1) / 255, [picture], picture[None],
    ):  # fmt: skip
        assert torch.equal(pixels(kind), wanted), type(kind)
    assert pixels([picture, photo(50, 40)]).shape == (2, 3, 224, 224)
    assert pixels(Image.fromarray(picture).convert("L")).shape == (1, 3, 224, 224)
    assert type(CAVMAEImageProcessor()(picture).pixel_values[0]) is np.ndarray


def test_other_sizes_and_steps():
    picture = photo(60, 80)
    assert pixels(picture, size=48, crop_size=32).shape == (1, 3, 32, 32)
    assert pixels(picture, do_center_crop=False).shape == (1, 3, 224, 298)
    raw = pixels(picture, do_normalize=False)
    assert raw.min() >= 0 and raw.max() <= 1
    torch.testing.assert_close(CAVMAEImageProcessor().normalize_pixels(raw), pixels(picture), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "picture, kwargs, message",
    [
        ("dog.jpg", {}, "open the file"),
        (np.full((8, 8, 3), 255.0), {}, "floats are 0 to 1"),
        (photo(8, 8), {"crop_size": 300}, "larger than the resized"),
        (photo(8, 8), {"size": {"height": 8, "width": 8}}, "shortest_edge"),
        (photo(8, 8), {"resample": 2}, "bicubic"),
        (photo(8, 8), {"do_rescale": False}, "not supported"),
        (photo(8, 8), {"do_resize": False}, "no square of 224"),
    ],
)
def test_what_is_refused(picture, kwargs, message):
    with pytest.raises(ValueError, match=message):
        pixels(picture, **kwargs)


def test_saved_and_loaded(tmp_path):
    ours = CAVMAEImageProcessor(size=48, crop_size=32)
    ours.save_pretrained(tmp_path)
    again = CAVMAEImageProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == ours.to_dict()
    assert np.array_equal(again(photo(60, 80)).pixel_values, ours(photo(60, 80)).pixel_values)
