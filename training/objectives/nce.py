"""Contrastive losses as pure functions: one loss for each row, from embeddings of length one.

Every row picks its own key among others, by a softmax over cosines divided by a temperature. `nce` picks among given
negatives (MoCo), `info_nce` among the keys of the batch, `moco_loss` is BriVL's sum of both directions over two
queues.

Shapes: B rows, G keys of the whole batch, K negatives, E width; `hidden` marks columns that a row must not see.
"""

from __future__ import annotations

import torch
from torch import nn

TEMPERATURE = 0.07  # UniBriVL paper 3.4: BriVL's tau, fixed


def unit(embeds_BE: torch.Tensor) -> torch.Tensor:
    """Of length one, in float32 at least: autocast and half-precision caches round lengths too."""
    return nn.functional.normalize(embeds_BE.to(torch.promote_types(embeds_BE.dtype, torch.float32)), dim=-1)


def scores(
    left_BE: torch.Tensor,
    right_KE: torch.Tensor,
    temperature: float | torch.Tensor,
    hidden_BK: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B, K), cosines over the temperature; where hidden, a number that no softmax sees. No autocast narrows them."""
    with torch.autocast(left_BE.device.type, enabled=False):
        scores_BK = left_BE @ right_KE.to(left_BE).t() / temperature
    # not -inf: its difference from itself would be NaN
    return scores_BK if hidden_BK is None else scores_BK.masked_fill(hidden_BK, torch.finfo(scores_BK.dtype).min)


def nce(
    queries_BE: torch.Tensor,
    keys_BE: torch.Tensor,
    negatives_KE: torch.Tensor,
    temperature: float = TEMPERATURE,
    hidden_BK: torch.Tensor | None = None,
    positives_BK: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B,), - log of the share that a row's own key has among itself and the negatives; 0 without negatives.

    Args:
        positives_BK (`torch.BoolTensor`, *optional*): negatives that are none. The losses of all of a row's positives
            are added, each against all columns, as BriVL does.
    """
    own_B1 = (queries_BE * keys_BE.to(queries_BE)).sum(-1, keepdim=True) / temperature
    log_shares = torch.cat([own_B1, scores(queries_BE, negatives_KE, temperature, hidden_BK)], 1).log_softmax(1)
    losses_B = -log_shares[:, 0]
    if positives_BK is not None:
        others_BK = positives_BK if hidden_BK is None else positives_BK & ~hidden_BK
        losses_B = losses_B - log_shares[:, 1:].masked_fill(~others_BK, 0).sum(1)
    return losses_B


def moco_loss(
    x_BE: torch.Tensor,
    y_BE: torch.Tensor,
    keys_x_BE: torch.Tensor,
    keys_y_BE: torch.Tensor,
    queue_x_KE: torch.Tensor,
    queue_y_KE: torch.Tensor,
    temperature: float = TEMPERATURE,
) -> torch.Tensor:
    """Both directions over two queues, as BriVL adds them: each side's queries meet the other side's momentum keys."""
    x_to_y = nce(x_BE, keys_y_BE, queue_y_KE, temperature)
    return x_to_y.mean() + nce(y_BE, keys_x_BE, queue_x_KE, temperature).mean()


def both_in_top(
    keys_x_BE: torch.Tensor, keys_y_BE: torch.Tensor, queue_x_KE: torch.Tensor, queue_y_KE: torch.Tensor, num_top: int
) -> torch.Tensor:
    """(B, K), BriVL's multi-label rule: samples of the queue that are among the `num_top` nearest to a row on both
    sides."""
    near_BK = torch.ones(len(keys_x_BE), len(queue_x_KE), dtype=torch.bool, device=keys_x_BE.device)
    for keys_BE, queue_KE in ((keys_x_BE, queue_x_KE), (keys_y_BE, queue_y_KE)):
        nearest_BT = scores(keys_BE, queue_KE, 1).topk(min(num_top, len(queue_KE)), dim=1).indices
        near_BK = near_BK & torch.zeros_like(near_BK).scatter(1, nearest_BT, True)
    return near_BK


def info_nce(
    queries_BE: torch.Tensor,
    keys_GE: torch.Tensor,
    positives_BG: torch.Tensor,
    temperature: float | torch.Tensor = TEMPERATURE,
    hidden_BG: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B,), cross-entropy of the shares of all keys against targets that are even over the positives of a row."""
    log_shares = scores(queries_BE, keys_GE, temperature, hidden_BG).log_softmax(1)
    return -log_shares.masked_fill(~positives_BG, 0).sum(1) / positives_BG.sum(1)
