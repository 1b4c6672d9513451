"""A tab: what somebody says, or a picture, in the style of a sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unibrivl.app import fields
from unibrivl.app.tab_draw import MODEL
from unibrivl.app.workshop import Workshop

LEAD = (
    "<p>What you say is drawn in the style of the sound. With a picture, the picture is drawn anew in that style, and "
    "its form stays: say what it shows.</p>"
)
NOTHING_YET = "Choose a sound and say what to draw, then press the button."
PROMPT = "a photo of a dog"
PLACES, STRENGTH = 0.6, 0.55  # AAI: for styles


def style_tab(gr: Any, workshop: Workshop) -> list[Any]:
    """Builds it where Gradio is building; returns the fields that hold uploads."""
    gr.HTML(LEAD, elem_classes=["lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320, elem_id="style-question", elem_classes=["question"]):
            sound = fields.sound(gr, "style-sound")
            prompt = fields.text(
                gr, "style-prompt", "What to draw", PROMPT, "The sound need not be named: its style comes by itself."
            )
            picture = fields.picture(gr, "style-picture", "Picture to change (optional)")
            button = gr.Button("Draw in this style", variant="primary", size="lg", elem_id="style-press")
            how = fields.settings(gr, "style-", "Way of changing, with a picture", workshop.methods, PLACES, STRENGTH)
        shown = fields.shown(gr, "style-", NOTHING_YET)

    def press_style(
        clip: Any,
        seen: Any,
        asked: Any,
        *values: Any,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple[Any, ...]]:
        def watch(step: int, of: int) -> None:
            progress((step, of), desc="Drawing", unit="steps")

        for answer in workshop.style(clip, seen, asked, dict(zip(how, values, strict=True)), watch):
            parts = (answer.status, answer.best, answer.heard)
            yield tuple(gr.skip() if part is None else part for part in parts)

    button.click(
        press_style,
        inputs=[sound, picture, prompt, *how.values()],
        outputs=[shown.status, shown.best, shown.heard],
        show_progress="full",
        show_progress_on=[shown.best],
        **MODEL,
    )
    return [sound, picture]


__all__ = ["style_tab"]
