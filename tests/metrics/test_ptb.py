"""The tokenizer against Stanford's program: the goldens, its recorded answers to hard texts, and Java where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibrivl.metrics.meteor import STANFORD_JAR, NotAvailable, java_folder, java_tokenize
from unibrivl.metrics.ptb import REMOVED, ptb_tokenize, tokenize_one

GOLDEN = Path(__file__).parent.parent / "golden"
EVALUATION = json.loads((GOLDEN / "evaluation.json").read_text())
TOKENS = json.loads((GOLDEN / "metrics" / "peers.json").read_text())["tokens"]


def test_the_goldens():
    assert ptb_tokenize(EVALUATION["ptb_tokenize"]["input"]) == EVALUATION["ptb_tokenize"]["expected"]


def test_the_captions_of_the_goldens():
    captions = EVALUATION["captions"]
    for key, text in captions["input"]["candidates"].items():
        assert ptb_tokenize([text]) == [captions["expected"]["tokenized_candidates"][key]]
        assert ptb_tokenize(captions["input"]["references"][key]) == captions["expected"]["tokenized_references"][key]


@pytest.mark.parametrize(("text", "expected"), TOKENS, ids=[str(number) for number in range(len(TOKENS))])
def test_hard_texts_as_stanfords_program_cuts_them(text, expected):
    assert ptb_tokenize([text]) == [expected]


def test_stanfords_program_itself():
    try:
        java_folder("tokenizer", STANFORD_JAR)
    except (ImportError, NotAvailable) as reason:
        pytest.skip(str(reason))
    texts = [text for text, _ in TOKENS] + ["", "two\nlines", "the last one."]
    assert java_tokenize(texts) == ptb_tokenize(texts)


@given(st.text(alphabet="ab C.,'\"-!?()/&5:$ \n", max_size=40))
def test_any_text_becomes_lower_case_tokens_with_single_spaces(text):
    (tokens,) = ptb_tokenize([text])
    assert tokens == tokens.lower() == " ".join(tokens.split())
    assert not REMOVED & set(tokens.split())


@given(st.lists(st.sampled_from("A dog barks, and Rain cannot st. fall x miss Mass. falls".split()), max_size=8))
def test_the_short_way_is_the_long_way(words):
    """Plain captions take a way of their own; a sign that vanishes sends them along the other."""
    text = " ".join(words)
    assert tokenize_one(text) == tokenize_one('" ' + text)


@given(st.text(max_size=40))
def test_no_text_is_too_strange(text):
    assert isinstance(tokenize_one(text), str)


def test_one_string_is_not_a_list():
    with pytest.raises(ValueError, match="list of captions"):
        ptb_tokenize("a dog barks")


def test_nothing_stays_nothing():
    assert ptb_tokenize([]) == []
    assert ptb_tokenize(["", " \n", "...", "\U0001f600"]) == ["", "", "", ""]
