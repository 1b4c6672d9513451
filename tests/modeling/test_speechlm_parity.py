"""SpeechLM against Microsoft's own outputs (goldens), in both attention implementations and both padding modes."""

from __future__ import annotations

import json

import numpy as np
import parity_speechlm as parity
import pytest
import torch

from unibrivl.convert.speechlm import rename
from unibrivl.modeling.masking_speechlm import sample_spans

# what a golden case holds besides outputs: the inputs, which the harness regenerates or feeds
INPUTS = {"unit_ids", "mask_indices", "selected_indices", "targets_raw"}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", parity.CASES)
def test_golden(case, attention):
    """Every stored output of the original is reproduced within 2e-5, its loss sums within 1e-6 relative."""
    rows = parity.differences(case, attention)
    assert all(row.passed for row in rows), parity.table(rows)
    compared = {row.name.split(" ")[0].removeprefix(f"{case}.") for row in rows}
    assert set(parity.golden(case)) - INPUTS <= compared, "a stored output was not compared"
    assert set(parity.facts[case]["stats"]) <= compared | {"single0", "single1", "short_full"}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", ["base_p_audio", "large_p_audio_2x2"])
def test_exact_padding_gives_the_clips_alone(case, attention):
    """The padded golden batch in exact mode equals the goldens single0 and single1, which never saw padding."""
    name, layers = ("large-P", 2) if "large" in case else ("base-P", None)
    tower, expected = parity.model(name, layers, attention).speechlm, parity.golden(case)
    source, padding = parity.recipe.batch(normalize="large" in case)
    tower.config.padding_mode = "exact"
    try:
        with torch.inference_mode():
            quick = tower(source, (~padding).long())
        padded = tower(source, (~padding).long())  # with gradients: the batch runs padded and masked
    finally:
        tower.config.padding_mode = "fairseq"
    for output in (quick, padded):
        assert output.frame_mask.sum(1).tolist() == [187, 128]
        for row, frames in enumerate((187, 128)):
            alone = output.last_hidden_state[row : row + 1, :frames].detach()
            difference = parity.compare("", parity.slice_like_golden("single0", alone), expected[f"single{row}"], 2e-5)
            assert difference.passed, f"{attention} single{row}: {difference.max_abs:.2e}"


@pytest.mark.parametrize("case", ["base_p_pretrain", "base_h_pretrain"])
def test_pretraining_labels_are_the_goldens(case):
    assert torch.equal(parity.pretrain_labels(case), parity.golden(case)["targets_raw"].long())


@pytest.mark.parametrize("name", list(parity.facts["compute_mask_indices"]["cases"]))
def test_span_sampler_draws_what_fairseq_draws(name):
    case = parity.facts["compute_mask_indices"]["cases"][name]
    seed = int(name.split(".")[0].removeprefix("seed"))
    valid = None if name.endswith("nopad") else case["valid"]
    mask = sample_spans((2, 187), case["mask_prob"], case["mask_length"], np.random.RandomState(seed), valid)
    assert [np.flatnonzero(row).tolist() for row in mask] == case["rows"]


@pytest.mark.parametrize("name", ["base-P", "large-P"])
def test_renaming_is_the_published_key_map(name):
    """The converter's rules equal the key map that was checked as a bijection on the original models."""
    key_map = json.loads((parity.GOLDEN / "state_dicts" / "speechlm_key_map.json").read_text())[name]
    assert set(key_map) == set(parity.original_shapes(name))
    assert {key: rename(key) for key in key_map} == key_map
    assert {key for key, ours in key_map.items() if ours is None} == {
        "unit_encoder.version",
        "unit_encoder.embed_tokens.weight",
    }


def test_full_tensors_have_the_originals_statistics():
    """The goldens are slices; mean, deviation and peak of the whole tensors guard what lies between."""
    pretrained = parity.model("base-P")
    with torch.inference_mode():
        ours = parity._audio(pretrained, normalize=False)
    for name, wanted in parity.facts["base_p_audio"]["stats"].items():
        tensor = ours[name]
        assert list(tensor.shape) == wanted["shape"], name
        assert abs(float(tensor.double().mean()) - wanted["mean"]) < 1e-6, name
        assert abs(float(tensor.double().std(correction=0)) - wanted["std"]) < 1e-5, name
        assert abs(float(tensor.abs().max()) - wanted["absmax"]) < 2e-5, name
