"""Which sounds belong to which prompt, how strongly each counts, and what lies between several.

Shapes: B prompts, N sounds of each, K words of a sound, D width of a token table.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .hearing_unibrivl import is_one
from .words_audio_token import Words, lookup_of, text_encoders_of

MIXES = ("separate", "lerp", "slerp")
PARALLEL = 1e-4  # OURS: radians below which an arc is a straight line


def rows_of(
    prompt: str | Sequence[str] | None, audio: Any, default: str, together: bool = False, count: int = 0
) -> tuple[list[str], list[list[Any]]]:
    """Prompts, and of each a list of its sounds.

    Args:
        prompt: one or several, or none: then `default`, for each sound, or once for all that are mixed.
        audio: a sound; a list; a list of lists.
        together (`bool`): a prompt's sounds are mixed into one.
        count (`int`): of prompts that there have to be, if it is known.
    """
    alone = is_sound(audio)
    sounds = [audio] if alone else list(audio)
    if not sounds:
        raise ValueError("audio= is an empty list: pass at least one sound")
    nested = [isinstance(one, (list, tuple)) and not is_sound(one) for one in sounds]
    if any(nested) and not all(nested):
        raise ValueError("audio= holds sounds and lists of sounds: pass a list of lists, one for each prompt")
    if prompt is None:
        single = together and not any(nested)
        prompts = [default] * (count or (1 if single or alone else len(sounds)))
    else:
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise ValueError("prompt= is an empty list: pass at least one text, or none at all")
    if any(nested):
        rows = [list(one) for one in sounds]
        if len(rows) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts and lists of sounds for {len(rows)}: as many of both")
    elif len(prompts) == 1:
        rows = [sounds]
    elif len(sounds) in (1, len(prompts)):
        rows = [[sounds[place % len(sounds)]] for place in range(len(prompts))]
    else:
        raise ValueError(
            f"{len(prompts)} prompts and {len(sounds)} sounds: pass one for each prompt, or a list of lists with all "
            "sounds of each"
        )
    if not all(rows):
        raise ValueError("a prompt has an empty list of sounds: leave its placeholder out, and make a call of its own")
    return prompts, rows


def is_sound(audio: Any) -> bool:
    """One sound, in whatever form, and no list of them."""
    return is_one(audio) or hasattr(audio, "vectors")


def given_words(audio_embeds: Any, text_encoders: Mapping[str, Any], num_prompts: int) -> list[list[Words]]:
    """Of each prompt the words of its sounds, from tensors that the caller has."""
    given = getattr(audio_embeds, "words", audio_embeds)  # an AudioCue's, already (1, 1, K, D)
    if isinstance(given, torch.Tensor):
        if len(text_encoders) != 1:
            raise ValueError(f"this base has {', '.join(text_encoders)}: pass audio_embeds as {{text encoder: words}}")
        given = {next(iter(text_encoders)): given}
    if missing := sorted(text_encoders.keys() - given.keys()):
        raise ValueError(f"audio_embeds have no words for {missing[0]}: this base has {', '.join(text_encoders)}")
    whole = {}
    for name in text_encoders:
        words = given[name]
        words = words[None] if words.dim() == 2 else words
        words = words[None] if words.dim() == 3 else words
        if words.dim() != 4 or len(words) not in (1, num_prompts):
            raise ValueError(
                f"audio_embeds of {name} are {tuple(given[name].shape)} and must be (prompts, sounds, words, width), "
                f"of {num_prompts} prompts"
            )
        whole[name] = words.expand(num_prompts, *words.shape[1:])
    counts = {words.shape[1:3] for words in whole.values()}
    if len(counts) != 1:
        raise ValueError("audio_embeds have as many sounds, and as many words of each, for every text encoder")
    num_sounds = next(iter(counts))[0]
    return [
        [{name: words[row, sound] for name, words in whole.items()} for sound in range(num_sounds)]
        for row in range(num_prompts)
    ]


def weights_of(weights: Any, row: int, count: int, num_rows: int) -> list[float]:
    """One weight for each sound of a prompt."""
    mine: list[Any] = [weights] * count if isinstance(weights, (int, float)) else list(weights)
    if mine and all(isinstance(one, (list, tuple)) for one in mine):
        if len(mine) != num_rows:
            raise ValueError(f"audio_weights has lists for {len(mine)} prompts, and there are {num_rows}")
        mine = list(mine[row])
    if len(mine) != count:
        raise ValueError(f"audio_weights has {len(mine)} weights for {count} sounds: pass one for each")
    if not all(map(math.isfinite, mine)):
        raise ValueError(f"audio_weights are finite numbers, got {mine}")
    return [float(one) for one in mine]


def weighted(pipe: Any, rows: list[list[Words]], weights: Any) -> list[list[Words]]:
    """Each word on the line from the table's mean row, at 0, to itself, at 1, and beyond."""
    neutral: dict[str, torch.Tensor] = {}
    found: list[list[Words]] = []
    for row, sounds in enumerate(rows):
        mine: list[Words] = []
        for sound, weight in zip(sounds, weights_of(weights, row, len(sounds), len(rows)), strict=True):
            if weight == 1.0:
                mine.append(sound)
                continue
            if not neutral:
                encoders = text_encoders_of(pipe)
                neutral = {name: lookup_of(one).weight.detach().float().mean(0) for name, one in encoders.items()}
            mine.append({name: between(neutral[name].to(one), one, weight) for name, one in sound.items()})
        found.append(mine)
    return found


def between(start: torch.Tensor, end: torch.Tensor, share: float) -> torch.Tensor:
    return start + share * (end - start)


def mixed_words(rows: list[list[Words]], mix: str, weights: Any) -> list[list[Words]]:
    """With "lerp" or "slerp" one sound for each prompt, between all of its sounds; else all of them."""
    if mix == "separate":
        return rows
    found: list[list[Words]] = []
    for row, sounds in enumerate(rows):
        shares = weights_of(weights, row, len(sounds), len(rows))
        if sum(shares) <= 0 or min(shares) < 0:
            raise ValueError(f"audio_weights are shares of a mix, none below 0 and not all 0; got {shares}")
        counts = {len(next(iter(sound.values()))) for sound in sounds}
        if len(counts) > 1:
            raise ValueError("sounds that are mixed have as many words each: these come from different adapters")
        one, total = dict(sounds[0]), shares[0]
        for sound, share in zip(sounds[1:], shares[1:], strict=True):
            total += share
            step = share / total if total else 0.0
            join = arc if mix == "slerp" else between
            one = {name: join(one[name], sound[name], step) for name in one}
        found.append([one])
    return found


def arc(start: torch.Tensor, end: torch.Tensor, share: float) -> torch.Tensor:
    """(K, D) on the arc between the directions of each word, with a length between theirs."""
    before, behind = start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True)
    if not bool((before > 0).all() and (behind > 0).all()):
        return between(start, end, share)
    first, second = start / before, end / behind
    angle = torch.arccos((first * second).sum(-1, keepdim=True).clamp(-1, 1))
    straight = between(first, second, share)
    curved = (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)
    direction = torch.where((angle < PARALLEL) | (angle > torch.pi - PARALLEL), straight, curved)
    return direction * between(before, behind, share)


__all__ = ["MIXES", "given_words", "mixed_words", "rows_of", "weighted", "weights_of"]
