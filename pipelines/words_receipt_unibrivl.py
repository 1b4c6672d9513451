"""Words of sounds in a receipt: the vectors themselves, so that neither adapter nor ears are needed to draw it again.

    {"sounds": [{"text_encoder": {"shape": [1, 768], "float32": "..."}}], "prompts": [[0]], "negative": None}

Shapes: K words of a sound, D width of a token table.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

FIT_IN_A_RECEIPT = 1 << 16  # numbers of embeddings and words

Rows = list[list[Mapping[str, torch.Tensor]]]  # of each prompt, of each of its sounds: text encoder -> (K, D)


def packed(tensor: torch.Tensor) -> dict[str, Any]:
    array = np.ascontiguousarray(tensor.detach().float().cpu().numpy(), dtype="<f4")
    return {"shape": list(array.shape), "float32": base64.b64encode(array.tobytes()).decode()}


def unpacked(told: Mapping[str, Any]) -> torch.Tensor:
    array = np.frombuffer(base64.b64decode(told["float32"]), dtype="<f4").reshape(told["shape"])
    return torch.from_numpy(array.copy())


def told_words(spoken: tuple[Rows, Rows] | None) -> tuple[dict[str, Any] | None, list[str]]:
    """Words of prompts and of negative prompts, each sound once, and why they cannot be written down."""
    if spoken is None or not any(row for rows in spoken for row in rows):
        return None, []
    known: dict[int, int] = {}
    sounds: list[Mapping[str, torch.Tensor]] = []

    def numbers(rows: Rows) -> list[list[int]]:
        for sound in (one for row in rows for one in row):
            if id(sound) not in known:
                known[id(sound)] = len(sounds)
                sounds.append(sound)
        return [[known[id(one)] for one in row] for row in rows]

    prompts, refused = spoken
    told: dict[str, Any] = {
        "prompts": numbers(prompts),
        "negative": None if refused is prompts else numbers(refused),  # None: the prompts' own
    }
    size = sum(words.numel() for sound in sounds for words in sound.values())
    if size > FIT_IN_A_RECEIPT:
        return None, [f"the words of its {len(sounds)} sounds are {size} numbers, too many for a receipt"]
    told["sounds"] = [{name: packed(words) for name, words in sound.items()} for sound in sounds]
    return told, []


def read_words(told: Mapping[str, Any], text_encoders: Sequence[str]) -> tuple[Rows, Rows]:
    """What `told_words` has written, for a base with these text encoders."""
    sounds = [{name: unpacked(words) for name, words in sound.items()} for sound in told["sounds"]]
    for sound in sounds:
        if sorted(sound) != sorted(text_encoders):
            raise ValueError(
                f"the receipt has words for {', '.join(sound)}, and this base has {', '.join(text_encoders)}: take "
                "the base that drew it"
            )

    def rows(numbers: list[list[int]]) -> Rows:
        return [[sounds[number] for number in row] for row in numbers]

    prompts = rows(told["prompts"])
    return prompts, prompts if told["negative"] is None else rows(told["negative"])


__all__ = ["FIT_IN_A_RECEIPT", "packed", "read_words", "told_words", "unpacked"]
