"""The page in Gradio, and the server that shows it: on this machine only unless told otherwise, and to nobody else.

Nothing leaves the host: no telemetry, no version check, no share link, fonts of the system, and a policy that makes
browsers refuse whatever an extension of the page might load from elsewhere.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from unibrivl.app import markup
from unibrivl.app.drawing import FEWEST_STEPS, MOST_CANDIDATES, MOST_SEED, MOST_STEPS
from unibrivl.app.guard import Guard
from unibrivl.app.studio import LEAST_DB, MOST_DB, Studio
from unibrivl.app.uploads import Uploads
from unibrivl.utils import require

TITLE = "A sound makes a picture"
SILENT_ENVIRONMENT = {  # Gradio and the Hub's client ask these before they talk to anybody
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
KEPT_S = 3600  # uploads of a page that was left open without a word go after an hour
SWEEP_S = 300
NOTHING_YET = "Choose a sound, then press the button."
EMPTY = '<p class="empty">The picture will be here.</p>'
MODEL = "model"  # events with this name wait for each other


def build(studio: Studio, uploads: Uploads) -> Any:
    """The page as Gradio's Blocks, ready for `launch`."""
    gr = require("gradio", "app", "the web page")
    limits = studio.limits
    with gr.Blocks(title=f"{TITLE} - unibrivl", analytics_enabled=False, delete_cache=(SWEEP_S, KEPT_S)) as page:
        gr.HTML(
            f"<h1>{TITLE}</h1><p>Choose a sound or record one ({limits.told()}). The model says what it hears, "
            "draws it, and ranks the pictures by how well they fit. Sounds stay on the machine it runs on.</p>",
            elem_id="intro",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320, elem_id="question"):
                first = gr.Audio(
                    label="Sound", sources=["upload", "microphone"], type="filepath", elem_id="first", buttons=[]
                )
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
                    second = gr.Audio(
                        label="Second sound", sources=["upload", "microphone"], type="filepath", elem_id="second",
                        buttons=[],
                    )  # fmt: skip
                    share = gr.Slider(
                        0, 100, value=50, step=5, label="Share of the second sound (percent)", elem_id="share",
                        buttons=[],
                    )  # fmt: skip
                with gr.Accordion("More settings", open=False, elem_id="more"):
                    count = gr.Slider(
                        1, MOST_CANDIDATES, value=4, step=1, label="Pictures", elem_id="count", buttons=[]
                    )
                    steps = gr.Slider(
                        FEWEST_STEPS, MOST_STEPS, value=20, step=1, label="Steps (more take longer)", elem_id="steps",
                        buttons=[],
                    )  # fmt: skip
                    seed = gr.Number(
                        value=0, precision=0, minimum=0, maximum=MOST_SEED, label="Seed", elem_id="seed",
                        info="The same sound, settings and seed give the same pictures.",
                    )  # fmt: skip
            with gr.Column(scale=6, min_width=320, elem_id="answer"):
                status = gr.HTML(markup.status(NOTHING_YET), elem_id="status")
                with gr.Row(equal_height=False):
                    with gr.Column(scale=5, min_width=240):
                        best = gr.HTML(EMPTY, elem_id="best")
                    with gr.Column(scale=4, min_width=240):
                        heard = gr.HTML("", elem_id="heard")
                candidates = gr.HTML("", elem_id="candidates")
                found = gr.HTML("", elem_id="found", visible=studio.folder is not None)

        def press(*given: Any, progress: Any = gr.Progress()) -> Iterator[tuple[Any, ...]]:  # noqa: B008
            names = ("first", "second", "bank", "gain_db", "percent", "candidates", "steps", "seed")
            wanted = dict(zip(names, given, strict=True))
            for answer in studio.answer(
                **wanted, watch=lambda step, of: progress((step, of), desc="Drawing", unit="steps")
            ):
                parts = (answer.status, answer.best, answer.heard, answer.candidates, answer.found)
                yield tuple(gr.skip() if part is None else part for part in parts)

        def held(one: Any, other: Any, request: Any) -> None:
            uploads.hold(visitor_of(request), (one, other))

        def left(request: Any) -> None:
            uploads.leave(visitor_of(request))

        held.__annotations__["request"] = left.__annotations__["request"] = gr.Request  # Gradio passes it by its type
        gr.on(
            [button.click],
            press,
            inputs=[first, second, bank, gain, share, count, steps, seed],
            outputs=[status, best, heard, candidates, found],
            show_progress="full",
            show_progress_on=[best],
            concurrency_limit=1,
            concurrency_id=MODEL,
            trigger_mode="once",
            api_visibility="private",
        )
        gr.on(
            [first.change, second.change], held, inputs=[first, second], outputs=None, queue=False,
            show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        page.unload(left)
    return page


def visitor_of(request: Any) -> str:
    return str(getattr(request, "session_hash", None))


@contextmanager
def served(studio: Studio, host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """The page while the context lasts: its address. Uploads live in a folder that goes with it.

    Args:
        host: an address of this machine; loopback unless others shall see the page.
        port (*optional*): a free one from 7860 on if None.
    """
    with tempfile.TemporaryDirectory(prefix="unibrivl-page-") as folder, environment(folder):
        gr = require("gradio", "app", "the web page")
        from starlette.middleware import Middleware

        page = build(studio, Uploads(folder))
        page.queue(max_size=studio.limits.queue, default_concurrency_limit=4, api_open=False)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                inbrowser=False,
                show_error=False,
                max_file_size=studio.limits.bytes,
                allowed_paths=[],
                blocked_paths=blocked(folder),
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                ssr_mode=False,
                pwa=False,
                app_kwargs={"middleware": [Middleware(Guard, host=host)]},
                theme=theme(gr),
                css=asset("page.css"),
                head=f"<script>{asset('page.js')}</script>",
            )
            yield address
        finally:
            page.close(verbose=False)


def theme(gr: Any) -> Any:
    """Gradio's plain one in the system's fonts, with small print dark enough to be read."""
    dark, light = "*neutral_600", "*neutral_300"
    plain = gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        font=["system-ui", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
    small = ("block_info_text_color", "block_label_text_color", "block_title_text_color", "body_text_color_subdued")
    return plain.set(**dict.fromkeys(small, dark), **{f"{name}_dark": light for name in small})


def blocked(uploads: str) -> list[str]:
    """Folders Gradio shall serve nothing of, whatever a part of the page asks; the uploads must lie in none."""
    places = [os.path.realpath(place) for place in (os.getcwd(), os.path.expanduser("~"))]
    return [place for place in places if os.path.commonpath([place, os.path.realpath(uploads)]) != place]


def asset(name: str) -> str:
    return files("unibrivl.app").joinpath(name).read_text(encoding="utf-8")


@contextmanager
def environment(folder: str) -> Iterator[None]:
    """The process environment while the page is up: nobody is told of it, uploads go to `folder`."""
    wanted = {**SILENT_ENVIRONMENT, "GRADIO_TEMP_DIR": folder}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


__all__ = ["build", "served"]
