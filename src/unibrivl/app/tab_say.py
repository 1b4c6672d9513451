"""A tab: a spoken sentence finds pictures of the folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unibrivl.app import fields, markup
from unibrivl.app.answers import Answer
from unibrivl.app.salon import Salon
from unibrivl.app.tab_draw import MODEL

LEAD = "<p>Say what you look for, and the pictures of the folder are ranked by how well they fit. {how}</p>"
BOTH = (
    "What you say counts twice: by the words that are written down, and by the voice itself. Scores are cosines: of "
    "both together, and of each alone."
)
READ = "What you say is written down, and its words count. Scores are cosines."
ALONE = "This model writes nothing down, so it listens to the voice alone. Scores are cosines."
NOTHING_YET = "Say something or choose a file, then press the button."
EMPTY = '<p class="empty">The pictures will be here.</p>'


def say_tab(gr: Any, salon: Salon) -> list[Any]:
    """Builds it where Gradio is building; returns the fields that hold uploads."""
    gr.HTML(LEAD.format(how=lead(salon)), elem_classes=["lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320, elem_id="say-question", elem_classes=["question"]):
            sound = fields.sound(gr, "say-sound", "Spoken sentence")
            button = gr.Button("Find pictures", variant="primary", size="lg", elem_id="say-press")
            words = fields.text(
                gr, "say-words", "What was said", "", "Was it misunderstood? Correct it, and rank again.",
                visible=salon.reads,
            )  # fmt: skip
            again = gr.Button("Rank again with these words", elem_id="say-again", visible=salon.reads)
        with gr.Column(scale=6, min_width=320, elem_id="say-answer", elem_classes=["answer"]):
            status = gr.HTML(markup.status(NOTHING_YET), elem_id="say-status", elem_classes=["status"])
            heard = gr.HTML("", elem_id="say-heard", elem_classes=["heard-part"])
            found = gr.HTML(EMPTY, elem_id="say-best", elem_classes=["shown"])

    def shown(answers: Iterator[Answer]) -> Iterator[tuple[Any, ...]]:
        for answer in answers:
            parts = (answer.status, answer.heard, answer.found, answer.words)
            yield tuple(gr.skip() if part is None else part for part in parts)

    def press_say(clip: Any) -> Iterator[tuple[Any, ...]]:
        yield from shown(salon.find(clip))

    def press_again(clip: Any, said: Any) -> Iterator[tuple[Any, ...]]:
        yield from shown(salon.again(clip, said))

    how = {
        "outputs": [status, heard, found, words],
        "show_progress": "full",
        "show_progress_on": [found],
        **MODEL,
    }
    button.click(press_say, inputs=[sound], **how)
    if salon.reads:
        gr.on([again.click, words.submit], press_again, inputs=[sound, words], **how)
        # what was said in one sound is not said in the next
        sound.change(lambda: "", None, words, queue=False, show_progress="hidden", api_visibility="private")
    return [sound]


def lead(salon: Salon) -> str:
    """By what this model ranks."""
    if not salon.reads:
        return ALONE
    return BOTH if len(salon.embedder.matcher.channels) > 1 else READ


__all__ = ["say_tab"]
