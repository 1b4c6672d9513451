"""The table of engines in the documents is the one that was measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_documents_show_the_table_of_the_results(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    spec = importlib.util.spec_from_file_location("bench_search", ROOT / "benchmarks" / "bench_search.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = json.loads(module.RESULTS.read_text(encoding="ascii"))["rows"]
    assert f"\n\n{module.table(rows)}\n\n" in (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
