"""A tiny CLIP text side: its tokenizer and its configuration. Nothing of diffusers is needed for it."""

from __future__ import annotations

import string

from transformers import CLIPTextConfig, CLIPTokenizer


def tokenizer(length: int = 77) -> CLIPTokenizer:
    """CLIP's, over letters and digits: every text can be read, and there are 64 tokens."""
    marks = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocab = ["<|startoftext|>", *marks, *(f"{digit}</w>" for digit in string.digits), "<|endoftext|>"]
    numbered = {token: number for number, token in enumerate(vocab)}
    return CLIPTokenizer(vocab=numbered, merges=[], model_max_length=length)


def text_config(**fields) -> CLIPTextConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 3}
    return CLIPTextConfig(**{**sizes, "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 63, **fields})
