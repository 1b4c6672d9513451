"""What is shown, as HTML: pictures with words beside them, tables with headings, nothing unescaped.

Pictures are part of the page (data addresses), so that no file of the server has an address of its own.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from unibrivl.app.changing import Changed
from unibrivl.app.drawing import Drawn, png_of
from unibrivl.app.folder import Found

MOST_LABELS = 5
BY = {"text": "by the words", "e2e": "by the voice", "keywords": "by keywords"}  # channels of a BrewCLIP


def status(words: str, problem: bool = False) -> str:
    """A line that screen readers say when it changes: its place in the page is a live region."""
    if not problem:
        return f'<p class="told">{escape(words)}</p>'
    # the style sheet hides the last sentence where no picture is shown
    return (
        f'<p class="told problem"><strong>Not done.</strong> {escape(words)} '
        '<span class="stale">What you see below is from before.</span></p>'
    )


def best(drawn: Sequence[Drawn], name: str) -> str:
    """The picture that fits best, large, and a way to keep it."""
    first = drawn[0]
    source = address(first.png(), "png")
    return (
        f'<figure class="best"><img src="{source}" alt="{escape(alternative(first, 1, len(drawn)))}">'
        f"<figcaption>{escape(caption(first))} "
        f'<a download="{escape(name)}.png" href="{source}">Save picture</a></figcaption></figure>'
    )


def candidates(drawn: Sequence[Drawn]) -> str:
    """All pictures by rank, with their scores; nothing where there is only one."""
    if len(drawn) == 1:
        return ""
    items = [
        item(address(one.png(), "png"), alternative(one, rank, len(drawn)), rank, one.score, one.prompt or "")
        for rank, one in enumerate(drawn, 1)
    ]
    return ranking(f"All {len(drawn)} pictures by rank and score", items)


def alternative(one: Drawn, rank: int, count: int) -> str:
    """A text for those who do not see the picture. It says what was asked for: what is in it nobody has checked."""
    place = "the best" if rank == 1 else f"number {rank}"
    if one.hidden:
        return f"A black picture, {place} of {count}: the safety checker has hidden it"
    return f"Generated picture, {place} of {count}, asked for as: {one.prompt or 'the sound alone'}"


def caption(one: Drawn) -> str:
    if one.hidden:
        return "The safety checker has hidden this picture."
    words = f"{one.prompt[0].upper()}{one.prompt[1:]}" if one.prompt else "From the sound alone"
    return f"{words}. Score {one.score:+.3f}."


def pair(made: Changed, name: str) -> str:
    """The picture before and after, side by side, and a way to keep the latter; alone where there was none before."""
    figures = []
    if made.before is not None:
        source = address(png_of(made.before), "png")
        text = (
            "Your picture, before the change" if made.was is None else f"Generated picture, asked for as: {made.was}"
        )
        told = "Your picture" if made.was is None else f"{made.was[0].upper()}{made.was[1:]}"
        figures.append(
            f'<figure class="one before"><img src="{source}" alt="{escape(text)}">'
            f"<figcaption><strong>Before.</strong> {escape(told)}. Fit to the sound {made.scores[0]:+.3f}."
            "</figcaption></figure>"
        )
    source = address(made.png(), "png")
    if made.hidden:
        text = told = "The safety checker has hidden this picture"
    else:
        text, told = f"Generated picture, asked for as: {made.asked}", f"{made.asked[0].upper()}{made.asked[1:]}"
    after = "<strong>After.</strong> " if figures else ""
    figures.append(
        f'<figure class="one after"><img src="{source}" alt="{escape(text)}">'
        f"<figcaption>{after}{escape(told)}. Fit to the sound {made.scores[-1]:+.3f}. "
        f'<a download="{escape(name)}.png" href="{source}">Save picture</a></figcaption></figure>'
    )
    return f'<div class="best pair">{"".join(figures)}</div>'


def likeliest(labels: Sequence[tuple[str, float]]) -> str:
    """What it heard, in a sentence; nothing where it has no words."""
    return f"Heard: {labels[0][0]} ({percent(labels[0][1])}). " if labels else ""


def heard(labels: Sequence[tuple[str, float]]) -> str:
    """The likeliest labels, as a table with bars."""
    if not labels:
        return "<h2>What it heard</h2><p>This model has no words for what it hears.</p>"
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td class="number">{percent(chance)}</td>'
        f'<td class="bar" aria-hidden="true"><span style="width:{max(1, round(100 * chance))}%"></span></td></tr>'
        for label, chance in labels[:MOST_LABELS]
    )
    return (
        f'<h2>What it heard</h2><table class="heard"><caption>The likeliest of the {len(labels)} things it knows'
        '</caption><thead><tr><th scope="col">Sound</th><th scope="col" class="number">Probability</th>'
        f'<td class="bar" aria-hidden="true"></td></tr></thead><tbody>{rows}</tbody></table>'
    )


def found(pictures: Sequence[Found]) -> str:
    """Pictures of the folder, the nearest first."""
    items = [
        item(address(one.jpeg(), "jpeg"), f"Picture {rank} of the folder: {one.name}", rank, one.score, one.name)
        for rank, one in enumerate(pictures, 1)
    ]
    return ranking("Nearest pictures of the folder", items)


def understood(transcript: str | None, corrected: bool = False) -> str:
    """What somebody said, in quotes, as it was written down; of a model that writes nothing down, that it does not."""
    if transcript is None:
        return "<h2>What was understood</h2><p>This model writes nothing down: it ranks by the voice alone.</p>"
    if not transcript:
        why = "Nothing was understood. What is ranked by the words is ranked by an empty text."
        return f"<h2>What was understood</h2><p>{why}</p>"
    title = "Your words" if corrected else "What was understood"
    return f'<h2>{title}</h2><p class="said" dir="auto">&ldquo;{escape(transcript)}&rdquo;</p>'


def ranked(pictures: Sequence[Found], of: int) -> str:
    """Pictures of the folder by what was said, the nearest first, with each channel's own scores.

    Args:
        of (`int`): how many the folder has.
    """
    items = [
        item(
            address(one.jpeg(), "jpeg"), f"Picture {rank} of the folder: {one.name}", rank, one.score, one.name,
            [f"{BY.get(channel, channel)} {score:+.3f}" for channel, score in one.channels.items()],
        )
        for rank, one in enumerate(pictures, 1)
    ]  # fmt: skip
    return ranking(f"The nearest {len(items)} of {of} pictures" if len(items) > 1 else "The nearest picture", items)


def item(source: str, alternative: str, rank: int, score: float, words: str, details: Sequence[str] = ()) -> str:
    """One picture of a ranking; where there are details, the score is that of all together, and they follow it."""
    lines = "".join(f'<span class="detail">{escape(line)}</span>' for line in details)
    scores = f"{score:+.3f}</span>" + (f" together{lines}" if lines else "<br>")
    return (
        f'<li><figure><img src="{source}" alt="{escape(alternative)}"><figcaption><span class="rank">{rank}</span> '
        f'<span class="score">{scores}{escape(words)}</figcaption></figure></li>'
    )


def ranking(title: str, items: Sequence[str]) -> str:
    return f'<h2>{title}</h2><ol class="candidates" role="list">{"".join(items)}</ol>'


def percent(chance: float) -> str:
    return "under 1 %" if chance < 0.01 else f"{100 * chance:.0f} %"


def address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


__all__ = ["best", "candidates", "found", "heard", "likeliest", "pair", "ranked", "status", "understood"]
