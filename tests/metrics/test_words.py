"""Word and character error rate: the goldens, jiwer's answers, a literal edit distance, and what normalisers do."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibrivl.metrics import words as words_module
from unibrivl.metrics.words import character_error_rate, normalize_words, whisper_english, word_error_rate

GOLDEN = Path(__file__).parent.parent / "golden"
WER = json.loads((GOLDEN / "evaluation.json").read_text())["wer"]
PEERS = json.loads((GOLDEN / "metrics" / "peers.json").read_text())["words"]


def test_the_goldens():
    rates = word_error_rate(*zip(*WER["input"], strict=True))
    assert [list(pair) for pair in zip(rates.errors, rates.lengths, strict=True)] == (
        WER["expected"]["errors_and_lengths"]
    )
    assert rates.rate == pytest.approx(WER["expected"]["corpus_wer"], abs=1e-6)


def test_random_texts_as_jiwer_counts_them():
    references, hypotheses = ([case[side] for case in PEERS] for side in ("reference", "hypothesis"))
    by_word = word_error_rate(references, hypotheses, "none")
    by_character = character_error_rate(references, hypotheses, "none")
    assert by_word.errors.tolist() == [case["errors"][0] for case in PEERS]
    assert by_character.errors.tolist() == [case["errors"][1] for case in PEERS]


def literal_counts(said, heard):
    """(errors, substitutions, deletions, insertions): fewest errors first, then fewest substitutions."""

    @functools.cache
    def best(i, j):
        if i == 0 or j == 0:
            return (i + j, 0, i, j)
        ways = [np.add(best(i - 1, j), (1, 0, 1, 0)), np.add(best(i, j - 1), (1, 0, 0, 1))]
        ways.append(np.add(best(i - 1, j - 1), (0, 0, 0, 0) if said[i - 1] == heard[j - 1] else (1, 1, 0, 0)))
        return min(tuple(int(n) for n in way) for way in ways)

    return best(len(said), len(heard))


sentences = st.lists(st.sampled_from("a b c d".split()), max_size=7).map(" ".join)


@given(st.lists(st.tuples(sentences.filter(bool), sentences), min_size=1, max_size=5))
def test_counts_as_their_definition_says(pairs):
    references, hypotheses = zip(*pairs, strict=True)
    rates = word_error_rate(references, hypotheses, "none")
    ours = zip(rates.errors, rates.substitutions, rates.deletions, rates.insertions, strict=True)
    for found, (said, heard) in zip(ours, pairs, strict=True):
        assert found == literal_counts(tuple(said.split()), tuple(heard.split()))


@given(st.lists(st.tuples(sentences.filter(bool), sentences), min_size=2, max_size=6), st.integers(1, 40))
def test_the_batches_change_nothing(pairs, cells):
    references, hypotheses = zip(*pairs, strict=True)
    together = word_error_rate(references, hypotheses)
    usual = words_module.CELLS_AT_ONCE
    try:
        words_module.CELLS_AT_ONCE = cells
        split = word_error_rate(references, hypotheses)
    finally:
        words_module.CELLS_AT_ONCE = usual
    assert split.errors.tolist() == together.errors.tolist()
    assert split.substitutions.tolist() == together.substitutions.tolist()


def test_identical_and_empty():
    rates = word_error_rate(["a dog", "a cat sleeps", ""], ["a dog", "", "hm"])
    assert rates.errors.tolist() == [0, 3, 1]
    assert rates.rates[:2].tolist() == [0.0, 1.0]
    assert math.isnan(rates.rates[2]), "nothing was said, so there is no rate"
    assert rates.rate == 4 / 5
    assert (rates.deletions.tolist(), rates.insertions.tolist()) == ([0, 3, 0], [0, 0, 1])


def test_the_corpus_is_not_the_mean_of_its_items():
    rates = word_error_rate(["a", "b c d e"], ["x", "b c d e"])
    assert (rates.rate, rates.rates.mean()) == (0.2, 0.5)


def test_characters_hold_the_spaces_between_words():
    rates = character_error_rate(["a  b"], ["ab"], "none")
    assert (rates.errors.tolist(), rates.lengths.tolist(), rates.unit) == ([1], [3], "character")
    assert list(rates.as_dict())[0] == "cer"


def test_unicode_counts_by_character():
    assert character_error_rate(["caf\u00e9 \u72ac"], ["cafe \u72ac"]).errors.tolist() == [1]
    assert normalize_words("cafe\u0301") == "caf\u00e9", "one way to write it"


def test_the_normalisers():
    text = "It's a well-known  DOG, (no. 5): \u201cWoof!\u201d it\u2019s $5"
    assert normalize_words(text) == "its a well known dog no 5 woof its 5"
    assert word_error_rate([text], [text.upper()], "none").rate > 0
    assert word_error_rate([text], [text.upper()]).as_dict()["normalizer"] == "lower"
    assert word_error_rate([text], [text], "none").as_dict()["normalizer"] == "none"


def test_whispers_normaliser_says_whether_it_spells():
    plain, spelling = whisper_english(), whisper_english({"colour": "color"})
    rates = word_error_rate(["It's twenty-two dogs"], ["it is 22 dogs"], plain)
    assert (rates.rate, rates.normalizer) == (0.0, "whisper_english_without_spelling")
    rates = word_error_rate(["The colour"], ["the color"], spelling)
    assert (rates.rate, rates.normalizer) == (0.0, "whisper_english")
    assert word_error_rate(["The colour"], ["the color"], plain).rate == 0.5


@pytest.mark.parametrize(
    ("references", "hypotheses", "normalizer", "message"),
    [
        (["a"], [], "lower", "1 references and 0 hypotheses"),
        ([], [], "lower", "undefined"),
        (["", "?!"], ["a", "b"], "lower", "no reference has a word"),
        ("a dog", ["a dog"], "lower", "list of strings"),
        (["a"], [None], "lower", "hypotheses must be a list of strings"),
        (["a"], ["a"], "upper", "normalizer must be one of"),
    ],
)
def test_what_makes_no_sense_is_refused(references, hypotheses, normalizer, message):
    with pytest.raises(ValueError, match=message):
        word_error_rate(references, hypotheses, normalizer)


def test_a_long_text_keeps_its_memory_small():
    """An hour of speech against itself with one word missing: one row of the table at a time."""
    said = [str(number % 500) for number in range(9000)]
    rates = word_error_rate([" ".join(said)], [" ".join(said[:4000] + said[4001:])])
    assert (rates.errors.tolist(), rates.deletions.tolist()) == ([1], [1])
