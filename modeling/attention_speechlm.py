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

from .packing_speechlm import are_short, packed, unpacked

# OURS: queries a CPU attends with at once; their bias, 8 MB at 15 s, is all that ever exists of it
QUERY_BLOCK = 256


def relative_bias(query_BHQd: torch.Tensor, table_Rd: torch.Tensor, first: int, frames: int) -> torch.Tensor:
    """q_i . p[clip(i - j)] for the queries i = first, first + 1, ... and all keys j: (B, H, Q, T).

    One product with the reversed table gives R columns a query. A row of the result is a piece of "first column
    repeated, R columns, last column repeated" that starts one column further left for each next query: written once at
    that width, the shift is a matter of strides.
    """
    batch, heads, queries, _ = query_BHQd.shape
    half = table_Rd.shape[0] // 2
    before = first + queries - half  # columns missing on the left, down to j - i = -(first + queries - 1)
    after = frames - 1 - first - half  # and on the right, up to j - i = frames - 1 - first
    used_Rd = table_Rd.flip(0)[max(0, -before) : 2 * half - max(0, -after)]
    scores_BHQR = query_BHQd @ used_Rd.t()  # of all rows, column c is the distance j - i = c + 1 - half
    left = scores_BHQR[..., :1].expand(-1, -1, -1, max(0, before))
    right = scores_BHQR[..., -1:].expand(-1, -1, -1, max(0, after))
    wide = torch.cat([left, scores_BHQR, right], dim=-1)  # rows of frames + queries - 1 numbers
    if queries == 1:
        return wide
    wide = wide.flatten(2)
    row = frames + queries - 2
    return wide[..., queries - 1 : queries - 1 + queries * row].unflatten(2, (queries, row))[..., :frames]


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
    """Self-attention over (B, T, D); `table_Rd` holds the relative positions, `padding_BT` is True where padded.

    With `lengths` the input is (1, N, D), the clips' frames end to end, and each clip attends to itself alone.
    """

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

    def forward(self, hidden_states, table_Rd, padding_BT=None, lengths=None, **kwargs):
        projected = [linear(hidden_states) for linear in (self.q_proj, self.k_proj, self.v_proj)]
        if lengths is None:
            output, weights = self._attend(projected, table_Rd, padding_BT, **kwargs)
        else:
            output, weights = self._attend_within(projected, table_Rd, lengths, **kwargs), None
        return self.out_proj(output), weights

    def _attend_within(self, projected, table_Rd, lengths: list[int], **kwargs):
        if are_short(lengths):
            width = max(lengths)
            rows = [unpacked(one, lengths, width) for one in projected]
            padding_BT = torch.arange(width) >= torch.tensor(lengths)[:, None]
            return packed(self._attend(rows, table_Rd, padding_BT, **kwargs)[0], lengths)
        clips = zip(*(one.split(lengths, dim=1) for one in projected), strict=True)
        return torch.cat([self._attend(clip, table_Rd, None, **kwargs)[0] for clip in clips], dim=1)

    def _attend(self, projected, table_Rd, padding_BT, **kwargs):
        """Queries, keys and values, each (B, T, D) -> what they attend to (B, T, D), and the weights if there are."""
        shape = projected[0].shape
        query, key, value = (one.view(*shape[:-1], -1, self.head_dim).transpose(1, 2) for one in projected)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        outputs, frames = [], shape[1]
        step = self._queries_at_once(query)
        for first in range(0, frames, step):
            query_BHQd = query[:, :, first : first + step]
            bias_BHQT = relative_bias(query_BHQd * self.scaling, table_Rd.to(query.dtype), first, frames)
            if padding_BT is not None:
                bias_BHQT = bias_BHQT.masked_fill(padding_BT[:, None, None], torch.finfo(bias_BHQT.dtype).min)
            output, weights = attention(
                self,
                query_BHQd,
                key,
                value,
                bias_BHQT,
                scaling=self.scaling,
                dropout=self.attention_dropout if self.training else 0.0,
                **kwargs,
            )
            outputs.append(output)
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
        return output.reshape(shape), weights

    def _queries_at_once(self, query_BHTd) -> int:
        """All of them, but QUERY_BLOCK on a CPU without gradients: the T x T bias never exists."""
        in_blocks = self.config._attn_implementation == "sdpa" and query_BHTd.device.type == "cpu"
        if not in_blocks or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return max(1, query_BHTd.shape[2])
        return QUERY_BLOCK


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

    def forward(self, hidden_states, table_Rd, padding_BT=None, lengths=None, **kwargs):
        if lengths is None:
            return self._transform(hidden_states, table_Rd, padding_BT, **kwargs)
        frames = packed(hidden_states, lengths)
        return unpacked(self._transform(frames, table_Rd, lengths=lengths, **kwargs), lengths, hidden_states.shape[1])

    def _transform(self, hidden_states, table_Rd, *where, **kwargs):
        if self.pre_norm:
            attended = self.attention(self.layer_norm(hidden_states), self.norm_k(table_Rd), *where, **kwargs)[0]
            hidden_states = hidden_states + self.dropout(attended)
            return hidden_states + self.dropout(self.feed_forward(self.final_layer_norm(hidden_states)))
        attended = self.attention(hidden_states, table_Rd, *where, **kwargs)[0]
        hidden_states = self.layer_norm(hidden_states + self.dropout(attended))
        return self.final_layer_norm(hidden_states + self.dropout(self.feed_forward(hidden_states)))
