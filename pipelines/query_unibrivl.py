"""What a call listens to: sounds, alone or combined, as the embeddings that pictures are compared with.

Everything is checked here, before anything is drawn: a sound that cannot be read, is silent or has no rate, weights
that cancel each other, a text for a matcher that cannot read. Each sound and each text is encoded once in a call. With
this package installed a sound is whatever `unibrivl.load_audio` takes; without it, samples with their rate.

Shapes: Q queries, E numbers of an embedding, S samples.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from .hearing_unibrivl import Sound, as_sounds, embed_sounds, longest_window, shown_weight, split

logger = logging.get_logger(__name__)

SILENT = 1e-5  # OURS: a peak 100 dB below full scale; half a step of a 16-bit file is 96 dB below
CANCELLED = 1e-4  # OURS: a sum of unit vectors this short is rounding
HARDLY_HEARD = 1e-3  # OURS: a cosine of 0.999 over the whole sweep is a matcher that hears no loudness


@dataclass
class Query:
    """
    Args:
        embeds (`torch.Tensor`): (Q, E) of length one.
        hashes (`list`): of each query's samples as the model hears them, where there were samples.
        times (`list`, *optional*): (start, end) in seconds of each window.
        told (`dict`): how the call put it, in plain values: for the receipt.
        labels (`list[str]`, *optional*): what each query is called: "-20 dB".
    """

    embeds: torch.Tensor
    hashes: list[str | None]
    times: list[tuple[float, float]] | None
    told: dict[str, Any]
    labels: list[str] | None = None

    def __len__(self) -> int:
        return len(self.embeds)


@torch.no_grad()
def encode_query(
    matcher: Any,
    audio: Any = None,
    audio_embeds: Any = None,
    *,
    sampling_rate: int | None = None,
    mix: Sequence[float] | None = None,
    text: str | list[str] | None = None,
    text_weight: float | Sequence[float] = 0.5,  # OURS: sound and text count alike
    windows: bool = False,
    volume: Sequence[float] | float | None = None,
) -> Query:
    """
    Args:
        matcher: what encodes.
        audio: one sound or a list: a path, bytes, a file object, an array at `sampling_rate`, a pair (rate, array), a
            `Waveform`. A sound that is longer than ten seconds, or than the matcher hears, is heard in windows whose
            mean, weighted by their length, stands for it, as in `unibrivl.load(...).encode_audio`.
        audio_embeds: (E,) or (Q, E) of the matcher's, instead of sounds.
        sampling_rate (`int`, *optional*): of arrays; of files, which say theirs, a check.
        mix (`list[float]`, *optional*): a weight for each sound: all of them become one query. A negative one takes a
            sound away.
        text (*optional*): one for all queries or one for each; it is added to the sound: "at night".
        text_weight: the share of the text, up to 1, for all or for each; a negative one takes it away.
        windows (`bool`): a query for each window of a sound that is not silent, with its time: a storyboard.
        volume (*optional*): decibels: one sound at several gains, a query for each. Where the matcher's preparation
            would make all of them equally loud again, it is done once, for the sound as it is.
    """
    modes = [name for name, used in (("mix", mix), ("windows", windows), ("volume", volume)) if given(used)]
    if len(modes) > 1:
        raise ValueError(f"{' and '.join(modes)} cannot be used together: make a call for each")
    if (audio is None) == (audio_embeds is None):
        raise ValueError("pass audio= or audio_embeds=, one of the two")
    told: dict[str, Any] = {"sampling_rate": sampling_rate, "mix": None, "text": None, "windows": bool(windows)}
    if audio_embeds is not None:
        if modes and modes != ["mix"]:
            raise ValueError(f"{modes[0]}= needs samples, and audio_embeds are already encoded: pass audio=")
        raw_QE = given_embeds(matcher, audio_embeds)
        told["audio_embeds"] = raw_QE  # as they came: made of length one twice they would change in the last bit
        query = Query(unit(raw_QE, "audio_embeds"), [None] * len(raw_QE), None, told)
    else:
        query = heard(matcher, as_sounds(matcher, audio, sampling_rate), windows, volume, told)
    if mix is not None:
        query = mixed(query, mix)
    if text is not None:
        query = with_text(matcher, query, text, text_weight)
    return query


def given(value: Any) -> bool:
    return value is not None and value is not False


def given_embeds(matcher: Any, embeds: Any) -> torch.Tensor:
    """(Q, E), what the caller has encoded already."""
    embeds = getattr(embeds, "vectors", embeds)  # an Embeddings of ours
    embeds_QE = torch.atleast_2d(torch.as_tensor(np.asarray(embeds) if isinstance(embeds, list) else embeds)).float()
    if embeds_QE.dim() != 2 or 0 in embeds_QE.shape:
        raise ValueError(
            f"audio_embeds have the shape {tuple(embeds_QE.shape)}: pass (queries, numbers), at least one"
        )
    blank = torch.full((1, 3, 64, 64), 0.5, device=getattr(matcher, "device", None))
    width = matcher.encode_image(blank).shape[-1]
    if embeds_QE.shape[-1] != width:
        raise ValueError(
            f"audio_embeds have {embeds_QE.shape[-1]} numbers and pictures of this matcher {width}: encode the sounds "
            "with the same model, in the same space"
        )
    return embeds_QE.to(blank.device)


def heard(matcher: Any, sounds: list[Sound], windows: bool, volume: Any, told: dict[str, Any]) -> Query:
    for sound in sounds:
        check_not_silent(sound)
    told["sounds"] = [sound.told() for sound in sounds]
    if volume is not None:
        return swept(matcher, sounds, volume, told)
    if not windows:
        embeds_QE = embed_sounds(matcher, sounds)
        return Query(unit(embeds_QE, "the sounds' embeddings"), [sound.hash for sound in sounds], None, told)
    if len(sounds) > 1:
        raise ValueError(f"windows=True makes a storyboard of one sound, and there are {len(sounds)}: a call for each")
    pieces = [one for one in split(sounds[0], longest_window(matcher)) if one.peak > SILENT]
    embeds_QE = embed_sounds(matcher, pieces)
    times = [(piece.start_s, piece.end_s) for piece in pieces]
    return Query(unit(embeds_QE, "the windows' embeddings"), [piece.hash for piece in pieces], times, told)


def check_not_silent(sound: Sound) -> None:
    if sound.peak <= SILENT:
        raise ValueError(
            f"{sound.name} is silent ({sound.seconds:.2f} s, its loudest sample is {sound.peak:g}): nothing in it can "
            "choose a picture. Pass a part that sounds, or turn it up before"
        )


def swept(matcher: Any, sounds: list[Sound], volume: Any, told: dict[str, Any]) -> Query:
    """One sound at several gains. Nothing is clipped: samples beyond 1 stay what they are."""
    gains = [float(gain) for gain in np.atleast_1d(np.asarray(volume, dtype=float))]
    if not gains or not all(map(math.isfinite, gains)):
        raise ValueError(f"volume= takes decibels, such as [-20, 0, 10], got {volume!r}")
    if len(sounds) > 1:
        raise ValueError(f"volume= sweeps one sound, and there are {len(sounds)}: make a call for each")
    told["volume"] = gains
    louder = [sounds[0].at_gain(gain) for gain in gains]
    for one, gain in zip(louder, gains, strict=True):
        if one.peak == 0 or not math.isfinite(one.peak):
            raise ValueError(
                f"{gain:g} dB leaves nothing of {sounds[0].name} that float32 can hold: stay within 120 dB"
            )
    embeds_QE = unit(embed_sounds(matcher, louder), "the sounds' embeddings")
    lowest = float((embeds_QE @ embeds_QE.T).min())
    if len(gains) > 1 and 1 - lowest < HARDLY_HEARD:
        logger.warning(
            f"this matcher hardly hears loudness: from {min(gains):g} to {max(gains):g} dB the sound's embedding "
            f"keeps a cosine of {lowest:.5f}. Its network normalises inside; a mel encoder's does not"
        )
    labels = [f"{gain:+g} dB" if gain else "0 dB" for gain in gains]
    return Query(embeds_QE, [one.hash for one in louder], None, told, labels)


def mixed(query: Query, weights: Sequence[float]) -> Query:
    """All sounds as one query: the sum of their unit vectors by weights, of length one again."""
    weights = numbers_of(weights, "mix")
    if len(weights) != len(query):
        raise ValueError(f"mix= has {len(weights)} weights for {len(query)} sounds: pass one for each")
    if not any(weights):
        raise ValueError("mix= has only zeros, which leave no sound: give at least one weight")
    weights_Q = query.embeds.new_tensor(weights)
    sum_1E = (weights_Q[:, None] * query.embeds).sum(0, keepdim=True)
    check_not_cancelled(sum_1E, float(weights_Q.abs().sum()), "the sounds of mix=")
    joined = hashlib.sha256("".join(one or "" for one in query.hashes).encode()).hexdigest()
    told = {**query.told, "mix": weights}
    return Query(torch.nn.functional.normalize(sum_1E, dim=-1), [joined if all(query.hashes) else None], None, told)


def with_text(matcher: Any, query: Query, text: Any, weight: Any) -> Query:
    """Each query moved towards a text, or away from it."""
    texts = [text] if isinstance(text, str) else list(text)
    if not texts or not all(isinstance(one, str) and one.strip() for one in texts):
        raise ValueError("text= is a string with something in it, or a list with one for each sound")
    if "text" not in getattr(matcher, "kinds", ("text",)) or not hasattr(matcher, "encode_text"):
        raise ValueError(
            f"{getattr(matcher, 'name', 'this matcher')} cannot read, so text= cannot be added to the sound: put the "
            "words into prompt=, or use a matcher with a text tower"
        )
    weights = numbers_of(np.atleast_1d(weight), "text_weight")
    if not all(-1 <= one <= 1 for one in weights):
        raise ValueError(f"text_weight is a share between -1 and 1, got {shown_weight(weights)}")
    if len(query) == 1 and len(texts) > 1:
        query = Query(query.embeds.expand(len(texts), -1), query.hashes * len(texts), None, query.told)
    for values, name in ((texts, "text"), (weights, "text_weight")):
        if len(values) not in (1, len(query)):
            raise ValueError(f"{len(values)} of {name} for {len(query)} sounds: pass one, or one for each")
    distinct = list(dict.fromkeys(texts))
    read_TE = unit(matcher.encode_text(distinct, against="image"), "the text's embedding").to(query.embeds)
    read_QE = read_TE[[distinct.index(one) for one in texts]].expand(len(query), -1)
    share_Q1 = query.embeds.new_tensor(weights).expand(len(query))[:, None]
    sum_QE = (1 - share_Q1) * query.embeds + share_Q1 * read_QE
    check_not_cancelled(sum_QE, 1.0, "a sound and its text")
    told = {**query.told, "text": text if isinstance(text, str) else texts, "text_weight": shown_weight(weights)}
    embeds_QE = torch.nn.functional.normalize(sum_QE, dim=-1)
    return Query(embeds_QE, query.hashes, query.times, told, query.labels)


def numbers_of(values: Any, name: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = [math.nan]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name}= takes finite numbers, got {values!r}")
    return numbers


def check_not_cancelled(sum_QE: torch.Tensor, most: float, what: str) -> None:
    shortest = float(sum_QE.norm(dim=-1).min())
    if shortest <= CANCELLED * most:
        raise ValueError(f"{what} cancel each other by these weights and leave nothing: change one of them")


def unit(embeds_QE: torch.Tensor, what: str) -> torch.Tensor:
    embeds_QE = embeds_QE.float()
    if not bool(torch.isfinite(embeds_QE).all()):
        raise ValueError(
            f"{what} hold NaN or infinity: encode in float32 or bfloat16, and check the matcher's weights"
        )
    if bool((embeds_QE.norm(dim=-1) == 0).any()):
        raise ValueError(f"{what} hold a row of zeros, which has no direction: leave it out")
    return torch.nn.functional.normalize(embeds_QE, dim=-1)


__all__ = ["Query", "encode_query"]
