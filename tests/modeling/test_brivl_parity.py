"""BriVL against its own code's outputs (goldens), in both attention implementations, stage by stage."""

from __future__ import annotations

import parity_brivl as parity
import pytest
import torch

QUICK = [case for case in parity.CASES if "b7" not in case]
INPUTS = {"boxes", "mask", "input_ids"}  # what a golden holds besides outputs


def check(case, attention):
    rows = parity.differences(case, attention)
    assert all(row.passed for row in rows), parity.table(rows)
    compared = {row.name.split(" ")[0].removeprefix(f"{case}.") for row in rows}
    stored, facts = parity.golden(case)
    assert set(stored) - INPUTS <= compared, "a stored output was not compared"
    assert set(facts["stats"]) <= compared, "a stored statistic was not compared"
    embedding = parity.outputs(case, attention)[0]["embedding"]
    assert abs(float(embedding[0] @ embedding[1]) - facts["cos01"]) < 1e-5
    torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", QUICK)
def test_golden(case, attention):
    """Stored outputs within the limits, statistics of every stage within 1e-5 of their unit, the same likeness."""
    check(case, attention)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_golden_of_b7(attention):
    """The papers' CNN: 233 million weights to draw."""
    check("vision_b7_360_grid", attention)


def test_the_two_attentions_are_two():
    """Only eager gives attention weights, so the cases above did not run one implementation twice."""
    _, stored, _, mask = parity.outputs("text_base_L32", "eager")
    weights = parity.tower("text_base_L32", "eager")(stored["input_ids"], mask, output_attentions=True).attentions
    assert [weight.shape[1:] for weight in weights] == [(4, 32, 32)] * 4
    model = parity.tower("text_base_L32", "sdpa")
    assert {model.config._attn_implementation, model.backbone.config._attn_implementation} == {"sdpa"}


def test_regions_by_default_are_the_golden_grid():
    """The 6 x 6 cells and the whole picture, made by the tower, equal the boxes that the original was given."""
    stored, facts = parity.golden("vision_b5_360_grid")
    with torch.inference_mode():
        embedding = parity.tower("vision_b5_360_grid")(parity.picture_batch(facts)[:1]).projection
    assert (embedding - stored["embedding_raw"][:1]).abs().max() < parity.EMBEDDING_LIMIT


def test_a_text_depends_on_its_padding_as_in_the_original():
    """The same twelve tokens padded to 80 and to 32: the cosine that the original gives."""
    embeddings = []
    for case in ("text_base_L80", "text_base_L32"):
        ours, *_ = parity.outputs(case)
        embeddings.append(ours["embedding"][1])
    tokens = [parity.golden(case)[0]["input_ids"][1, :12] for case in ("text_base_L80", "text_base_L32")]
    assert torch.equal(*tokens)
    assert abs(float(embeddings[0] @ embeddings[1]) - 0.9727135896682739) < 1e-5


@pytest.mark.parametrize("mistake, row", [("x and y swapped", 0), ("mask forgotten", 1)])
def test_the_golden_notices(mistake, row):
    """A plausible mistake moves the embedding by more than a thousand times the limit."""
    stored, facts = parity.golden("vision_b5_380_boxes")
    boxes, mask = stored["boxes"][row : row + 1], stored["mask"][row : row + 1]
    if row == 0:
        boxes = boxes[..., [1, 0, 3, 2]]
    else:
        mask = torch.ones_like(mask)
    with torch.inference_mode():
        picture = parity.picture_batch(facts)[row : row + 1]
        embedding = parity.tower("vision_b5_380_boxes")(picture, boxes, mask).projection
    assert (embedding - stored["embedding_raw"][row]).abs().max() > 1000 * parity.EMBEDDING_LIMIT
