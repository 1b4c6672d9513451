"""BrewCLIP's objective: sounds meet their pictures, fused and channel by channel, and the channels meet each other.

Shapes: B rows of this process, E width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from unibrivl.modeling.configuration_brewclip import LOSS_WEIGHTS
from unibrivl.training.objectives.base import Objective, embedding, run
from unibrivl.training.objectives.distillation import contrast
from unibrivl.training.objectives.rows import Rows


class BrewCLIPLoss(Objective):
    """w_o NCE(a, v) + w_c (NCE(t, v) + NCE(e, v)) / 2 + w_g NCE(t, e), each the mean of both directions.

    Captions of one picture share batches: they are left out of one another's denominators. Over several processes the
    batch is that of all.

    Args:
        model: a `BrewCLIPModel`.
        weights: (w_o, w_c, w_g), or the name of some: `"paper"`, `"released"`, `"outer"`, `"robust"`; the model's own
            by default. Terms of weight 0 are not computed, nor those of two channels where there is one.

    Inputs: what the model needs for the channels it has, `pixel_values` or `image_embeds`, and `sample_id`, (B,)
        int64, the number of a row's picture.
    Terms: `outer`, `channel`, `agreement`.
    """

    def __init__(self, model: nn.Module, weights: str | tuple[float, float, float] | None = None):
        super().__init__(model)
        named = getattr(self.config, "loss_weights", "paper") if weights is None else weights
        if isinstance(named, str) and named not in LOSS_WEIGHTS:
            raise ValueError(f"weights are three numbers or one of {', '.join(LOSS_WEIGHTS)}; got {named!r}")
        self.weights = LOSS_WEIGHTS[named] if isinstance(named, str) else tuple(named)
        if len(self.weights) != 3 or min(self.weights) < 0 or not max(self.weights):
            raise ValueError(f"weights are three numbers from 0 on, not all of them 0; got {self.weights}")

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        output = run(model, batch)
        outer, each, agreement = self.weights
        sounds_BE, pictures_BE = embedding(output, "audio_embeds"), embedding(output, "image_embeds")
        names = ("text_channel_embeds", "e2e_channel_embeds")
        channels = [embedding(output, name) for name in names if getattr(output, name, None) is not None]
        rows = Rows(sounds_BE, batch.get("sample_id"))
        temperature = output.temperature
        found = {"outer": outer * contrast(sounds_BE, pictures_BE, rows, temperature)}
        if len(channels) == 2 and each:
            met = [contrast(one_BE, pictures_BE, rows, temperature) for one_BE in channels]
            found["channel"] = each * (met[0] + met[1]) / 2
        if len(channels) == 2 and agreement:
            found["agreement"] = agreement * contrast(channels[0], channels[1], rows, temperature)
        return found
