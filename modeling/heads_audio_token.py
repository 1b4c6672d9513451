"""The three ways from a sound's features to pseudo-words: a residual of the features, a graph's attention, queries.

Each head serves one text encoder: (B, T, A) features and which of them are real -> (B, K, D) words.

Shapes: B batch, T tokens of a sound, A their width, K words, D width of a token table, H hidden.
"""

from typing import NamedTuple

import torch
from torch import nn


class Heard(NamedTuple):
    """
    Args:
        words: (B, K, D).
        weights: (B, K, T), how much each token of the sound counted; None where all count alike.
        hidden: (B, T, D), what was averaged by these weights.
        unary, pairwise: (B, K, T), what the weights come from.
    """

    words: torch.Tensor
    weights: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    unary: torch.Tensor | None = None
    pairwise: torch.Tensor | None = None


class ZeroLinear(nn.Linear):
    """A layer that says nothing until it has learned to."""


class TurnedLinear(nn.Linear):
    """A layer without bias that begins as a rotation, or a part of one: lengths and angles stay as they can."""


def masked_mean(features_BTA: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
    """(B, A), over the real tokens."""
    if mask_BT is None:
        return features_BTA.mean(1)
    real_BT1 = mask_BT.to(features_BTA.dtype)[..., None]
    return (features_BTA * real_BT1).sum(1) / real_BT1.sum(1).clamp(min=1)


class ResidualHead(nn.Module):
    """AAI: the features at the length of a row of the table, an offset of each word, and a correction.

    Offsets and correction begin at nothing. Where the features have another width than the table they are turned into
    it first.
    """

    def __init__(self, config, width: int, norm: float):
        super().__init__()
        self.num_words, self.width, self.norm = config.num_words, width, norm
        self.to_width = None
        if config.audio_width != width:
            self.to_width = TurnedLinear(config.audio_width, width, bias=False)
        self.offsets = nn.Parameter(torch.zeros(config.num_words, width))  # s_k
        self.layer_norm = nn.LayerNorm(config.audio_width, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.audio_width, config.hidden_size)
        self.fc2 = ZeroLinear(config.hidden_size, config.num_words * width)

    def forward(self, features_BTA: torch.Tensor, mask_BT: torch.Tensor | None = None) -> Heard:
        pooled_BA = masked_mean(features_BTA, mask_BT)
        turned_BD = pooled_BA if self.to_width is None else self.to_width(pooled_BA)
        base_BD = self.norm * nn.functional.normalize(turned_BD, dim=-1)
        change = self.fc2(nn.functional.gelu(self.fc1(self.layer_norm(pooled_BA))))
        return Heard(base_BD[:, None] + self.offsets + change.unflatten(-1, (self.num_words, self.width)))


class FactorGraph(nn.Module):
    """Attention over the tokens of a sound from what each says by itself and how it goes with all the others."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.embed = nn.Linear(width, width)
        self.reduce = nn.Linear(width, 1)
        self.left = nn.Linear(width, width)
        self.right = nn.Linear(width, width)
        self.mix = nn.Linear(2, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor | None):
        """(B, D), and (B, T) each: weights, unary, pairwise."""
        unary_BT = self.reduce(self.dropout(torch.relu(self.embed(hidden_BTD))))[..., 0]
        left_BTD = nn.functional.normalize(self.left(hidden_BTD), dim=-1)
        right_BTD = nn.functional.normalize(self.right(hidden_BTD), dim=-1)
        # the mean of all cosines of a token is its cosine with the mean: T products instead of T squared
        pairwise_BT = (left_BTD @ masked_mean(right_BTD, mask_BT)[..., None])[..., 0]
        scores_BT = self.mix(torch.stack([unary_BT, pairwise_BT], dim=-1))[..., 0]
        if mask_BT is not None:
            scores_BT = scores_BT.masked_fill(mask_BT == 0, torch.finfo(scores_BT.dtype).min)
        weights_BT = scores_BT.softmax(-1)
        return (weights_BT[:, None] @ hidden_BTD)[:, 0], weights_BT, unary_BT, pairwise_BT


class AttentiveHead(nn.Module):
    """AudioToken's embedder. With more than one word each has a graph of its own over the same tokens."""

    def __init__(self, config, width: int, norm: float):
        super().__init__()
        self.fc1 = nn.Linear(config.audio_width, config.audio_width)
        self.fc2 = nn.Linear(config.audio_width, width)
        self.graphs = nn.ModuleList(FactorGraph(width, config.attention_dropout) for _ in range(config.num_words))

    def forward(self, features_BTA: torch.Tensor, mask_BT: torch.Tensor | None = None) -> Heard:
        hidden_BTD = self.fc2(nn.functional.gelu(self.fc1(features_BTA)))
        words, weights, unary, pairwise = zip(*(graph(hidden_BTD, mask_BT) for graph in self.graphs), strict=True)
        return Heard(
            torch.stack(words, 1), torch.stack(weights, 1), hidden_BTD, torch.stack(unary, 1), torch.stack(pairwise, 1)
        )


class ResamplerLayer(nn.Module):
    """Queries look at the tokens and at one another, and think about what they saw."""

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_resampler_heads
        self.token_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.query_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, queries_BKH: torch.Tensor, tokens_BTH: torch.Tensor, mask_BT: torch.Tensor | None):
        asked_BKH = self.query_norm(queries_BKH)
        seen_BSH = torch.cat([self.token_norm(tokens_BTH), asked_BKH], dim=1)
        allowed = None
        if mask_BT is not None:
            ones_BK = mask_BT.new_ones(len(mask_BT), queries_BKH.shape[1])
            allowed = torch.cat([mask_BT, ones_BK], dim=1)[:, None, None].bool()
        q, k, v = (
            projection(given).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, given in ((self.q_proj, asked_BKH), (self.k_proj, seen_BSH), (self.v_proj, seen_BSH))
        )
        found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        queries_BKH = queries_BKH + self.out_proj(found.transpose(1, 2).flatten(2))
        return queries_BKH + self.fc2(nn.functional.gelu(self.fc1(self.mlp_norm(queries_BKH))))


class ResamplerHead(nn.Module):
    """K queries over all tokens of a sound; what they become is as long as rows of the table are, at first."""

    def __init__(self, config, width: int, norm: float):
        super().__init__()
        self.scale = norm / width**0.5
        self.queries = nn.Parameter(torch.zeros(config.num_words, config.hidden_size))
        self.proj_in = nn.Linear(config.audio_width, config.hidden_size)
        self.layers = nn.ModuleList(ResamplerLayer(config) for _ in range(config.num_resampler_layers))
        self.proj_out = nn.Linear(config.hidden_size, width)
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, features_BTA: torch.Tensor, mask_BT: torch.Tensor | None = None) -> Heard:
        tokens_BTH = self.proj_in(features_BTA)
        words_BKH = self.queries.expand(len(features_BTA), -1, -1)
        for layer in self.layers:
            words_BKH = layer(words_BKH, tokens_BTH, mask_BT)
        return Heard(self.scale * self.layer_norm(self.proj_out(words_BKH)))


HEADS = {"residual": ResidualHead, "attentive": AttentiveHead, "resampler": ResamplerHead}

__all__ = ["HEADS", "FactorGraph", "Heard", "ResamplerHead", "ResidualHead", "TurnedLinear", "ZeroLinear"]
