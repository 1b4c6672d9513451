"""SpeechLM's transformer layer: attention with a learned relative position term, then a feed-forward block.

score[i, j] = q_i . k_j + q_i . p[clip(i - j, -160, 159) + 160], both terms with q scaled by 1 / sqrt(d). The position
term is computed as q @ table (T x 320 numbers a head, never T x T x d) and handed to the attention function as its
additive mask, so that every attention implementation which takes a float mask can be used.

Shapes: B batch, H heads, T frames, D hidden, d = D / H head size, R = 2 * max_relative_position rows of the table.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def relative_bias(query_BHTd: torch.Tensor, table_Rd: torch.Tensor) -> torch.Tensor:
    """q_i . p[clip(i - j)] for all i, j: (B, H, T, T) from one (T, R) product a head.

    Reversing the table makes a row of the result a contiguous piece of "first column repeated, R columns, last column
    repeated", shifted by one per row; written once at that width, the shift is a stride.
    """
    frames, rows = query_BHTd.shape[2], table_Rd.shape[0]
    scores_BHTR = query_BHTd @ table_Rd.flip(0).t()  # column c: j - i = c - rows // 2 + 1
    before = frames - rows // 2  # columns left of the table's first: j - i from -(T - 1)
    after = frames - 1 - rows // 2
    scores_BHTR = scores_BHTR[..., max(0, -before) : rows - max(0, -after)]
    left = scores_BHTR[..., :1].expand(*scores_BHTR.shape[:-1], max(0, before))
    right = scores_BHTR[..., -1:].expand(*scores_BHTR.shape[:-1], max(0, after))
    wide = torch.cat([left, scores_BHTR, right], dim=-1)  # (B, H, T, 2T - 1), column m: j - i = m - (T - 1)
    batch, heads = wide.shape[:2]
    # drop T - 1 numbers before the first row and after the last: rows of 2T - 2 now start one column later each
    flat = wide.reshape(batch, heads, -1)[..., frames - 1 : frames - 1 + frames * (2 * frames - 2)]
    if frames == 1:
        return wide
    return flat.reshape(batch, heads, frames, 2 * frames - 2)[..., :frames]


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
):
    guard = module.config.attention_scaling  # keeps half-precision products small; the scores are float32
    scores = torch.matmul(query * (scaling / guard), key.transpose(2, 3)).float() * guard
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1).to(value.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class SpeechLMRelativePositions(nn.Module):
    """The table of relative positions of one transformer, shared by its layers and heads."""

    def __init__(self, config):
        super().__init__()
        self.pe_k = nn.Embedding(2 * config.max_relative_position, config.hidden_size // config.num_attention_heads)


class SpeechLMAttention(nn.Module):
    """Self-attention over (B, T, D); `table_Rd` holds the relative positions, `padding_BT` is True where padded."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = False
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states, table_Rd, padding_BT=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            linear(hidden_states).view(shape).transpose(1, 2) for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias_BHTT = relative_bias(query * self.scaling, table_Rd.to(query.dtype))
        if padding_BT is not None:
            bias_BHTT = bias_BHTT.masked_fill(padding_BT[:, None, None], torch.finfo(bias_BHTT.dtype).min)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self,
            query,
            key,
            value,
            bias_BHTT,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            **kwargs,
        )
        return self.out_proj(output.reshape(hidden_states.shape)), weights


class SpeechLMFeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states):
        return self.output_dense(self.intermediate_dropout(self.activation(self.intermediate_dense(hidden_states))))


class SpeechLMLayer(GradientCheckpointingLayer):
    """Post-norm (Base), or pre-norm with a LayerNorm of its own on the relative positions (Large)."""

    def __init__(self, config):
        super().__init__()
        self.pre_norm = config.do_stable_layer_norm
        self.attention = SpeechLMAttention(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = SpeechLMFeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        if self.pre_norm:
            self.norm_k = nn.LayerNorm(self.attention.head_dim, eps=config.layer_norm_eps)

    def forward(self, hidden_states, table_Rd, padding_BT=None, **kwargs):
        if self.pre_norm:
            attended = self.attention(self.layer_norm(hidden_states), self.norm_k(table_Rd), padding_BT, **kwargs)[0]
            hidden_states = hidden_states + self.dropout(attended)
            return hidden_states + self.dropout(self.feed_forward(self.final_layer_norm(hidden_states)))
        attended = self.attention(hidden_states, table_Rd, padding_BT, **kwargs)[0]
        hidden_states = self.layer_norm(hidden_states + self.dropout(attended))
        return self.final_layer_norm(hidden_states + self.dropout(self.feed_forward(hidden_states)))
