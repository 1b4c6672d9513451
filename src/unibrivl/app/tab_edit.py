"""A tab: a picture that a sound changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unibrivl.app import fields
from unibrivl.app.changing import Settings
from unibrivl.app.tab_draw import MODEL
from unibrivl.app.workshop import Workshop

LEAD = (
    "<p>A sound changes a picture, and what the sound does not speak of stays. Say what the picture shows; the word "
    "<code>&lt;audio&gt;</code> of the prompt stands for the sound. Without a picture both are drawn together.</p>"
)
NOTHING_YET = "Choose a sound, and a picture if you like, then press the button."
BEFORE = "a photo of a dog"
PROMPT = "a photo of <audio>"


def edit_tab(gr: Any, workshop: Workshop) -> list[Any]:
    """Builds it where Gradio is building; returns the fields that hold uploads."""
    gr.HTML(LEAD, elem_classes=["lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320, elem_id="edit-question", elem_classes=["question"]):
            sound = fields.sound(gr, "edit-sound")
            picture = fields.picture(gr, "edit-picture", "Picture (optional)")
            source = fields.text(gr, "edit-source", "What is in the picture", BEFORE, "Before the change.")
            prompt = fields.text(gr, "edit-prompt", "Prompt", PROMPT, "After the change, with the sound as a word.")
            button = gr.Button("Change", variant="primary", size="lg", elem_id="edit-press")
            how = fields.settings(gr, "edit-", "Way of changing", workshop.methods, Settings.places, Settings.strength)
        shown = fields.shown(gr, "edit-", NOTHING_YET)

    def press_edit(
        clip: Any,
        seen: Any,
        was: Any,
        asked: Any,
        *values: Any,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple[Any, ...]]:
        def watch(step: int, of: int) -> None:
            progress((step, of), desc="Drawing", unit="steps")

        for answer in workshop.edit(clip, seen, was, asked, dict(zip(how, values, strict=True)), watch):
            parts = (answer.status, answer.best, answer.heard)
            yield tuple(gr.skip() if part is None else part for part in parts)

    button.click(
        press_edit,
        inputs=[sound, picture, source, prompt, *how.values()],
        outputs=[shown.status, shown.best, shown.heard],
        show_progress="full",
        show_progress_on=[shown.best],
        **MODEL,
    )
    return [sound, picture]


__all__ = ["edit_tab"]
