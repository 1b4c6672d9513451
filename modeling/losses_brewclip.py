"""BrewCLIP's loss on one batch: sound and picture, each channel and the picture, the two channels.

Rows of one picture do not repel each other: they are left out of one another's denominators.

Shapes: B rows, E width.
"""

from collections.abc import Sequence

import torch
from torch import nn


def masked_nce(
    left_BE: torch.Tensor,
    right_BE: torch.Tensor,
    image_ids_B: torch.Tensor | None,
    temperature: float | torch.Tensor,
) -> torch.Tensor:
    """The mean of both directions, in float32 at least whatever autocast says."""
    wide = torch.promote_types(left_BE.dtype, torch.float32)
    with torch.autocast(left_BE.device.type, enabled=False):
        left_BE, right_BE = (nn.functional.normalize(one.to(wide), dim=-1) for one in (left_BE, right_BE))
        logits_BB = left_BE @ right_BE.t() / temperature
        if image_ids_B is not None:
            ids_B = image_ids_B.to(logits_BB.device)
            same_BB = (ids_B[:, None] == ids_B) & ~torch.eye(len(ids_B), dtype=torch.bool, device=ids_B.device)
            logits_BB = logits_BB.masked_fill(same_BB, torch.finfo(logits_BB.dtype).min)
        own_B = torch.arange(len(logits_BB), device=logits_BB.device)
        forth = nn.functional.cross_entropy(logits_BB, own_B)
        return (forth + nn.functional.cross_entropy(logits_BB.t(), own_B)) / 2


def channel_losses(
    sound_BE: torch.Tensor,
    picture_BE: torch.Tensor,
    channels: Sequence[torch.Tensor],
    image_ids_B: torch.Tensor | None,
    temperature: float | torch.Tensor,
    weights: tuple[float, float, float],
) -> dict[str, torch.Tensor]:
    """Named terms, weighted, whose sum is the loss; terms of weight 0 are not computed.

    Args:
        sound_BE, picture_BE: the fused vectors of sounds, and of their pictures.
        channels: each channel's vectors of the sounds, (B, E); the last two terms need two.
        weights: of outer, of channel and picture, of agreement.
    """
    outer, each, agreement = weights

    def nce(left_BE: torch.Tensor, right_BE: torch.Tensor) -> torch.Tensor:
        return masked_nce(left_BE, right_BE, image_ids_B, temperature)

    found = {"outer": outer * nce(sound_BE, picture_BE)}
    if each and len(channels) > 1:
        found["channel"] = each * sum(nce(one, picture_BE) for one in channels) / len(channels)
    if agreement and len(channels) > 1:
        found["agreement"] = agreement * nce(channels[0], channels[1])
    return found


__all__ = ["channel_losses", "masked_nce"]
