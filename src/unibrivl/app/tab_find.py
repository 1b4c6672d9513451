"""A tab: what an index holds that is nearest to a sound, a picture, words, or a mixture of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unibrivl.app import fields, markup
from unibrivl.app.archive import KINDS, MOST_COUNTS, MOST_FOUND, Archive, Asked
from unibrivl.app.tab_draw import MODEL

LEAD = (
    "<p>A sound, a picture, words, or several of them find what is most similar among the {count} files of the index. "
    "Scores are cosines.</p>"
)
NOTHING_YET = "Choose a sound or a picture, or write some words, then press the button."
EMPTY = '<p class="empty">What is found will be here.</p>'
ALL = "all"
SCALES = "Sounds and pictures are seldom scored on one scale: one kind alone is ranked more truly."


def find_tab(gr: Any, archive: Archive) -> list[Any]:
    """Builds it where Gradio is building; returns the fields that hold uploads."""
    hears, sees, reads = (archive.takes(kind) for kind in ("audio", "image", "text"))
    gr.HTML(LEAD.format(count=archive.count), elem_classes=["lead"])
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320, elem_id="find-question", elem_classes=["question"]):
            sound = fields.sound(gr, "find-sound", visible=hears)
            picture = fields.picture(gr, "find-picture", "Picture", visible=sees)
            words = fields.text(gr, "find-words", "Words", "", "Such as: a dog, at night.", visible=reads)
            kind = gr.Radio(
                [("All", ALL), *((KINDS[one], one) for one in archive.kinds)], value=ALL, label="What to find",
                elem_id="find-kind", info=SCALES, visible=len(archive.kinds) > 1,
            )  # fmt: skip
            button = gr.Button("Find", variant="primary", size="lg", elem_id="find-press")
            with gr.Accordion("More settings", open=False, elem_id="find-more"):
                most = fields.slider(gr, "find-most", "How many", 8, fields.scale(1, MOST_FOUND, 1))
                counts = fields.scale(-MOST_COUNTS, MOST_COUNTS, 0.1)
                weights = [
                    fields.slider(gr, f"find-{name}-counts", words_of, 1.0, counts, visible=there, info=info)
                    for name, words_of, there, info in (
                        ("sound", "How much the sound counts", hears, "Below zero is what should not be there."),
                        ("picture", "How much the picture counts", sees, None),
                        ("words", "How much the words count", reads, None),
                    )
                ]
        with gr.Column(scale=6, min_width=320, elem_id="find-answer", elem_classes=["answer"]):
            status = gr.HTML(markup.status(NOTHING_YET), elem_id="find-status", elem_classes=["status"])
            found = gr.HTML(EMPTY, elem_id="find-best", elem_classes=["shown"])

    def press_find(
        clip: Any, seen: Any, said: Any, wanted: Any, count: Any, by_sound: Any, by_picture: Any, by_words: Any
    ) -> Iterator[tuple[Any, ...]]:
        asked = Asked(clip, seen, said, by_sound, by_picture, by_words, None if wanted == ALL else wanted, count)
        for answer in archive.find(asked):
            yield tuple(gr.skip() if part is None else part for part in (answer.status, answer.found))

    gr.on(
        [button.click, words.submit],
        press_find,
        inputs=[sound, picture, words, kind, most, *weights],
        outputs=[status, found],
        show_progress="full",
        show_progress_on=[found],
        **MODEL,
    )
    return [sound, picture]


__all__ = ["find_tab"]
