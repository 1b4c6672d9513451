"""A tab: which seconds of a sound and which part of a picture made their score."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unibrivl.app import fields
from unibrivl.app.tab_draw import MODEL
from unibrivl.app.witness import Witness

LEAD = (
    "<p>How well do a sound and a picture fit, and why? Parts of both are hidden, one after another, and the score is "
    "watched: what costs most has made it. This takes some seconds.</p>"
)
NOTHING_YET = "Choose a sound and a picture, then press the button."


def why_tab(gr: Any, witness: Witness) -> list[Any]:
    """Builds it where Gradio is building; returns the fields that hold uploads."""
    gr.HTML(LEAD, elem_classes=["lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300, elem_id="why-question", elem_classes=["question"]):
            sound = fields.sound(gr, "why-sound")
            picture = fields.picture(gr, "why-picture", "Picture")
            button = gr.Button("Explain", variant="primary", size="lg", elem_id="why-press")
        shown = fields.shown(gr, "why-", NOTHING_YET)

    def press_why(
        clip: Any,
        seen: Any,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple[Any, ...]]:
        def watch(done: int, of: int, what: str) -> None:
            hidden = "the sound" if what == "sounds" else "the picture"
            progress((done, of), desc=f"Hiding parts of {hidden}", unit="tries")

        for answer in witness.explain(clip, seen, watch):
            parts = (answer.status, answer.best, answer.heard)
            yield tuple(gr.skip() if part is None else part for part in parts)

    button.click(
        press_why,
        inputs=[sound, picture],
        outputs=[shown.status, shown.best, shown.heard],
        show_progress="full",
        show_progress_on=[shown.best],
        **MODEL,
    )
    return [sound, picture]


__all__ = ["why_tab"]
