"""What CAV-MAE's encoder and decoder are made of: patches with positions, and pre-norm layers with norms by stream.

Every layer of the original owns three pairs of norms. A modality's own layers and the decoder's use the plain pair
alone, and only the joint layers all three: plain for the joint stream, the others for a single modality.

Shapes: B batch, N tokens, D width, C channels, H and W sides of a picture, in patches R rows and L columns.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_brivl import BriVLAttention

PLAIN, AUDIO, IMAGE = "plain", "audio", "image"
STREAMS = (PLAIN, AUDIO, IMAGE)


class CAVMAELayer(GradientCheckpointingLayer):
    """x + attention(norm(x)), then x + mlp(norm(x)); the norms are those of the stream."""

    def __init__(self, config, width: int, num_heads: int, intermediate_size: int, streams: Sequence[str] = (PLAIN,)):
        super().__init__()
        streams = STREAMS if config.keep_unused_norms else streams
        norm = {"normalized_shape": width, "eps": config.layer_norm_eps}
        self.attention_norm = nn.ModuleDict({stream: nn.LayerNorm(**norm) for stream in streams})
        self.attention = BriVLAttention(config, width, num_heads, dropout=0.0)
        self.mlp_norm = nn.ModuleDict({stream: nn.LayerNorm(**norm) for stream in streams})
        self.fc1 = nn.Linear(width, intermediate_size)
        self.fc2 = nn.Linear(intermediate_size, width)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, tokens_BND, stream: str = PLAIN, **kwargs):
        attended_BND, weights = self.attention(self.attention_norm[stream](tokens_BND), None, **kwargs)
        tokens_BND = tokens_BND + attended_BND
        hidden = self.activation(self.fc1(self.mlp_norm[stream](tokens_BND)))
        return tokens_BND + self.fc2(hidden), weights


class Trace:
    """The hidden states and attention weights of one stream, where they are wanted."""

    def __init__(self, states: bool, weights: bool):
        self._states: list | None = [] if states else None
        self._weights: list | None = [] if weights else None

    def add(self, tokens_BND, weights=None, is_first: bool = False) -> None:
        if self._states is not None:
            self._states.append(tokens_BND)
        if self._weights is not None and not is_first:
            self._weights.append(weights)

    @property
    def states(self) -> tuple | None:
        return None if self._states is None else tuple(self._states)

    @property
    def weights(self) -> tuple | None:
        return None if self._weights is None else tuple(self._weights)


def run_layers(layers, tokens_BND, stream: str = PLAIN, trace: Trace | None = None, **kwargs):
    for layer in layers:
        tokens_BND, weights = layer(tokens_BND, stream, **kwargs)
        if trace is not None:
            trace.add(tokens_BND, weights)
    return tokens_BND


class CAVMAEPositions(nn.Module):
    """One vector for every patch of a grid, sines and cosines at first, row by row.

    A sound that is shorter than the grid takes its first columns, which is what its authors advise; anything else that
    differs from the grid is interpolated, if that is asked for: a sound along time only.

    Where `learns` is False the weight is out of training. Loading makes every weight trainable again and ends in
    `eval()`, wherever in a bigger model this stands: so it is `train` and `eval` that see to it.
    """

    def __init__(self, grid: tuple[int, int], width: int, is_audio: bool):
        super().__init__()
        self.grid, self.is_audio = grid, is_audio
        self.weight = nn.Parameter(torch.empty(1, grid[0] * grid[1], width))
        self.learns = True

    def train(self, mode: bool = True):
        if not self.learns:
            self.weight.requires_grad_(False)
        return super().train(mode)

    def forward(self, rows: int, columns: int, interpolate: bool = False):
        (known_rows, known_columns), width = self.grid, self.weight.shape[-1]
        if (rows, columns) == self.grid:
            return self.weight
        if self.is_audio and rows == known_rows and columns < known_columns:
            return self.weight.view(1, rows, known_columns, width)[:, :, :columns].flatten(1, 2)
        if not interpolate or (self.is_audio and rows != known_rows):
            raise ValueError(
                f"this model knows positions for {known_rows} x {known_columns} patches and got {rows} x {columns}: "
                + (
                    "cut the sound into windows (unibrivl.split_windows), or pass interpolate_pos_encoding=True"
                    if self.is_audio
                    else "resize the picture (CAVMAEImageProcessor), or pass interpolate_pos_encoding=True"
                )
            )
        grid_1DRL = self.weight.view(1, known_rows, known_columns, width).permute(0, 3, 1, 2).float()
        mode = "bilinear" if self.is_audio else "bicubic"  # with as many rows bilinear is linear along time
        grid_1DRL = nn.functional.interpolate(grid_1DRL, size=(rows, columns), mode=mode, align_corners=False)
        return grid_1DRL.flatten(2).transpose(1, 2).to(self.weight.dtype)


class CAVMAEEmbeddings(nn.Module):
    """A picture, or a sound with frequency down and time across -> tokens with position and modality."""

    def __init__(self, grid: tuple[int, int], channels: int, patch_size: int, width: int, is_audio: bool):
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv2d(channels, width, patch_size, patch_size)
        self.positions = CAVMAEPositions(grid, width, is_audio)
        self.modality = nn.Parameter(torch.empty(1, 1, width))

    def forward(self, picture_BCHW, interpolate: bool = False):
        map_BDRL = self.projection(picture_BCHW.to(self.projection.weight.dtype))
        positions_1ND = self.positions(*map_BDRL.shape[2:], interpolate)
        return map_BDRL.flatten(2).transpose(1, 2) + positions_1ND + self.modality


def sincos_positions(grid: tuple[int, int], width: int) -> torch.Tensor:
    """(1, N, D): the first half of D tells the column, the second the row; of each half, sines and then cosines."""
    rates = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    rows = torch.arange(grid[0], dtype=torch.float64).repeat_interleave(grid[1])
    columns = torch.arange(grid[1], dtype=torch.float64).repeat(grid[0])
    angles = [place[:, None] * rates for place in (columns, rows)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)[None].float()


__all__ = [
    "AUDIO", "IMAGE", "PLAIN", "STREAMS", "CAVMAEEmbeddings", "CAVMAELayer", "CAVMAEPositions", "Trace", "run_layers",
    "sincos_positions",
]  # fmt: skip
