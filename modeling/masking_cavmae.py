"""Which tokens CAV-MAE's pre-training hides: those with the largest noise, drawn by token, by time or by frequency.

The kept tokens enter the encoder in the order of their noise, not of their place; `restore` puts them back.

Shapes: B batch, N tokens, K kept tokens.
"""

from typing import NamedTuple

import torch

HIDDEN = 1.1  # above all noise, which is below 1
BOTH_SHARE = 0.7  # CAV-MAE's code: of the ratio, where whole rows and whole columns are hidden


class Mask(NamedTuple):
    """`kept` (B, K): indices in the order of their noise. `restore` (B, N): where each place's token stands in that
    order. `hidden` (B, N): 1 where a token is hidden, float."""

    kept: torch.Tensor
    restore: torch.Tensor
    hidden: torch.Tensor


def draw_noise(batch: int, num_tokens: int, generator: torch.Generator | None, device) -> torch.Tensor:
    """(B, N) from 0 to below 1; drawn where the generator lives, so that a CPU's seeds hold on a GPU."""
    place = device if generator is None else generator.device
    return torch.rand(batch, num_tokens, generator=generator, device=place).to(device)


def structure_noise(
    noise_BN: torch.Tensor,
    mode: str,
    ratio: float,
    grid: tuple[int, int],
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Noise whose largest values fill whole columns ("time"), rows ("freq") or both ("tf") of the grid, per sample.

    int(number * ratio) of them are filled, and as many tokens are kept as ever: the rest is decided by the noise.
    """
    if mode == "unstructured":
        return noise_BN
    share = ratio * BOTH_SHARE if mode == "tf" else ratio
    grid_BRL = noise_BN.view(-1, *grid).clone()
    if mode in ("time", "tf"):
        columns_BL = chosen(len(noise_BN), grid[1], share, generator, noise_BN.device)
        grid_BRL.masked_fill_(columns_BL[:, None, :], HIDDEN)
    if mode in ("freq", "tf"):
        rows_BR = chosen(len(noise_BN), grid[0], share, generator, noise_BN.device)
        grid_BRL.masked_fill_(rows_BR[:, :, None], HIDDEN)
    return grid_BRL.flatten(1)


def chosen(batch: int, number: int, share: float, generator, device) -> torch.Tensor:
    """(B, number), True for int(number * share) of each row, drawn without replacement."""
    ranks = draw_noise(batch, number, generator, device).argsort(dim=1).argsort(dim=1)
    return ranks < int(number * share)


def mask_by_noise(noise_BN: torch.Tensor, ratio: float) -> Mask:
    """Keeps the int(N * (1 - ratio)) tokens of the smallest noise."""
    num_tokens = noise_BN.shape[1]
    keep = int(num_tokens * (1 - ratio))
    if keep < 1:
        raise ValueError(f"a mask of {ratio} leaves none of {num_tokens} tokens: hide less, or take longer sounds")
    order_BN = noise_BN.argsort(dim=1, stable=True)
    restore_BN = order_BN.argsort(dim=1)
    return Mask(order_BN[:, :keep], restore_BN, (restore_BN >= keep).float())


def keep_tokens(tokens_BND: torch.Tensor, mask: Mask) -> torch.Tensor:
    return tokens_BND.take_along_dim(mask.kept[..., None], dim=1)


__all__ = ["Mask", "draw_noise", "keep_tokens", "mask_by_noise", "structure_noise"]
