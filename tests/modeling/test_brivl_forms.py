"""BriVL's image tower computes its regions and its CNN otherwise than it is written down: both ways agree."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_brivl import build, close, literal, pictures

from unibrivl.modeling import BriVLVisionModel
from unibrivl.modeling import backbone_brivl as backbone
from unibrivl.modeling.regions_brivl import grid_boxes, region_features

# ---- regions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [2, 3, 12, 15])
@pytest.mark.parametrize("points", [1, 4])
def test_regions_equal_sampling_every_point(dtype, side, points):
    """Weights for rows and columns against an affine grid, bilinear samples, a 1x1 convolution and a mean."""
    model = build(BriVLVisionModel, roi_grid_size=points)
    generator = torch.Generator().manual_seed(side)
    map_BCHW = torch.randn(2, 128, side, side, generator=generator)
    corners = (torch.rand(2, 30, 2, 2, generator=generator) * 1.4 - 0.2) * 32 * side
    boxes = torch.cat([corners.flatten(2), grid_boxes(32 * side, 6).expand(2, -1, -1)], dim=1).to(dtype)
    with torch.no_grad():
        ours = model.region_projection(region_features(map_BCHW, boxes, 32 * side, points))
        close(ours, literal.literal_regions(model, map_BCHW, boxes, 32 * side), 2e-5)


def test_positions_of_regions_are_never_rounded_to_bfloat16():
    """A bfloat16 map is read at float32 positions, which the model's own dtype must not change."""
    map_BCHW = torch.randn(1, 128, 12, 12, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    boxes = grid_boxes(380, 6)
    exact = region_features(map_BCHW.float(), boxes, 380, 4)
    assert torch.equal(region_features(map_BCHW, boxes, 380, 4), exact) and exact.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(region_features(map_BCHW, boxes, 380, 4), exact)
    assert (region_features(map_BCHW, boxes.to(torch.bfloat16), 380, 4) - exact).abs().max() > 1e-3


def test_the_tower_equals_its_literal_form():
    model = build(BriVLVisionModel)
    with torch.no_grad():
        for form in (literal.literal_embedding, literal.literal_embedding_each):
            close(model(pictures(5, 131)).projection, form(model, pictures(5, 131)), 1e-4)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_equal_the_literal_forms(number, training):
    """Down to the CNN's first layer; of one picture too, where torch's normalisation minds its gradient's layout."""
    grads = []
    for form in (lambda model, pixels: model(pixels).projection, literal.literal_embedding):
        model = build(BriVLVisionModel)
        model.backbone.train(training)
        form(model, pictures(number)).square().mean().backward()
        grads.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, grad in grads[1].items():
        close(grads[0][name], grad, 2e-4 * float(grad.abs().max()) + 1e-7)


# ---- the CNN's second form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece_bytes", [1, 60_000, 10**9])
@pytest.mark.parametrize("side", [64, 97])
def test_the_folded_cnn_equals_transformers(piece_bytes, side, monkeypatch):
    """Folded, channels last and in pieces of one, some or all pictures, against the modules one after the other."""
    monkeypatch.setattr(backbone, "PIECE_BYTES", piece_bytes)
    model = build(BriVLVisionModel)
    pixels = pictures(5, side)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        assert backbone.can_fold(model.backbone, pixels)
        ours, other = model.backbone(pixels), literal.literal_map(model, pixels)
    close(ours, other, 2e-5 * float(other.abs().max()))
    assert torch.equal(pixels, pictures(5, side)), "the pictures were written on"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def add_hook(model):
    model.encoder.blocks[1].expansion.expand_conv.register_forward_hook(lambda module, inputs, output: 2 * output)


def wrap(model):
    layer = model.encoder.blocks[1].expansion
    layer.expand_conv = torch.nn.Sequential(layer.expand_conv)


def parametrize(model):
    torch.nn.utils.parametrizations.weight_norm(model.encoder.top_conv)


def train_one_norm(model):
    model.encoder.blocks[0].depthwise_conv.depthwise_norm.train()


def replace_forward(model):
    model.encoder.top_conv.forward = lambda states: torch.nn.functional.conv2d(
        states, 2 * model.encoder.top_conv.weight
    )


@pytest.mark.parametrize("change", [add_hook, wrap, parametrize, train_one_norm, replace_forward])
def test_a_cnn_that_somebody_changed_runs_as_changed(change):
    """Adapters, hooks, offloading: the second form would pass them by, so it steps aside."""
    model = build(BriVLVisionModel)
    change(model.backbone)
    with torch.no_grad():
        assert not backbone.can_fold(model.backbone, pictures())
        ours = copy.deepcopy(model).backbone(pictures())
        assert torch.equal(ours, literal.literal_map(model, pictures()))


def test_the_folded_cnn_is_for_float32_without_gradients():
    model, pixels = build(BriVLVisionModel), pictures()
    assert not backbone.can_fold(model.backbone, pixels)
    with torch.no_grad():
        assert not backbone.can_fold(model.backbone, pixels.double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not backbone.can_fold(model.backbone, pixels)
    for parameter in model.parameters():
        parameter.requires_grad = False
    assert backbone.can_fold(model.backbone, pixels)  # a frozen tower
    assert not backbone.can_fold(model.backbone, pixels.requires_grad_())
