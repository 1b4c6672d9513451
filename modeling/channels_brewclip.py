"""What BrewCLIP hears beyond the transcript: the end-to-end channel, and SpeechCLIP's cascade into words.

    end to end:  [pool] p1 .. pM a1 .. aT --layer of attention--> the first --> vector of the space
    keywords:    [k1 .. kK] a1 .. aT --attention--> K vectors --> nearest rows of the token table --> the text tower

Shapes: B sounds, T frames, W their width, A width of the channel, M prompts, D width of the text tower, E of the
space, K keywords, V rows of the token table.
"""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_brewclip import BrewCLIPConfig


class BrewCLIPLayer(GradientCheckpointingLayer, nn.TransformerEncoderLayer):
    """torch's own encoder layer, its norms behind."""


class IdentityLinear(nn.Linear):
    """A linear layer that begins as the identity, where it is square."""


def pooled(frames_NTW: torch.Tensor, mask_NT: torch.Tensor | None, every: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the real ones among every so many frames, (N, P, W), and which means are of any, (N, P)."""
    if mask_NT is None:
        mask_NT = torch.ones(frames_NTW.shape[:2], dtype=torch.long, device=frames_NTW.device)
    spare = -frames_NTW.shape[1] % every
    frames_NTW = nn.functional.pad(frames_NTW, (0, 0, 0, spare))
    real_NPK = nn.functional.pad(mask_NT.to(frames_NTW.device), (0, spare)).unflatten(1, (-1, every))
    weights_NPK1 = real_NPK[..., None].to(frames_NTW)
    sums_NPW = (frames_NTW.unflatten(1, (-1, every)) * weights_NPK1).sum(2)
    return sums_NPW / weights_NPK1.sum(2).clamp(min=1), (real_NPK.sum(2) > 0).long()


class SharedPrompts(nn.Module):
    """The vectors that stand before the words of a transcript, and in the other places."""

    def __init__(self, num_prompts: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_prompts, width))

    def forward(self) -> torch.Tensor:
        return self.weight


class EndToEndChannel(nn.Module):
    """Frames and prompts to one vector."""

    def __init__(self, config: BrewCLIPConfig):
        super().__init__()
        width, text_width = config.e2e_width, config.text_config.hidden_size
        self.mask_padding = config.mask_padding
        self.frame_projection = nn.Linear(config.audio_width, width) if config.project_frames else None
        prompted = config.num_prompts > 0 and config.prompt_audio == "linear"
        self.prompt_projection = IdentityLinear(text_width, width) if prompted else None
        self.pool = nn.Parameter(torch.zeros(1, width))
        fields = {"activation": "gelu", "layer_norm_eps": config.layer_norm_eps, "batch_first": True}
        self.layers = nn.ModuleList(
            BrewCLIPLayer(width, config.num_attention_heads, config.e2e_intermediate_size, config.dropout, **fields)
            for _ in range(config.num_e2e_layers)
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.projection = nn.Linear(width, config.embed_dim)

    def forward(
        self, frames_BTW: torch.Tensor, frame_mask_BT: torch.Tensor | None, prompts_MD: torch.Tensor | None
    ) -> torch.Tensor:
        """(B, E)."""
        if self.mask_padding and frame_mask_BT is not None:
            real_BT = frame_mask_BT.to(frames_BTW.device).bool()
            longest = max(1, int(real_BT.sum(1).max()))  # frames behind the longest change nothing
            frames_BTW, real_BT = frames_BTW[:, :longest], real_BT[:, :longest]
        else:
            real_BT = torch.ones(frames_BTW.shape[:2], dtype=torch.bool, device=frames_BTW.device)
        frames_BTA = frames_BTW.to(self.pool.dtype)
        if self.frame_projection is not None:
            frames_BTA = self.frame_projection(frames_BTA)
        before = [self.pool]
        if prompts_MD is not None:
            before.append(prompts_MD if self.prompt_projection is None else self.prompt_projection(prompts_MD))
        first_BFA = torch.cat(before).expand(len(frames_BTA), -1, -1)
        states_BSA = torch.cat([first_BFA, frames_BTA], dim=1)
        padding_BS = torch.cat([real_BT.new_zeros(first_BFA.shape[:2]), ~real_BT], dim=1)
        for layer in self.layers:
            states_BSA = layer(states_BSA, src_key_padding_mask=padding_BS)
        return self.projection(self.norm(states_BSA)[:, 0])


class KeywordChannel(nn.Module):
    """Frames to K rows of the text tower's token table (SpeechCLIP, cascaded).

    In training the choice is a softmax in the backward pass, and what was chosen in the forward pass.
    """

    def __init__(self, config: BrewCLIPConfig):
        super().__init__()
        width, text_width = int(config.audio_width or 0), config.text_config.hidden_size
        self.mask_padding, self.temperature = config.mask_padding, config.keyword_temperature
        self.pool = nn.Parameter(torch.zeros(config.num_keywords, width))
        self.attention = nn.MultiheadAttention(width, 1, dropout=config.dropout, batch_first=True)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.projection = nn.Linear(width, text_width)
        self.spread = nn.BatchNorm1d(config.num_keywords * text_width)
        # rows that may be chosen; by default all but a text's own ends
        self.register_buffer("allowed", torch.ones(config.text_config.vocab_size, dtype=torch.bool))

    def forward(
        self, frames_BTW: torch.Tensor, frame_mask_BT: torch.Tensor | None, table_VD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of the chosen rows (B, K, D), and their ids (B, K)."""
        table_VD = table_VD.to(self.pool.dtype)
        real_BT = frame_mask_BT if self.mask_padding else None
        if real_BT is None:
            real_BT = torch.ones(frames_BTW.shape[:2], device=frames_BTW.device)
        first_BKW = self.pool.expand(len(frames_BTW), -1, -1)
        states_BSW = torch.cat([first_BKW, frames_BTW.to(self.pool.dtype)], dim=1)
        padding_BS = torch.cat([first_BKW.new_zeros(first_BKW.shape[:2]).bool(), ~real_BT.bool()], dim=1)
        mixed_BSW, _ = self.attention(states_BSW, states_BSW, states_BSW, padding_BS, need_weights=False)
        states_BSW = self.norm(states_BSW + mixed_BSW)
        wanted_BKD = self.projection(states_BSW[:, : len(self.pool)])
        wanted_BKD = self.spread(wanted_BKD.flatten(1)).unflatten(1, wanted_BKD.shape[1:])
        cosines_BKV = nn.functional.normalize(wanted_BKD, dim=-1) @ nn.functional.normalize(table_VD, dim=-1).t()
        cosines_BKV = cosines_BKV.masked_fill(~self.allowed, torch.finfo(cosines_BKV.dtype).min)
        chosen_BK = cosines_BKV.argmax(-1)
        rows_BKD = table_VD[chosen_BK]
        if not self.training:
            return rows_BKD, chosen_BK
        soft_BKD = (cosines_BKV / self.temperature).softmax(-1) @ table_VD
        return rows_BKD + soft_BKD - soft_BKD.detach(), chosen_BK

    @torch.no_grad()
    def fit_to(self, table_VD: torch.Tensor, ends: tuple[int, int]) -> None:
        """Begin where words are: the statistics of the token table, and no end of a text among the choices."""
        width = table_VD.shape[1]
        self.spread.weight.copy_(table_VD.float().std(0).repeat(len(self.spread.weight) // width))
        self.spread.bias.copy_(table_VD.float().mean(0).repeat(len(self.spread.bias) // width))
        self.allowed[list(ends)] = False

    @torch.no_grad()
    def allow(self, ids) -> None:
        """Only these rows may be chosen from now on: SpeechCLIP takes the sub-words of its training captions."""
        chosen = torch.zeros_like(self.allowed)
        chosen[torch.as_tensor(sorted(set(ids)), device=chosen.device)] = True
        if not (chosen & self.allowed).any():
            raise ValueError("no row would be left to choose: pass the ids of words, without a text's ends")
        self.allowed &= chosen


__all__ = ["BrewCLIPLayer", "EndToEndChannel", "IdentityLinear", "KeywordChannel", "SharedPrompts", "pooled"]
