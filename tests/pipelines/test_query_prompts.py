"""Prompts of sounds: the label bank of the project, banks of others, and the search among them."""

from __future__ import annotations

import json
import string

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

import tiny_diffusion

from unibrivl.modeling import UniBriVLMatcher
from unibrivl.pipelines.label_bank_unibrivl import LABELS, THEMES
from unibrivl.pipelines.prompts_unibrivl import folded, nearest_prompts, read_bank
from unibrivl.pipelines.shares_unibrivl import dealt, shares


@pytest.fixture
def matcher() -> UniBriVLMatcher:
    return UniBriVLMatcher(*tiny_diffusion.matcher(reads="native"))


def queries(count: int = 2, width: int = 44) -> torch.Tensor:
    made = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(made, dim=-1)


def test_the_bank_is_a_few_hundred_things_each_once():
    assert 350 <= len(LABELS) <= 500
    assert len(set(LABELS)) == len(LABELS)
    assert len(THEMES) >= 15


def test_labels_are_plain_phrases():
    allowed = set(string.ascii_lowercase + " '-")
    for label in LABELS:
        assert set(label) <= allowed and label == label.strip(), label
        assert 1 <= len(label.split()) <= 7, label


def test_the_nearest_labels_come_first(matcher):
    matcher.logit_scale = 0.01  # it hesitates, so that each label has one candidate
    found = nearest_prompts(matcher, queries(), 4, 4)
    texts = torch.nn.functional.normalize(matcher.encode_text(list(LABELS), against="audio").detach(), dim=-1)
    cosines = (queries() @ texts.T).numpy()
    for row, prompts in zip(cosines, found, strict=True):
        best = [f"a photo of {LABELS[place]}" for place in np.argsort(-row, kind="stable")[:4]]
        assert prompts == best


def test_the_surer_a_matcher_is_the_fewer_readings_compete(matcher):
    sounds = queries()[:1]
    kinds = []
    for scale in (0.01, 20.0, 1e5):
        matcher.logit_scale = scale
        found = nearest_prompts(matcher, sounds, 7, 5)[0]
        kinds.append((len(found), len(set(found))))
        assert found == sorted(found, key=found.index)  # equal ones stand together, the nearest first
    assert kinds[0] == (7, 5)
    assert kinds[1][0] == 7 and 1 < kinds[1][1] < 5
    assert kinds[2] == (1, 1)  # all candidates for one label


def test_candidates_are_shared_in_proportion_to_probabilities():
    logs = [float(np.log(one)) for one in (0.6, 0.3, 0.1)]
    assert shares(logs, 1) == [1, 0, 0]
    assert shares(logs, 10) == [6, 3, 1]
    assert shares(logs, 100) == [60, 30, 10]
    assert shares([0.0, 0.0], 3) == [2, 1]  # of equal ones the first


def test_a_quarter_at_most_is_for_readings_that_would_get_none():
    sure = [0.0, -50.0, -60.0, -70.0, -80.0]
    assert shares(sure, 7) == [7, 0, 0, 0, 0]
    assert shares(sure, 8) == [7, 1, 0, 0, 0]
    assert shares(sure, 20) == [16, 1, 1, 1, 1]
    assert shares(sure, 100) == [96, 1, 1, 1, 1]


def test_shares_of_fewer_are_parts_of_shares_of_more():
    claims = [7, 4, 4, 1]
    before = dealt(claims, 0)
    assert before == [0, 0, 0, 0]
    for count in range(1, 17):
        now = dealt(claims, count)
        assert sum(now) == count and all(a <= b <= claim for a, b, claim in zip(before, now, claims, strict=True))
        before = now
    assert before == claims


def test_prompts_of_several_sounds_are_shortened_together():
    assert folded([["a", "a", "a", "a"], ["b", "b", "c", "c"]]) == [["a", "a"], ["b", "c"]]
    assert folded([["a", "a", "a", "b"]]) == [["a", "a", "a", "b"]]


def test_a_template_and_a_bank_of_ones_own(matcher):
    matcher.logit_scale = 0.01  # it hesitates
    found = nearest_prompts(matcher, queries(1), 3, 5, ["a dog", "rain"], template="{}, oil on canvas")
    assert set(found[0]) == {"a dog, oil on canvas", "rain, oil on canvas"}
    assert found[0][0] == found[0][1]  # a bank may be smaller than the candidates are many
    with pytest.raises(ValueError, match="one {}"):
        nearest_prompts(matcher, queries(1), 1, 1, template="a photo")


def test_the_bank_is_read_once_as_long_as_the_weights_stay(matcher, monkeypatch):
    asked = []
    original = matcher.encode_text
    monkeypatch.setattr(
        matcher, "encode_text", lambda texts, **how: asked.append(len(texts)) or original(texts, **how)
    )
    bank = ["a dog", "rain"]
    first = nearest_prompts(matcher, queries(), 2, 2, bank)
    assert nearest_prompts(matcher, queries(), 2, 2, bank) == first
    assert asked == [2]
    with torch.no_grad():
        matcher.model.text_model.get_input_embeddings().weight.mul_(1.5)
    nearest_prompts(matcher, queries(), 2, 2, bank)
    assert asked == [2, 2]


def test_a_matcher_that_cannot_read_wants_a_prompt(matcher, monkeypatch):
    monkeypatch.setattr(matcher, "kinds", ("audio", "image"))
    with pytest.raises(ValueError, match="pass prompt="):
        nearest_prompts(matcher, queries(), 2, 2)


def test_a_tokenizer_without_a_lexicon_says_so_and_how_else():
    model, processor = tiny_diffusion.matcher(reads="units")
    processor.unit_tokenizer.lexicon = {}
    with pytest.raises(ValueError, match=r"no lexicon.*pass prompt="):
        nearest_prompts(UniBriVLMatcher(model, processor), queries(), 2, 2)


def test_finished_prompts_are_taken_as_they_are(matcher):
    given = [["a dog in snow", "a dog"], ["rain", "a roof"]]
    assert nearest_prompts(matcher, queries(), 2, 1, given) == given
    assert nearest_prompts(matcher, queries(), 8, 1, given) == given  # each for four
    assert nearest_prompts(matcher, queries(), 1, 1, given) == [["a dog in snow"], ["rain"]]
    assert nearest_prompts(matcher, queries(1), 5, 1, [["a", "b", "c"]]) == [["a", "a", "b", "b", "c"]]
    with pytest.raises(ValueError, match="2 lists of prompts for 3 sounds"):
        nearest_prompts(matcher, queries(3), 2, 2, given)


AUDIOSET = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'
FILES = {
    "bank.txt": ("\ufeff# ours\na dog\n\n  a   dog \nrain\n", ["a dog", "rain"]),
    "bank.json": ('["a dog", "rain"]', ["a dog", "rain"]),
    "audioset.csv": (AUDIOSET, ["Speech", "Male speech, man speaking"]),
    "no_header.csv": (AUDIOSET.split("\n", 1)[1], ["Speech", "Male speech, man speaking"]),
    "vggsound.csv": ("ambulance siren,1050,vehicle\ncar horn,900,vehicle\n", ["ambulance siren", "car horn"]),
    "named.tsv": ("group\tLabel\nx\ta dog\ny\train\n", ["a dog", "rain"]),
    "other_header.csv": ("id,class\n0,a dog\n1,rain\n", ["a dog", "rain"]),
}


@pytest.mark.parametrize("name", FILES)
def test_banks_come_from_files(name, tmp_path):
    content, labels = FILES[name]
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_bank(tmp_path / name, "{}") == {label: label for label in labels}


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("bank.xls", "a", "end in .txt"),
        ("empty.txt", "\n# nothing\n", "no label"),
        ("numbers.csv", "1,2\n3,4\n", "no column of words"),
        ("broken.json", "[", "cannot be read"),
        ("object.json", json.dumps({"a": 1}), "a list of strings"),
    ],
)
def test_a_file_that_is_no_bank_is_refused_by_its_name_alone(name, content, what, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=what) as error:
        read_bank(tmp_path / name)
    assert str(tmp_path) not in str(error.value)
