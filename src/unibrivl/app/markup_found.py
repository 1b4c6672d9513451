"""What an index has found, as HTML: small pictures, players of sounds, and a card for what cannot be shown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from unibrivl.app.finding import MOST_PLAYED_S, Thing
from unibrivl.app.markup import address

WIDTH, HEIGHT = 192, 64  # of a drawn sound, in its own units


def listed(things: Sequence[Thing], mixed: bool) -> str:
    """All of it, most similar first.

    Args:
        mixed: whether several things were asked for: then how near each of them is, is told too.
    """
    items = "".join(card(thing, rank, mixed) for rank, thing in enumerate(things, 1))
    title = "What was found, most similar first" if len(things) > 1 else "What was found"
    return f'<h2>{title}</h2><ol class="candidates things" role="list">{items}</ol>'


def card(thing: Thing, rank: int, mixed: bool) -> str:
    lines = [f"{name[0].upper()}{name[1:]} {cosine:+.3f}" for name, cosine in thing.parts] if mixed else []
    details = "".join(f'<span class="detail">{escape(line)}</span>' for line in lines)
    when = f'<span class="detail">{escape(seconds(thing))}</span>' if thing.kind == "audio" else ""
    told = f'<span class="name">{escape(thing.name)}</span>{when}'
    scores = f'<span class="score">{thing.score:+.3f}</span>' + (f" together{details}" if details else "")
    return (
        f'<li><figure>{shown(thing, rank)}<figcaption><span class="rank">{rank}</span> {scores}'
        f"{told}</figcaption></figure></li>"
    )


def shown(thing: Thing, rank: int) -> str:
    """The thing itself, or why it cannot be shown."""
    if thing.problem:
        return f'<p class="box lost">{escape(thing.problem)}</p>'
    if thing.kind == "text":
        return f'<p class="box" dir="auto">&ldquo;{escape(thing.name)}&rdquo;</p>'
    if thing.kind == "image":
        text = f"Picture, number {rank}: {thing.name}"
        return f'<img src="{address(thing.content, "jpeg")}" alt="{escape(text)}">'
    source = f"data:audio/wav;base64,{base64.b64encode(thing.content).decode()}"
    label = f"Sound, number {rank}: {thing.name}, {seconds(thing)}"
    return (
        f'<div class="box">{drawn(thing.peaks)}<audio controls preload="metadata" '
        f'controlslist="nodownload noplaybackrate" src="{source}" '
        f'aria-label="{escape(label)}"></audio></div>'
    )


def seconds(thing: Thing) -> str:
    """When in the file the best window is, and what is played of it where that is less."""
    if thing.times is None:
        words, length_s = "whole sound", 0.0
    else:
        begin_s, end_s = thing.times
        words, length_s = f"{begin_s:.1f} to {end_s:.1f} s", end_s - begin_s
    cut = length_s > MOST_PLAYED_S or (thing.times is None and thing.played_s >= MOST_PLAYED_S)
    return f"{words}; the first {MOST_PLAYED_S:g} s are played" if cut and not thing.problem else words


def drawn(peaks: Sequence[float]) -> str:
    """A sound as a line of bars; the player beside it says what there is to say."""
    step, middle = WIDTH / max(len(peaks), 1), HEIGHT / 2
    bars = "".join(
        f"M{step * (place + 0.5):.1f} {middle - max(peak, 0.02) * middle:.1f}v{max(peak, 0.02) * HEIGHT:.1f}"
        for place, peak in enumerate(peaks)
    )
    return (
        f'<svg class="wave" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true" '
        f'focusable="false"><path d="{bars}"/></svg>'
    )


__all__ = ["listed"]
