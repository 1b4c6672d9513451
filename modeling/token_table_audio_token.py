"""Token tables: the rows that a text encoder reads words by, how long they are, and which table it is.

A pseudo-word is a row that no table has, so it only means something beside the rows it was learned among. A table's
fingerprint is text: its size and sixteen of its numbers. It compares with a little room, so that a table in half
precision, or one with rows added behind, is still the table it was.

Shapes: V rows, D their width.
"""

import re
import struct
from collections.abc import Mapping

import torch
from torch import nn

LEGACY_END = 2  # what CLIP's older configurations call the end of a text; in truth it is the table's last row
SAMPLE = 16  # numbers of a table that its fingerprint holds
ROOM = 0.01  # of the sample's root mean square: bfloat16 rounds by 0.004
WRITTEN = re.compile(r"(\d+)x(\d+):([0-9a-f]{64})")


def embedding_module(text_encoder: nn.Module) -> nn.Module:
    """The module that turns ids into rows when the encoder runs: T5's own `get_input_embeddings` is another one."""
    inside = getattr(getattr(text_encoder, "encoder", None), "embed_tokens", None)
    return inside if inside is not None else text_encoder.get_input_embeddings()


def table_of(text_encoder: nn.Module) -> torch.Tensor:
    """(V, D)."""
    return embedding_module(text_encoder).weight


def special_tokens(config) -> tuple[int | None, int | None]:
    """Numbers of the tokens that begin and end a text."""
    if config.model_type == "clip_text_model" and config.eos_token_id == LEGACY_END:
        return config.vocab_size - 2, config.vocab_size - 1
    return config.bos_token_id, config.eos_token_id


def mean_norm(table_VD: torch.Tensor) -> float:
    """How long a row is, on average."""
    return float(table_VD.detach().float().norm(dim=-1).mean())


def table_fingerprint(table_VD: torch.Tensor, rows: int | None = None) -> str | None:
    """Of the first `rows`, by default of all; None where the weights are not in memory.

    It takes microseconds: the numbers are spread over the table, and only these are looked at.
    """
    if table_VD.is_meta:
        return None
    rows = len(table_VD) if rows is None else rows
    places = torch.linspace(0, rows * table_VD.shape[1] - 1, SAMPLE, dtype=torch.float64).long()
    # one row after the other: the weights may be views, and flattening them would copy the table
    picked = torch.stack([table_VD[place // table_VD.shape[1], place % table_VD.shape[1]] for place in places])
    numbers = picked.detach().float().clamp(-6e4, 6e4).cpu().tolist()
    return f"{rows}x{table_VD.shape[1]}:{struct.pack(f'<{SAMPLE}e', *numbers).hex()}"


def same_table(recorded: str, table_VD: torch.Tensor) -> bool:
    """Whether a table is the one a fingerprint was taken of, in whatever precision, with whatever rows behind it."""
    found = WRITTEN.fullmatch(recorded)
    if found is None:
        raise ValueError(f"{recorded!r} is no fingerprint of a token table: it was edited, so save the adapter again")
    rows, width = int(found[1]), int(found[2])
    if table_VD.shape[1] != width or len(table_VD) < rows:
        return False
    now = table_fingerprint(table_VD, rows)
    if now is None:  # offloaded: what cannot be seen cannot be refused
        return True
    ours, theirs = (numbers_of(text) for text in (recorded, now))
    return bool((ours - theirs).abs().max() <= ROOM * ours.square().mean().sqrt())


def numbers_of(written: str) -> torch.Tensor:
    return torch.tensor(struct.unpack(f"<{SAMPLE}e", bytes.fromhex(written.partition(":")[2])), dtype=torch.float64)


def told_of_tables(fingerprints: Mapping[str, str]) -> str:
    """For an error: "text_encoder 49408 x 768, a1b2c3d4"."""
    told = []
    for name, written in fingerprints.items():
        size, _, digits = written.partition(":")
        told.append(f"{name} {size.replace('x', ' x ')}, {digits[:8]}")
    return "; ".join(told) or "not recorded"


__all__ = ["embedding_module", "mean_norm", "same_table", "table_fingerprint", "table_of", "told_of_tables"]
