"""BriVL's 37 regions: a 6 x 6 grid and the whole picture, each the average of 4 x 4 points of the feature map.

Sampling bilinearly at a grid of points and averaging is linear in the map and separable in its axes, so a region is
two small weight vectors, one down and one across; a batch of regions is one product, and no point is ever sampled.
The original's quirk is kept: points are placed as if the corners were aligned and sampled as if they were not, which
shifts them right and down, partly off the map (where it is zero). The published weights were trained with it.

Shapes: B batch, N regions, C channels, H x W the map, G points a side.
"""

import torch


def grid_boxes(image_size: int, patch_grid_size: int, device=None) -> torch.Tensor:
    """The boxes (x1, y1, x2, y2) of all cells, columns first, and of the whole picture: (N, 4), float64, in pixels."""
    device = "cpu" if torch.device(device or "cpu").type == "mps" else device  # Apple's GPUs know no float64
    side = image_size / patch_grid_size
    corner = torch.arange(patch_grid_size, dtype=torch.float64, device=device) * side
    x_N, y_N = corner.repeat_interleave(patch_grid_size), corner.repeat(patch_grid_size)
    cells = torch.stack([x_N, y_N, x_N + side, y_N + side], dim=-1)
    whole = torch.tensor([[0.0, 0.0, image_size, image_size]], dtype=torch.float64, device=device)
    return torch.cat([cells, whole])


def check_boxes(boxes: torch.Tensor, batch: int) -> None:
    """Boxes for all pictures, or for each one, and every number finite."""
    if boxes.dim() not in (2, 3) or boxes.shape[-1] != 4 or (boxes.dim() == 3 and boxes.shape[0] != batch):
        raise ValueError(
            f"boxes must be (boxes, 4) for all pictures or ({batch}, boxes, 4), got {tuple(boxes.shape)}: "
            "x1, y1, x2, y2 in pixels of the resized picture"
        )
    if not torch.compiler.is_compiling() and not boxes.isfinite().all():
        raise ValueError("boxes hold NaN or infinity. Fill unused rows with zeros and give them 0 in box_mask")


def axis_weights(low: torch.Tensor, high: torch.Tensor, size: int, points: int) -> torch.Tensor:
    """How much each of `size` rows (or columns) of the map counts in a region from `low` to `high`: (..., size).

    `low` and `high` are in units of the map. The average over the points of the bilinear weights, zero off the map.
    """
    base_G = (2 * torch.arange(points, device=low.device, dtype=low.dtype) + 1) / points - 1
    scale, centre = (high - low) / (size - 1), (low + high - size + 1) / (size - 1)
    normalised = (scale[..., None] * base_G + centre[..., None]).float()  # placed with aligned corners ...
    position = ((normalised + 1) * size - 1) / 2  # ... and read without
    index = torch.arange(size, device=low.device, dtype=torch.float32)
    return (1 - (position[..., None] - index).abs()).clamp(min=0).mean(-2)


def region_features(map_BCHW: torch.Tensor, boxes_BN4: torch.Tensor, image_size: int, points: int) -> torch.Tensor:
    """The regions' averages, (B, N, C) in float32. Boxes are (N, 4) for all pictures, or (B, N, 4)."""
    height, width = map_BCHW.shape[2:]
    if not boxes_BN4.is_floating_point() or boxes_BN4.element_size() < 4:  # a position keeps float32's precision
        boxes_BN4 = boxes_BN4.float()
    x1, y1, x2, y2 = (boxes_BN4 / (image_size / height)).unbind(-1)  # the map's height sets the unit of both axes
    across = axis_weights(x1, x2, width, points)
    down = axis_weights(y1, y2, height, points)
    weights_BNS = (down[..., :, None] * across[..., None, :]).flatten(-2).to(map_BCHW.device)
    with torch.autocast(map_BCHW.device.type, enabled=False):
        # this way round the map's gradient is contiguous: of the other layout torch's batch normalisation makes wrong
        # gradients on a CPU, for a single picture
        return (map_BCHW.float().flatten(2) @ weights_BNS.mT).mT
