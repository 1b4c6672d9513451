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

from unibrivl.app.archive import Archive
from unibrivl.app.guard import Guard
from unibrivl.app.salon import Salon
from unibrivl.app.studio import Studio
from unibrivl.app.tab_draw import draw_tab
from unibrivl.app.tab_edit import edit_tab
from unibrivl.app.tab_find import find_tab
from unibrivl.app.tab_say import say_tab
from unibrivl.app.tab_style import style_tab
from unibrivl.app.tab_why import why_tab
from unibrivl.app.uploads import Uploads
from unibrivl.app.witness import Witness
from unibrivl.app.workshop import Workshop
from unibrivl.utils import require

TITLE = "A sound makes a picture"
SILENT_ENVIRONMENT = {  # Gradio and the Hub's client ask these before they talk to anybody
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
KEPT_S = 3600  # uploads of a page that was left open without a word go after an hour
SWEEP_S = 300


def build(
    studio: Studio,
    uploads: Uploads,
    workshop: Workshop | None = None,
    salon: Salon | None = None,
    archive: Archive | None = None,
    witness: Witness | None = None,
) -> Any:
    """The page as Gradio's Blocks, ready for `launch`.

    Args:
        workshop (*optional*): what changes pictures by sounds; without one there are no tabs for it.
        salon (*optional*): what ranks pictures by spoken sentences; without one there is no tab for it.
        archive (*optional*): an index to be searched; without one there is no tab for it.
        witness (*optional*): what says why a score is what it is; without one there is no tab for it.
    """
    gr = require("gradio", "app", "the web page")
    with gr.Blocks(title=f"{TITLE} - unibrivl", analytics_enabled=False, delete_cache=(SWEEP_S, KEPT_S)) as page:
        gr.HTML(
            f"<h1>{TITLE}</h1><p>Choose a sound or record one ({studio.limits.told()}). The model says what it hears, "
            "draws it, and ranks the pictures by how well they fit. Sounds stay on the machine it runs on.</p>",
            elem_id="intro",
        )
        if workshop is salon is archive is witness is None:
            holding = draw_tab(gr, studio)
        else:
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab("Draw a sound", render_children=True):
                    holding = draw_tab(gr, studio)
                if workshop is not None:
                    with gr.Tab("Edit a picture", render_children=True):
                        holding += edit_tab(gr, workshop)
                    with gr.Tab("Style", render_children=True):
                        holding += style_tab(gr, workshop)
                if salon is not None:
                    with gr.Tab("Say it", render_children=True):
                        holding += say_tab(gr, salon)
                if archive is not None:
                    with gr.Tab("Find", render_children=True):
                        holding += find_tab(gr, archive)
                if witness is not None:
                    with gr.Tab("Why", render_children=True):
                        holding += why_tab(gr, witness)

        def held(request: Any, *paths: Any) -> None:
            uploads.hold(visitor_of(request), paths)

        def left(request: Any) -> None:
            uploads.leave(visitor_of(request))

        held.__annotations__["request"] = left.__annotations__["request"] = gr.Request  # Gradio passes it by its type
        gr.on(
            [one.change for one in holding], held, inputs=holding, outputs=None, queue=False,
            show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        page.unload(left)
    return page


def visitor_of(request: Any) -> str:
    return str(getattr(request, "session_hash", None))


@contextmanager
def served(
    studio: Studio,
    host: str = "127.0.0.1",
    port: int | None = None,
    workshop: Workshop | None = None,
    salon: Salon | None = None,
    archive: Archive | None = None,
    witness: Witness | None = None,
) -> Iterator[str]:
    """The page while the context lasts: its address. Uploads live in a folder that goes with it.

    Args:
        host: an address of this machine; loopback unless others shall see the page.
        port (*optional*): a free one from 7860 on if None.
        workshop, salon, archive, witness (*optional*): see `build`.
    """
    with tempfile.TemporaryDirectory(prefix="unibrivl-page-") as folder, environment(folder):
        gr = require("gradio", "app", "the web page")
        from starlette.middleware import Middleware

        page = build(studio, Uploads(folder), workshop, salon, archive, witness)
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
