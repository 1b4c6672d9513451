"""Fields that several tabs of the page have: a sound, a picture, the words that come of a press, and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unibrivl.app import markup
from unibrivl.app.changing import MOST_GUIDANCE, MOST_WEIGHT, Settings
from unibrivl.app.drawing import FEWEST_STEPS, MOST_SEED, MOST_STEPS

EMPTY = '<p class="empty">The picture will be here.</p>'
PERCENT = {"minimum": 0, "maximum": 100, "step": 5}


def sound(gr: Any, name: str, label: str = "Sound", **how: Any) -> Any:
    return gr.Audio(label=label, sources=["upload", "microphone"], type="filepath", elem_id=name, buttons=[], **how)


def picture(gr: Any, name: str, label: str, **how: Any) -> Any:
    """A picture as the visitor's own file: Gradio would open it, and say what is wrong in words of its own."""
    field = gr.Image(
        label=label, sources=["upload"], type="filepath", elem_id=name, buttons=[], height=220,
        alt_text="The picture you have chosen", **how,
    )  # fmt: skip
    field.preprocess = lambda payload: getattr(payload, "path", None)
    return field


def text(gr: Any, name: str, label: str, value: str, info: str, **how: Any) -> Any:
    return gr.Textbox(value=value, label=label, info=info, elem_id=name, lines=1, max_lines=3, **how)


@dataclass(frozen=True)
class Shown:
    """The parts of the page that an answer fills."""

    status: Any
    best: Any
    heard: Any


def shown(gr: Any, prefix: str, nothing_yet: str) -> Shown:
    """Where the answer of a tab is shown, beside what was asked."""
    with gr.Column(scale=6, min_width=320, elem_id=f"{prefix}answer", elem_classes=["answer"]):
        status = gr.HTML(markup.status(nothing_yet), elem_id=f"{prefix}status", elem_classes=["status"])
        best = gr.HTML(EMPTY, elem_id=f"{prefix}best", elem_classes=["shown"])
        heard = gr.HTML("", elem_id=f"{prefix}heard", elem_classes=["heard-part"])
    return Shown(status, best, heard)


def settings(
    gr: Any, prefix: str, ways: str, methods: dict[str, str], places: float, strength: float
) -> dict[str, Any]:
    """How a picture is changed: fields by the names of `Settings`.

    Args:
        ways: the label of the methods.
        methods: what this base can do -> what it is called.
        places, strength: shares that the fields begin with.
    """
    fields: dict[str, Any] = {
        "method": gr.Radio(
            [(words, name) for name, words in methods.items()], value=next(iter(methods)), label=ways,
            elem_id=f"{prefix}method",
        ),
        "strength": slider(
            gr, f"{prefix}strength", "How much may change (percent)", round(100 * strength), PERCENT, visible=False
        ),
    }  # fmt: skip
    with gr.Accordion("More settings", open=False, elem_id=f"{prefix}more"):
        kept = "Steps that keep"
        fields |= {
            "weight": slider(
                gr, f"{prefix}weight", "How strongly the sound counts", 1.0, scale(0, MOST_WEIGHT, 0.1),
                info="1 is the sound as it is, 0 an average word.",
            ),
            "words": slider(
                gr, f"{prefix}words", f"{kept} what words look at (percent)", round(100 * Settings.words), PERCENT
            ),
            "places": slider(gr, f"{prefix}places", f"{kept} the layout (percent)", round(100 * places), PERCENT),
            "blend": gr.Checkbox(
                False, label="Change only where the sound belongs", elem_id=f"{prefix}blend",
            ),
            "guidance": slider(
                gr, f"{prefix}guidance", "Guidance", Settings.guidance, scale(1, MOST_GUIDANCE, 0.5),
                info="How strictly the words are followed.",
            ),
            "steps": slider(
                gr, f"{prefix}steps", "Steps (more take longer)", Settings.steps, scale(FEWEST_STEPS, MOST_STEPS, 1)
            ),
            "seed": gr.Number(
                value=0, precision=0, minimum=0, maximum=MOST_SEED, label="Seed", elem_id=f"{prefix}seed",
                info="The same sound, picture, settings and seed give the same picture.",
            ),
        }  # fmt: skip
    keeps = [fields[name] for name in ("words", "places", "blend")]

    def suit(method: str) -> list[Any]:
        return [gr.update(visible=method == "sdedit"), *[gr.update(visible=method == "p2p")] * len(keeps)]

    fields["method"].change(
        suit, fields["method"], [fields["strength"], *keeps], queue=False, show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip
    return fields


def scale(minimum: float, maximum: float, step: float) -> dict[str, float]:
    return {"minimum": minimum, "maximum": maximum, "step": step}


def slider(gr: Any, name: str, label: str, value: float, scale: Mapping[str, float], **how: Any) -> Any:
    return gr.Slider(value=value, label=label, elem_id=name, buttons=[], **scale, **how)


__all__ = ["EMPTY", "Shown", "picture", "scale", "settings", "shown", "slider", "sound", "text"]
