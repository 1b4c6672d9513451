"""The first tab, or the whole page: a sound makes pictures, ranked by how well they fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unibrivl.app import fields, markup
from unibrivl.app.drawing import FEWEST_STEPS, MOST_CANDIDATES, MOST_SEED, MOST_STEPS
from unibrivl.app.studio import LEAST_DB, MOST_DB, Studio

NOTHING_YET = "Choose a sound, then press the button."
MODEL: dict[str, Any] = {  # of events that use the model: they wait for each other
    "concurrency_limit": 1,
    "concurrency_id": "model",
    "trigger_mode": "once",
    "api_visibility": "private",
}


def draw_tab(gr: Any, studio: Studio) -> list[Any]:
    """Builds it where Gradio is building; returns the fields that hold uploads."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320, elem_id="question", elem_classes=["question"]):
            first = fields.sound(gr, "first")
            bank = gr.Radio(
                [(name.capitalize(), name) for name in studio.banks],
                value=next(iter(studio.banks), None), label="Draw as", elem_id="bank",
                visible=len(studio.banks) > 1,
            )  # fmt: skip
            gain = gr.Slider(
                LEAST_DB, MOST_DB, value=0, step=1, label="Volume (decibels)", elem_id="gain", buttons=[],
                info="The sound is turned up or down before it is heard. 0 leaves it as it is.",
            )  # fmt: skip
            button = gr.Button("Draw", variant="primary", size="lg", elem_id="draw")
            with gr.Accordion("Mix in a second sound", open=False, elem_id="mix"):
                second = fields.sound(gr, "second", "Second sound")
                share = gr.Slider(
                    0, 100, value=50, step=5, label="Share of the second sound (percent)", elem_id="share",
                    buttons=[],
                )  # fmt: skip
            with gr.Accordion("More settings", open=False, elem_id="more"):
                count = gr.Slider(1, MOST_CANDIDATES, value=4, step=1, label="Pictures", elem_id="count", buttons=[])
                steps = gr.Slider(
                    FEWEST_STEPS, MOST_STEPS, value=20, step=1, label="Steps (more take longer)", elem_id="steps",
                    buttons=[],
                )  # fmt: skip
                seed = gr.Number(
                    value=0, precision=0, minimum=0, maximum=MOST_SEED, label="Seed", elem_id="seed",
                    info="The same sound, settings and seed give the same pictures.",
                )  # fmt: skip
        with gr.Column(scale=6, min_width=320, elem_id="answer", elem_classes=["answer"]):
            status = gr.HTML(markup.status(NOTHING_YET), elem_id="status", elem_classes=["status"])
            with gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=240):
                    best = gr.HTML(fields.EMPTY, elem_id="best", elem_classes=["shown"])
                with gr.Column(scale=4, min_width=240):
                    heard = gr.HTML("", elem_id="heard")
            candidates = gr.HTML("", elem_id="candidates", elem_classes=["shown-too"])
            found = gr.HTML("", elem_id="found", visible=studio.folder is not None)

    def press(*given: Any, progress: Any = gr.Progress()) -> Iterator[tuple[Any, ...]]:  # noqa: B008
        names = ("first", "second", "bank", "gain_db", "percent", "candidates", "steps", "seed")
        wanted = dict(zip(names, given, strict=True))
        for answer in studio.answer(
            **wanted, watch=lambda step, of: progress((step, of), desc="Drawing", unit="steps")
        ):
            parts = (answer.status, answer.best, answer.heard, answer.candidates, answer.found)
            yield tuple(gr.skip() if part is None else part for part in parts)

    button.click(
        press,
        inputs=[first, second, bank, gain, share, count, steps, seed],
        outputs=[status, best, heard, candidates, found],
        show_progress="full",
        show_progress_on=[best],
        **MODEL,
    )
    return [first, second]


__all__ = ["MODEL", "draw_tab"]
