"""The augmentation of pictures against colour facts from elsewhere (Pillow, colorsys), and its draws."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from unibrivl.modeling import BriVLImageProcessor
from unibrivl.training.augment import (
    PictureAugmentation,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    grey,
)


def pictures(number=3, side=24, seed=0):
    return torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


ALWAYS = PictureAugmentation(jitter_prob=1.0, grey_prob=0.0)


# ---- each change against another implementation ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "ours, pillow",
    [
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
        (adjust_saturation, ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.6, 1.0, 1.37])
def test_pillow_does_the_same(ours, pillow, factor):
    """Within what Pillow loses by rounding to bytes; its grey weights are the same to three digits."""
    picture = (pictures(1) * 255).round().to(torch.uint8)
    image = Image.fromarray(picture[0].permute(1, 2, 0).numpy())
    theirs = np.array(pillow(image).enhance(factor)).transpose(2, 0, 1)
    found = ours(picture / 255, torch.tensor([factor]))[0] * 255
    assert np.abs(found.numpy() - theirs).max() < 2


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.03, 0.1, 0.5])
def test_hue_turns_as_colorsys_says(turn):
    picture = pictures(1, side=12)
    picture[0, :, 0, 0] = 0.5  # grey has no hue
    picture[0, :, 0, 1] = torch.tensor([1.0, 0.0, 0.0])
    picture[0, :, 0, 2] = torch.tensor([0.0, 1.0, 1.0])
    picture[0, :, 0, 3] = 0.0
    ours = adjust_hue(picture, torch.tensor([turn]))[0].flatten(1).T
    for pixel, found in zip(picture[0].flatten(1).T.tolist(), ours.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        assert found == pytest.approx(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), abs=2e-6)


def test_named_colours_turn_into_their_neighbours():
    """A third of the circle: red, green, blue, red."""
    red, green, blue = torch.eye(3)[:, :, None, None].unbind(0)
    circle = torch.stack([red, green, blue])
    third = torch.full((3,), 1 / 3)
    torch.testing.assert_close(adjust_hue(circle, third), torch.stack([green, blue, red]), atol=1e-6, rtol=0)
    torch.testing.assert_close(adjust_hue(circle, -third), torch.stack([blue, red, green]), atol=1e-6, rtol=0)


def test_factors_of_one_change_nothing():
    batch, ones = pictures(), torch.ones(3)
    for change in (adjust_brightness, adjust_contrast, adjust_saturation):
        torch.testing.assert_close(change(batch, ones), batch, atol=1e-6, rtol=0)
    torch.testing.assert_close(adjust_hue(batch, 0 * ones), batch, atol=1e-6, rtol=0)


def test_factors_of_zero():
    """Black; an even grey of the mean; grey pixel by pixel."""
    batch, zeros = pictures(), torch.zeros(3)
    luma = 0.2989 * batch[:, 0] + 0.587 * batch[:, 1] + 0.114 * batch[:, 2]
    assert not adjust_brightness(batch, zeros).any()
    for row, flat in enumerate(adjust_contrast(batch, zeros)):
        torch.testing.assert_close(flat, luma[row].mean().expand_as(flat), atol=1e-6, rtol=0)
    torch.testing.assert_close(adjust_saturation(batch, zeros), luma[:, None].expand_as(batch), atol=1e-6, rtol=0)
    torch.testing.assert_close(grey(batch)[:, 0], luma, atol=1e-6, rtol=0)


# ---- draws ----------------------------------------------------------------------------------------------------------


def test_a_seed_decides_everything():
    first, again = (PictureAugmentation()(pictures(16), generator(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, PictureAugmentation()(pictures(16), generator(4)))


def test_a_picture_does_not_depend_on_those_behind_it():
    batch = pictures(20)
    together = PictureAugmentation()(batch, generator(5))
    assert torch.equal(together[:7], PictureAugmentation()(batch[:7], generator(5)))


def test_rows_draw_their_own():
    """Equal pictures come out different, in brightness and in hue."""
    out = ALWAYS(pictures(1).expand(8, -1, -1, -1), generator())
    assert len({round(float(row.mean()), 5) for row in out}) == 8


def test_the_result_is_one_of_the_orders():
    """A row that is jittered equals the four changes with its own draws, applied one after the other."""
    batch = pictures(6)
    out = ALWAYS(batch, generator(7))
    draws = torch.rand(6, 10, generator=generator(7))
    changes = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    orders = set()
    for row in range(6):
        values = [0.6 + 0.8 * draws[row, 6 + number] for number in range(3)] + [0.2 * draws[row, 9] - 0.1]
        order = draws[row, 2:6].argsort().tolist()
        orders.add(tuple(order))
        picture = batch[row : row + 1]
        for number in order:
            picture = changes[number](picture, values[number][None])
        torch.testing.assert_close(out[row : row + 1], picture, atol=1e-6, rtol=0)
    assert len(orders) > 1


def test_how_often():
    """Of 2000 pictures about 80 % are jittered and 20 % grey, one independent of the other."""
    batch = pictures(1, side=2).expand(2000, -1, -1, -1)
    out = PictureAugmentation()(batch, generator())
    is_grey = (out.amax(1) - out.amin(1)).amax((1, 2)) < 1e-6
    untouched = (out == batch).all(1).all(1).all(1)
    assert abs(is_grey.float().mean() - 0.2) < 0.03
    assert abs(untouched.float().mean() - 0.2 * 0.8) < 0.03


def test_never_and_always():
    batch = pictures()
    assert torch.equal(PictureAugmentation(jitter_prob=0.0, grey_prob=0.0)(batch, generator()), batch)
    out = PictureAugmentation(jitter_prob=0.0, grey_prob=1.0)(batch, generator())
    assert torch.equal(out, grey(batch).expand_as(batch))
    still = PictureAugmentation(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, jitter_prob=1.0, grey_prob=0.0)
    torch.testing.assert_close(still(batch, generator()), batch, atol=1e-5, rtol=0)


def test_pictures_stay_pictures_and_the_input_stays():
    batch = pictures(64)
    before = batch.clone()
    out = ALWAYS(batch, generator())
    assert out.min() >= 0 and out.max() <= 1 and out.isfinite().all()
    assert torch.equal(batch, before) and out.shape == batch.shape and out.dtype == batch.dtype
    assert ALWAYS(batch.half(), generator()).dtype == torch.float16


def test_between_the_processors_resize_and_its_normalisation():
    processor = BriVLImageProcessor(size=32)
    photo = (pictures(2, side=40) * 255).to(torch.uint8)
    raw = processor(photo, do_normalize=False, return_tensors="pt").pixel_values
    still = processor.normalize_pixels(PictureAugmentation(jitter_prob=0.0, grey_prob=0.0)(raw, generator()))
    torch.testing.assert_close(still, processor(photo, return_tensors="pt").pixel_values, atol=1e-6, rtol=0)
    moved = processor.normalize_pixels(ALWAYS(raw, generator()))
    assert (moved - still).abs().max() > 0.1


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batch, message",
    [
        (pictures() * 4 - 2, "before normalising"),
        (pictures() * 255, "before normalising"),
        (torch.full((1, 3, 2, 2), float("nan")), "0..1"),
        ((pictures() * 255).to(torch.uint8), "float pictures"),
        (pictures()[0], "float pictures"),
        (pictures()[:, :1], "float pictures"),
        (pictures()[:0], "empty"),
    ],
)
def test_pictures_that_are_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        PictureAugmentation()(batch, generator())


@pytest.mark.parametrize("settings", [{"hue": 0.6}, {"brightness": -0.1}, {"jitter_prob": 80}, {"grey_prob": -1}])
def test_settings_that_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PictureAugmentation(**settings)
