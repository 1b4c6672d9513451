"""Two vectors of a sound become one.

    weighted   t + s e, of directions; s is one learned number above 0      sum   t + e, as they are (BrewCLIP code)
    gate       g t + (1 - g) e, g from both                                 mlp   t + what a network makes of both

A channel that is not there leaves the other as it is.

Shapes: B sounds, E width of the space.
"""

import math

import torch
from torch import nn

from .configuration_brewclip import BrewCLIPConfig

GATE_BIAS = 2.0  # OURS: it begins with most of the transcript


def softplus_inverse(value: float) -> float:
    return math.log(math.expm1(value))


class BrewCLIPFusion(nn.Module):
    def __init__(self, config: BrewCLIPConfig):
        super().__init__()
        width = config.embed_dim
        self.mode, self.start = config.fusion, float(config.fusion_weight)
        weighted = self.mode == "weighted"
        self.raw_weight = nn.Parameter(torch.tensor([softplus_inverse(self.start)])) if weighted else None
        self.gate = nn.Linear(2 * width, width) if self.mode == "gate" else None
        self.mlp = None
        if self.mode == "mlp":
            self.mlp = nn.Sequential(
                nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(2 * width, width)
            )

    @property
    def weight(self) -> torch.Tensor:
        """(1,), s: how much of the end-to-end channel is added."""
        assert self.raw_weight is not None
        return nn.functional.softplus(self.raw_weight)

    def forward(
        self,
        text_BE: torch.Tensor | None,
        sound_BE: torch.Tensor | None,
        weight: float | None = None,
    ) -> torch.Tensor:
        """(B, E), not normalised.

        Args:
            text_BE, sound_BE (*optional*): of the transcript, and of the other channel.
            weight (`float`, *optional*): of `"weighted"`, in the place of what was learned.
        """
        if text_BE is None or sound_BE is None:
            only_BE = sound_BE if text_BE is None else text_BE
            assert only_BE is not None
            return only_BE
        if weight is not None and self.mode != "weighted":
            raise ValueError(f"a fusion_weight is for fusion='weighted', and this model's is {self.mode!r}")
        if self.mode == "sum":
            return text_BE + sound_BE
        text_BE, sound_BE = (nn.functional.normalize(one, dim=-1) for one in (text_BE, sound_BE))
        if self.mode == "weighted":
            return text_BE + (self.weight.to(sound_BE) if weight is None else weight) * sound_BE
        both_B2E = torch.cat([text_BE, sound_BE], dim=-1)
        if self.gate is not None:
            share_BE = self.gate(both_B2E).sigmoid()
            return share_BE * text_BE + (1 - share_BE) * sound_BE
        assert self.mlp is not None
        return text_BE + self.mlp(both_B2E)


__all__ = ["GATE_BIAS", "BrewCLIPFusion", "softplus_inverse"]
