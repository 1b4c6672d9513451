"""BriVL's image tower written out step by step, as its papers and the original's code have it, on our weights.

The other side of bench_brivl.py, and the second way of knowing in the tests: transformers' own EfficientNet modules,
every region sampled at its 4 x 4 points, the 1x1 convolution on every point, then the average.

Shapes: B batch, C channels, H x W the map, N regions, G points a side.
"""

from __future__ import annotations

import torch
from torch import nn

from unibrivl.modeling import BriVLVisionModel
from unibrivl.modeling.regions_brivl import grid_boxes


def literal_map(model: BriVLVisionModel, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """The CNN as transformers wrote it: convolution, normalisation and activation one after the other."""
    backbone = model.backbone
    return backbone.encoder(backbone.embeddings(pixels_BCHW), return_dict=True).last_hidden_state


def sampled_points(map_CHW: torch.Tensor, boxes_N4: torch.Tensor, image_size: int, points: int) -> torch.Tensor:
    """The points of all regions of one picture, (N, C, G, G), by an affine grid and bilinear sampling."""
    height, width = map_CHW.shape[1:]
    x1, y1, x2, y2 = (boxes_N4 / (image_size / height)).unbind(-1)
    zero = torch.zeros_like(x1)
    across = torch.stack([(x2 - x1) / (width - 1), zero, (x1 + x2 - width + 1) / (width - 1)], dim=-1)
    down = torch.stack([zero, (y2 - y1) / (height - 1), (y1 + y2 - height + 1) / (height - 1)], dim=-1)
    theta_N23 = torch.stack([across, down], dim=1)
    shape = (len(boxes_N4), map_CHW.shape[0], points, points)
    grid = nn.functional.affine_grid(theta_N23, list(shape), align_corners=False).float()
    return nn.functional.grid_sample(map_CHW.expand(shape[0], -1, -1, -1), grid, align_corners=False)


def literal_regions(model: BriVLVisionModel, map_BCHW, boxes_BN4, image_size: int) -> torch.Tensor:
    """The regions (B, N, C), picture by picture: sample, convolve every point, average."""
    projection = model.region_projection
    regions = []
    for map_CHW, boxes_N4 in zip(map_BCHW, boxes_BN4, strict=True):
        points = sampled_points(map_CHW, boxes_N4, image_size, model.config.roi_grid_size)
        convolved = nn.functional.conv2d(points, projection.weight[:, :, None, None], projection.bias)
        regions.append(nn.functional.adaptive_avg_pool2d(convolved, 1).flatten(1))
    return torch.stack(regions)


def literal_embedding(model: BriVLVisionModel, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """The embedding before it is normalised: CNN and attention on the batch, regions picture by picture."""
    size = pixels_BCHW.shape[-1]
    boxes_BN4 = grid_boxes(size, model.config.patch_grid_size).expand(len(pixels_BCHW), -1, -1)
    regions_BNC = literal_regions(model, literal_map(model, pixels_BCHW), boxes_BN4, size)
    return model.projection(model.attention_pool(regions_BNC)[1])


def literal_embedding_each(model: BriVLVisionModel, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """The same, one picture at a time from beginning to end."""
    return torch.cat([literal_embedding(model, picture) for picture in pixels_BCHW.split(1)])
