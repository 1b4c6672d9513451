"""From sounds to words: read, cut into windows that the ears can hear, and handed to the adapter.

Shapes: B sounds, T tokens of a sound, A width of features, K words, D width of a token table.
"""

from typing import Any

import torch

from .hearing_unibrivl import WINDOW_S, as_sounds, split
from .query_unibrivl import check_not_silent


@torch.no_grad()
def heard_words(adapter: Any, ears: Any, audio: Any, sampling_rate: int | None = None) -> dict[str, torch.Tensor]:
    """Text encoder -> (B, K, D).

    Args:
        adapter: an `AudioTokenAdapter`.
        ears: `SoundFeatures`, those that it was trained with.
        audio: one sound or a list: a path, bytes, an array at `sampling_rate`, a pair (rate, array), ... One that is
            longer than ten seconds is heard in windows: their vectors are averaged by length, their tokens joined.
    """
    words: dict[str, list[torch.Tensor]] = {}
    for sound in as_sounds(ears, audio, sampling_rate):
        check_not_silent(sound)
        pieces = [one.samples for one in split(sound, WINDOW_S)]
        if adapter.config.takes_tokens:
            tokens_1TA = torch.cat([ears.tokens([piece])[0] for piece in pieces], 1)
            output = adapter(tokens_1TA.to(adapter.device))
        else:
            found_WA = torch.cat([ears.pooled([piece]) for piece in pieces])
            lengths_W = torch.tensor([len(piece) for piece in pieces]).to(found_WA)
            output = adapter((lengths_W / lengths_W.sum() @ found_WA)[None].to(adapter.device))
        for name, words_1KD in output.words.items():
            words.setdefault(name, []).append(words_1KD)
    return {name: torch.cat(found) for name, found in words.items()}


__all__ = ["heard_words"]
