"""The small captioner's card says what was measured, and that it listens."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
CARD = BENCHMARKS.parent / "model_cards" / "embedded-captioner.md"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    spec = importlib.util.spec_from_file_location("caption_small", BENCHMARKS / "caption_small.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_card_is_rendered_from_the_results(module):
    found, ears = (json.loads(path.read_text(encoding="utf-8")) for path in (module.RESULTS, module.EARS))
    written = CARD.read_text(encoding="utf-8")
    assert written == module.card(found, ears)
    for sample in found["runs"]["both"]["samples"]:
        assert f"| {sample['label']} | {sample['caption']} |" in written
    assert f"{found['runs']['both']['scores']['things']['named']['value']:.3f} (" in written


def test_what_it_says_follows_from_the_sound(module):
    scores = json.loads(module.RESULTS.read_text(encoding="utf-8"))["runs"]["both"]["scores"]
    for row in scores.values():
        assert row["named"]["low"] > 3 * row["named_shuffled"] and row["cider"] > 2 * row["cider_shuffled"]


def test_captions_in_another_order_are_as_good_as_chance(module):
    labels = ["dog", "rain", "rooster", "two"]
    right = [label for label in labels for _ in range(10)]
    found = module.measured([module.sentences(label)[0] for label in right], right, labels)
    assert found["named"]["value"] == 1 == found["word_for_word_as_taught"] and found["distinct"] == 4
    assert found["named_shuffled"] == pytest.approx(1 / 4, abs=0.02) and found["cider_shuffled"] < found["cider"] / 2
