"""BriVL's self-attention block: post-norm ReLU layers over l2-normalised tokens, then the mean of the real ones.

Both of BriVL's towers end in it, and UniBriVL's language tower takes it over.

Shapes: B batch, N tokens, D width.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def unit_length(vectors: torch.Tensor) -> torch.Tensor:
    """l2-normalised over the last axis; in float32 at least, since a zero stays zero there and is NaN in float16."""
    wide = torch.promote_types(vectors.dtype, torch.float32)
    return nn.functional.normalize(vectors.to(wide), dim=-1).to(vectors.dtype)


def eager_attention_forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class BriVLAttention(nn.Module):
    def __init__(self, config, width: int, num_heads: int, dropout: float):
        super().__init__()
        self.config = config
        self.head_dim = width // num_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = dropout
        self.is_causal = False
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens_BND, attention_mask=None, **kwargs):
        shape = (*tokens_BND.shape[:-1], -1, self.head_dim)
        query, key, value = (
            linear(tokens_BND).view(shape).transpose(1, 2) for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=self.dropout if self.training else 0.0,
            **kwargs,
        )
        return self.out_proj(output.reshape(tokens_BND.shape).contiguous()), weights


class BriVLLayer(GradientCheckpointingLayer):
    """torch's `nn.TransformerEncoderLayer` with its defaults of 1.8: post-norm, ReLU, dropout in four places."""

    def __init__(self, config, width: int, num_heads: int, intermediate_size: int, dropout: float, eps: float):
        super().__init__()
        self.attention = BriVLAttention(config, width, num_heads, dropout)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.fc1 = nn.Linear(width, intermediate_size)
        self.fc2 = nn.Linear(intermediate_size, width)
        self.output_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BND, attention_mask=None, **kwargs):
        attended = self.attention(tokens_BND, attention_mask, **kwargs)[0]
        tokens_BND = self.attention_norm(tokens_BND + self.dropout(attended))
        hidden = self.fc2(self.dropout(nn.functional.relu(self.fc1(tokens_BND))))
        return self.output_norm(tokens_BND + self.dropout(hidden))


class BriVLAttentionPool(nn.Module):
    """Tokens (B, N, D) and their mask (B, N) -> the last layer's tokens and the mean of the real ones, (B, D)."""

    def __init__(self, config, width, num_layers, num_heads, intermediate_size, dropout, eps):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            [BriVLLayer(config, width, num_heads, intermediate_size, dropout, eps) for _ in range(num_layers)]
        )

    def forward(self, tokens_BND, mask_BN=None, **kwargs):
        if mask_BN is not None:
            if mask_BN.shape != tokens_BND.shape[:2]:
                raise ValueError(
                    f"the mask is {tuple(mask_BN.shape)} and must be (batch, tokens or boxes), "
                    f"{tuple(tokens_BND.shape[:2])}"
                )
            mask_BN = mask_BN.to(tokens_BND.device).bool()
            if not torch.compiler.is_compiling() and not mask_BN.any(1).all():
                raise ValueError("a row of the mask is all zeros: nothing to pool. Give every row a token or a box")
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=tokens_BND, attention_mask=mask_BN
        )
        tokens_BND = unit_length(tokens_BND)
        for layer in self.layers:
            tokens_BND = layer(tokens_BND, attention_mask, **kwargs)
        if mask_BN is None:
            return tokens_BND, tokens_BND.mean(1)
        weights_BN = (mask_BN / mask_BN.sum(1, keepdim=True)).to(tokens_BND.dtype)
        return tokens_BND, (weights_BN[:, None] @ tokens_BND)[:, 0]


class BriVLProjection(nn.Module):
    """The two-layer ReLU MLP at the end of a tower."""

    def __init__(self, width: int, projection_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(width, projection_dim)
        self.fc2 = nn.Linear(projection_dim, projection_dim)

    def forward(self, pooled_BD):
        return self.fc2(nn.functional.relu(self.fc1(pooled_BD)))
