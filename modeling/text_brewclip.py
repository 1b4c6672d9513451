"""Transcripts for CLIP's text tower: prompts before the words, and texts longer than the tower in equal parts.

    [start] p1 .. pM w1 .. wK [end] [end] ..

A prompt stands where its vector is read as if it were a word's: the tower is causal and pools at the end of the text,
so prompts change every word, and nothing behind the end changes anything. The ids are an ordinary text's; the vectors
are put in while the tower runs (`injection_audio_token`), which is why positions, mask and pooling are CLIP's own.

Shapes: B texts, N parts of all texts, L places of a part, M prompts, K words, D width of the tower, E of the space.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from .injection_audio_token import AudioPrompt, injected
from .token_table_audio_token import special_tokens
from .towers_unibrivl import text_embedding

KEPT_POSITIONS = 20  # LongCLIP paper: the first ones are well trained and are left alone
STAND_IN = 0  # the id in a prompt's place: any but the end will do


@dataclass
class TextParts:
    """
    Args:
        input_ids (`torch.LongTensor`): (N, L), with stand-ins where prompts go.
        attention_mask (`torch.LongTensor`): (N, L), 1 up to the end of a text.
        rows (`torch.LongTensor`): (N,), the text that each part is of, in order.
        weights (`torch.FloatTensor`): (N,), words of each part, at least 1.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    rows: torch.Tensor
    weights: torch.Tensor


def balanced(length: int, capacity: int) -> list[int]:
    """Lengths of the fewest parts that fit; none is longer than another by more than one."""
    parts = max(1, math.ceil(length / capacity))
    return [length // parts + (place < length % parts) for place in range(parts)]


def words_of(input_ids_BL: torch.Tensor, config) -> list[list[int]]:
    """The words of each text, without its start, its end and what follows."""
    start, end = special_tokens(config)
    assert start is not None and end is not None, "CLIP's texts have both"
    found = []
    for row in input_ids_BL.tolist():
        stop = row.index(end) if end in row else len(row)
        found.append(row[int(row[:1] == [start]) : stop])
    return found


def text_parts(words: Sequence[Sequence[int]], config, num_prompts: int, long_text: str) -> TextParts:
    """Texts as the tower takes them, each in as many parts as it needs.

    Args:
        words: ids of each text, without its ends.
        config: of the text tower.
        num_prompts (`int`): M, places between the start and the words.
        long_text (`str`): "truncate" keeps what fits; else a text is told in parts.
    """
    start, end = special_tokens(config)
    assert start is not None and end is not None, "CLIP's texts have both"
    capacity = config.max_position_embeddings - 2 - num_prompts
    lines: list[list[int]] = []
    rows: list[int] = []
    weights: list[int] = []
    for row, one in enumerate(words):
        place = 0
        for length in [min(len(one), capacity)] if long_text == "truncate" else balanced(len(one), capacity):
            lines.append([start, *[STAND_IN] * num_prompts, *one[place : place + length], end])
            rows.append(row)
            weights.append(max(1, length))
            place += length
    longest = max(map(len, lines))
    ids_NL = torch.tensor([line + [end] * (longest - len(line)) for line in lines])
    real_NL = torch.arange(longest) < torch.tensor([len(line) for line in lines])[:, None]
    return TextParts(ids_NL, real_NL.long(), torch.tensor(rows), torch.tensor(weights, dtype=torch.float32))


def read(text_model: PreTrainedModel, parts: TextParts, prompts_MD: torch.Tensor | None) -> torch.Tensor:
    """(N, E): the tower's embeddings of texts, with prompts, or with the vectors (N, M, D) of each text."""
    device = text_model.device
    inputs = {"input_ids": parts.input_ids.to(device), "attention_mask": parts.attention_mask.to(device)}
    if prompts_MD is None or not prompts_MD.shape[-2]:
        return text_embedding(text_model(**inputs, return_dict=True))
    slots = prompt_slots(parts, prompts_MD.shape[-2])
    each = prompts_MD if prompts_MD.dim() == 2 else prompts_MD[:, None]
    with injected(text_model, slots, each):
        return text_embedding(text_model(**inputs, return_dict=True))


def prompt_slots(parts: TextParts, num_prompts: int) -> AudioPrompt:
    """Where the vectors go: behind the start of every part."""
    texts = len(parts.input_ids)
    rows = torch.arange(texts).repeat_interleave(num_prompts)
    words = torch.arange(num_prompts).repeat(texts)
    return AudioPrompt(parts.input_ids, parts.attention_mask, rows, words + 1, torch.zeros_like(words), words)


def weighted_mean(vectors_NE: torch.Tensor, weights_N: torch.Tensor, rows_N: torch.Tensor, texts: int) -> torch.Tensor:
    """(texts, E): the mean direction of each one's parts, as long as these are on average; of one part that part."""
    if len(rows_N) == texts:
        return vectors_NE
    rows_N, weights_N = rows_N.to(vectors_NE.device), weights_N.to(vectors_NE)
    directions_NE = nn.functional.normalize(vectors_NE, dim=-1)
    nothing_BE = vectors_NE.new_zeros(texts, vectors_NE.shape[1])
    total_BE = nothing_BE.index_add(0, rows_N, directions_NE * weights_N[:, None])
    shares_B = weights_N.new_zeros(texts).index_add(0, rows_N, weights_N)
    lengths_B = weights_N.new_zeros(texts).index_add(0, rows_N, weights_N * vectors_NE.norm(dim=-1)) / shares_B
    mean_BE = nn.functional.normalize(total_BE, dim=-1) * lengths_B[:, None]
    alone_B = torch.bincount(rows_N, minlength=texts) == 1
    only_BE = nothing_BE.index_add(0, rows_N, vectors_NE)
    return torch.where(alone_B[:, None], only_BE, mean_BE)


@torch.no_grad()
def stretch_positions(text_model: PreTrainedModel, positions: int) -> None:
    """A longer table of positions, its first rows kept and the others drawn out between them (LongCLIP's way)."""
    embeddings = next(module for module in text_model.modules() if hasattr(module, "position_embedding"))
    table_PD = embeddings.position_embedding.weight
    have = len(table_PD)
    if positions < have:
        raise ValueError(f"text_positions is {positions} and the text tower has {have}: tables are stretched, not cut")
    if positions == have:
        return
    kept = min(KEPT_POSITIONS, have - 2)
    drawn_1DP = nn.functional.interpolate(
        table_PD[kept:].T[None].float(), size=positions - kept, mode="linear", align_corners=True
    )
    longer_PD = torch.cat([table_PD[:kept], drawn_1DP[0].T.to(table_PD)])
    embeddings.position_embedding = nn.Embedding.from_pretrained(longer_PD, freeze=not table_PD.requires_grad)
    embeddings.register_buffer("position_ids", torch.arange(positions, device=table_PD.device)[None], persistent=False)
    text_model.config.max_position_embeddings = positions


__all__ = [
    "TextParts", "balanced", "prompt_slots", "read", "stretch_positions", "text_parts",
    "weighted_mean", "words_of",
]  # fmt: skip
