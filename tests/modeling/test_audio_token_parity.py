"""AudioToken's embedder: the attentive adapter is the original's, to the goldens' tolerances."""

from __future__ import annotations

import json

import parity_audio_token as parity
import pytest
import torch

# eleven million weights to draw for the second
CASES = [parity.CASES[0], pytest.param(parity.CASES[1], marks=pytest.mark.slow)]


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    rows = parity.differences(case)
    assert len(rows) == 5
    assert all(row.passed for row in rows), parity.table(rows)


@pytest.mark.parametrize("case", CASES)
def test_as_many_weights_as_the_original(case):
    listed = json.loads((parity.GOLDEN / "state_dicts" / "audiotoken.json").read_text())
    assert parity.adapter(case).num_parameters() == listed[f"FGAEmbedder(2304,{case}).__nparams__"]


def test_two_passes_are_one():
    """The original leaves dropout on in evaluation, and its two passes differ by 6.6 %."""
    adapter, features = parity.adapter("768"), parity.features()
    with torch.no_grad():
        first, second = (adapter(features).words["text_encoder"] for _ in range(2))
    assert torch.equal(first, second)
