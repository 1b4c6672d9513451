"""The small BrewCLIP's card says what was measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
CARD = BENCHMARKS.parent / "model_cards" / "brewclip-small.md"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    spec = importlib.util.spec_from_file_location("card_brewclip", BENCHMARKS / "card_brewclip.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_card_is_rendered_from_the_results(module):
    found = json.loads(module.RESULTS.read_text(encoding="utf-8"))
    written = CARD.read_text(encoding="utf-8")
    assert written == module.card(found)
    assert f"| both | {found['spoken']['scores']['both']['r1']:.3f} |" in written


def test_the_channel_that_hears_tells_tones_and_the_one_that_reads_does_not(module):
    rows = json.loads(module.RESULTS.read_text(encoding="utf-8"))["tone"]["four"]
    heard, read = ([row["accuracy"] for row in rows[name].values()] for name in ("e2e", "text"))
    assert len(heard) == len(read) == 3
    assert max(read) <= rows["commonest"]
    assert sum(heard) / 3 >= rows["commonest"] + 0.1
