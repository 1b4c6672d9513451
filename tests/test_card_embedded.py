"""The embedded model's card says what was measured, and the folder that is shipped is whole."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from pathlib import Path

import pytest

import unibrivl
from unibrivl.embedded import HERE

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = HERE / "open"
PICTURE = "../docs/images/embedded_open.png"

pytestmark = pytest.mark.skipif(
    not (SHIPPED / "model_index.json").is_file(), reason="the embedded model's weights are not in this checkout"
)


@pytest.fixture
def module():
    """The script that renders cards."""
    spec = importlib.util.spec_from_file_location("card_embedded", ROOT / "benchmarks" / "card_embedded.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(module, variant):
    found = json.loads((module.RESULTS / f"embedded_{variant}.json").read_text(encoding="utf-8"))
    return found, (ROOT / "model_cards" / f"embedded-{variant}.md").read_text(encoding="utf-8")


def test_what_is_not_shipped_has_its_numbers_too(module):
    """Its folder is not here, so that its card cannot be rendered whole."""
    found, written = measured(module, "research")
    lines = [*module.sounds_table(found["sounds"], module.BARS["research"]), *module.pictures_section(found)]
    assert len(lines) > 15 and set(lines) <= set(written.splitlines())


def test_the_card_is_rendered_from_the_results(module):
    variant = "open"
    found, written = measured(module, variant)
    assert written == module.card(
        SHIPPED,
        variant,
        found,
        PICTURE,
        module.results_of("audio_token", variant),
        module.results_of("tables", variant),
    )
    assert f"| {found['sounds']['esc10_labels']['value']:.3f} (" in written


def test_what_is_shipped_is_small_safe_and_under_stated_terms():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    words = [path for path in files if "audio_adapter" in path.parts]  # came later
    assert sum(path.stat().st_size for path in files if path not in words) <= 48_000_000
    assert sum(path.stat().st_size for path in words) <= 4_000_000
    assert {path.suffix for path in files} <= {"", ".json", ".safetensors", ".txt", ".md"}
    terms = (SHIPPED / "LICENSE-WEIGHTS").read_text(encoding="utf-8")
    assert "CC BY-SA 4.0" in terms and "variant open" in terms
    for closed in ("ImageNet", "-NC", "emojitwo"):
        assert closed.lower() not in terms.lower(), closed


def test_it_is_the_model_that_loads(monkeypatch):
    monkeypatch.delenv("UNIBRIVL_EMBEDDED", raising=False)
    assert unibrivl.embedded() == SHIPPED
    labels = json.loads((SHIPPED / "labels.json").read_text(encoding="utf-8"))
    banks = json.loads((SHIPPED / "model_index.json").read_text(encoding="utf-8"))["label_banks"]
    assert {"dog", "rooster", "seven"} <= set(labels) and {"photo", "drawing"} == set(banks)


def test_its_sounds_are_words():
    """What is read of "a photo of <audio>" is nearest to what is read of the sound's own label."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    from unibrivl.cli.demo_sounds import demo_sound
    from unibrivl.pipelines import AudioTokenPipeline

    pipe = AudioTokenPipeline.from_pretrained(SHIPPED)
    nouns = ["a rooster", "a dog", "a clock", "a helicopter", "rain", "a person sneezing"]

    def read(prompt, audio=None):
        call = {"prompt": prompt}
        with pipe.hearing(call, audio=audio) if audio is not None else contextlib.nullcontext():
            return pipe.encode_prompt(call["prompt"], "cpu", 1, False)[0].flatten(1)

    with torch.no_grad():
        labels_LE = torch.cat([read(f"a photo of {noun}") for noun in nouns])
        for sound, noun in {"rooster": "a rooster", "helicopter": "a helicopter", "ticking clock": "a clock"}.items():
            found_1E = read("a photo of <audio>", demo_sound(sound))
            nearest = torch.nn.functional.cosine_similarity(found_1E, labels_LE).argmax()
            assert nouns[nearest] == noun, sound
