"""Caption scores: the goldens, recorded answers of pycocoevalcap and NLTK, literal formulas, and Java where it is."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibrivl.metrics import captions, meteor
from unibrivl.metrics.captions import METRICS, bleu, caption_scores, cider, rouge_l
from unibrivl.metrics.meteor import NotAvailable, meteor_exact_stem, meteor_is_available
from unibrivl.metrics.stemmer import porter_stem

GOLDEN = Path(__file__).parent.parent / "golden"
CAPTIONS = json.loads((GOLDEN / "evaluation.json").read_text())["captions"]
PEERS = json.loads((GOLDEN / "metrics" / "peers.json").read_text())
NAMES = {
    "rougeL": "rouge_l",
    "meteor_java_1.5": "meteor",
    "meteor_exact_stem_nltk": "meteor_exact_stem",
    "meteor_exact_stem_nltk_mean": "meteor_exact_stem",
}
WITHOUT_JAVA = METRICS[:-1]


def java_or_skip():
    try:
        meteor.java_folder("meteor", meteor.METEOR_JAR)
    except (ImportError, NotAvailable) as reason:
        pytest.skip(str(reason))


def check_golden(metrics, tokenizer):
    scores = caption_scores(CAPTIONS["input"]["candidates"], CAPTIONS["input"]["references"], metrics, tokenizer)
    found = 0
    for name, value in CAPTIONS["expected"]["corpus"].items():
        if (ours := NAMES.get(name, name)) in metrics:
            assert scores.corpus[ours] == pytest.approx(value, abs=1e-6), name
            found += 1
    for name, values in CAPTIONS["expected"]["per_item"].items():
        if (ours := NAMES.get(name, name)) in metrics:
            assert scores.per_item[ours] == pytest.approx(list(values.values()), abs=1e-6), name
            found += 1
    assert scores.tokenizer == tokenizer
    if "meteor" in metrics:
        assert scores.corpus["meteor_exact_stem"] - scores.corpus["meteor"] > 0.3, "the two are not one number"
    return found


def test_the_goldens():
    assert check_golden(WITHOUT_JAVA, "ptb_python") == 7 + 5


def test_the_goldens_with_java():
    java_or_skip()
    assert check_golden(METRICS, "ptb_java") == 8 + 6


@pytest.mark.parametrize("name", METRICS)
def test_random_captions_as_the_reference_libraries_score_them(name):
    if name == "meteor":
        java_or_skip()
    case = PEERS["captions"]
    scores = caption_scores(case["hypotheses"], case["references"], [name], tokenizer="none")
    of_corpus, of_items = case["expected"][name]
    assert scores.corpus[name] == pytest.approx(of_corpus, abs=1e-9)
    assert scores.per_item[name] == pytest.approx(of_items, abs=1e-9)


def test_stems_as_nltk_cuts_them():
    assert {word: porter_stem(word) for word in PEERS["stems"]} == PEERS["stems"]


words = st.lists(st.sampled_from("a dog dogs barks barking in rain".split()), min_size=1, max_size=9)
items = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=4)


def texts_of(drawn):
    return [" ".join(said) for said, _ in drawn], [[" ".join(true) for true in of_item] for _, of_item in drawn]


def grams(text, n):
    split = text.split()
    return [tuple(split[i : i + n]) for i in range(len(split) - n + 1)]


@given(items)
def test_bleu_as_its_formula_says(drawn):
    hypotheses, references = texts_of(drawn)
    precisions = []
    for n in (1, 2, 3, 4):
        right = said = 0
        for hypothesis, of_item in zip(hypotheses, references, strict=True):
            for gram in set(grams(hypothesis, n)):
                most = max(grams(reference, n).count(gram) for reference in of_item)
                right += min(grams(hypothesis, n).count(gram), most)
            said += len(grams(hypothesis, n))
        precisions.append((right + 1e-15) / (said + 1e-9))
    length = sum(len(hypothesis.split()) for hypothesis in hypotheses)
    closest = 0
    for hypothesis, of_item in zip(hypotheses, references, strict=True):
        own = len(hypothesis.split())
        closest += min((len(r.split()) for r in of_item), key=lambda other: (abs(other - own), other))
    penalty = min(1.0, math.exp(1 - closest / length))
    expected = [penalty * math.prod(precisions[:n]) ** (1 / n) for n in (1, 2, 3, 4)]
    assert bleu(hypotheses, references)[0] == pytest.approx(expected, abs=1e-8)


def slow_lcs(a, b):
    if not a or not b:
        return 0
    return 1 + slow_lcs(a[1:], b[1:]) if a[0] == b[0] else max(slow_lcs(a[1:], b), slow_lcs(a, b[1:]))


@given(words, words)
def test_the_longest_common_subsequence_is_the_longest(first, second):
    assert captions.longest_common(first[:7], second[:7]) == slow_lcs(first[:7], second[:7])


@given(items)
def test_cider_as_its_formula_says(drawn):
    hypotheses, references = texts_of(drawn)

    def weight(gram, n):
        having = sum(any(gram in grams(r, n) for r in of_item) for of_item in references)
        return math.log(len(references)) - math.log(max(1, having))

    scores = []
    for hypothesis, of_item in zip(hypotheses, references, strict=True):
        total = 0.0
        for reference in of_item:
            gap = len(grams(hypothesis, 2)) - len(grams(reference, 2))
            for n in (1, 2, 3, 4):
                h, r = (
                    {g: grams(text, n).count(g) * weight(g, n) for g in grams(text, n)}
                    for text in (hypothesis, reference)
                )
                norms = math.hypot(*h.values()) * math.hypot(*r.values())
                if norms:
                    product = sum(min(h[g], r[g]) * r[g] for g in h.keys() & r.keys())
                    total += product / norms * math.exp(-(gap**2) / 72)
        scores.append(10 * total / 4 / len(of_item))
    assert cider(hypotheses, references)[1] == pytest.approx(scores, abs=1e-9)


@given(items)
def test_scores_stay_in_their_range_and_items_do_not_hang_together(drawn):
    hypotheses, references = texts_of(drawn)
    scores = caption_scores(hypotheses, references, tokenizer="none")
    for name, values in scores.per_item.items():
        assert all(0 <= value <= (10 if name == "cider" else 1) + 1e-9 for value in values), name
    alone = [rouge_l([h], [r])[1][0] for h, r in zip(hypotheses, references, strict=True)]
    assert scores.per_item["rouge_l"] == alone


def test_identical_captions():
    texts = ["a dog barks in the rain", "two men talk loudly at home"]
    scores = caption_scores(texts, [[text] for text in texts]).corpus
    assert scores["bleu4"] == pytest.approx(1, abs=1e-6)
    assert scores["rouge_l"] == 1
    assert scores["cider"] == pytest.approx(10)
    assert 0.99 < scores["meteor_exact_stem"] < 1  # even one chunk costs a little


def test_one_word_and_no_word():
    scores = caption_scores(["dog", "", "..."], [["dog"], ["a cat"], ["a man"]])
    assert scores.per_item["bleu1"] == pytest.approx([1, 0, 0], abs=1e-6)
    assert scores.per_item["bleu4"][0] < 1e-3  # no n-gram of four
    for name in ("rouge_l", "cider", "meteor_exact_stem"):
        assert scores.per_item[name][0] > 0
        assert scores.per_item[name][1:] == [0, 0], name


def test_a_system_that_says_nothing_scores_zero():
    scores = caption_scores(["", ""], [["a dog"], [""]])
    assert set(scores.corpus.values()) == {0.0}


def test_unicode():
    text = "caf\u00e9 \u0441\u043e\u0431\u0430\u043a\u0430 \u72ac \U0001f600"
    assert caption_scores([text, "a"], [[text], ["b"]]).per_item["rouge_l"] == [1.0, 0.0]


def test_dictionaries_are_paired_by_key():
    mixed = caption_scores({"x": "a dog", "y": "a cat"}, {"y": ["a cat"], "x": ["a dog"]})
    assert mixed.per_item["rouge_l"] == [1.0, 1.0]
    with pytest.raises(ValueError, match="only on one side, such as 'z'"):
        caption_scores({"x": "a"}, {"x": ["a"], "z": ["b"]})


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([], [], "no captions"),
        (["a"], [], "1 hypotheses and 0 lists"),
        (["a"], [[]], r"references\[0\] must be a list with at least one"),
        (["a", "b"], [["a"], "b"], r"references\[1\]"),
        ("ab", [["a"], ["b"]], "hypotheses must be a list"),
        ([None], [["a"]], "hypotheses must be a list"),
        ({"x": "a"}, [["a"]], "both be lists"),
    ],
)
def test_what_does_not_fit_is_refused(hypotheses, references, message):
    with pytest.raises(ValueError, match=message):
        caption_scores(hypotheses, references)


def test_unknown_names_are_refused_and_spice_says_where_it_is():
    with pytest.raises(ValueError, match="unknown metric 'bleu5'"):
        caption_scores(["a"], [["a"]], ["bleu5"])
    with pytest.raises(ValueError, match="tokenizer must be one of"):
        caption_scores(["a"], [["a"]], tokenizer="moses")
    for name in ("spice", "spider"):
        with pytest.raises(NotAvailable, match="pycocoevalcap"):
            caption_scores(["a"], [["a"]], [name])


def test_meteor_without_java_is_an_error_and_never_the_other_meteor(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert not meteor_is_available()
    with pytest.raises(NotAvailable, match="Java runtime"):
        caption_scores(["a dog"], [["a dog"]], ["meteor"])
    assert "meteor" not in caption_scores(["a dog"], [["a dog"]]).corpus


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for java is a shell script")
@pytest.mark.parametrize("first", ["read line", "true"])
def test_a_program_that_does_not_answer_is_an_error(first, monkeypatch, tmp_path):
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\n{first}\nexit 3\n")
    java.chmod(0o755)
    monkeypatch.setattr(meteor, "java_folder", lambda part, jar: tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(NotAvailable, match="without an answer"):
        caption_scores(["a dog"], [["a dog"]], ["meteor"])
    with pytest.raises(NotAvailable, match="ended with 3"):
        meteor.java_tokenize(["a dog"])


def test_separators_of_the_java_protocol_in_a_caption_do_no_harm():
    java_or_skip()
    strange = caption_scores(["a ||| dog", "", "a\u2028cat"], [["a dog"], ["b"], ["a cat"]], ["meteor"], "none")
    assert strange.per_item["meteor"] == pytest.approx([1.0, 0.0, 1.0])


def test_meteor_matches_from_the_end_and_counts_chunks():
    assert meteor_exact_stem("the dog barks", ["the dog barks"]) == pytest.approx(1 - 0.5 / 27)
    assert meteor_exact_stem("barks dog", ["dog barks"]) == pytest.approx(0.5)
    assert meteor_exact_stem("dogs", ["dog"]) == pytest.approx(0.5)
    assert meteor_exact_stem("cat", ["dog"]) == 0


def test_a_result_says_what_it_was_made_with():
    result = caption_scores(["a dog"], [["a dog", "the dog"]], ["rouge_l"]).as_dict()
    assert result == {"rouge_l": 1.0, "tokenizer": "ptb_python", "n": 1, "num_references": 2}


def test_two_thousand_captions_take_seconds():
    case = PEERS["captions"]
    hypotheses, references = list(case["hypotheses"].values()) * 50, list(case["references"].values()) * 50
    start = time.process_time()
    caption_scores(hypotheses, references)
    assert time.process_time() - start < 20  # about 1 s on one quiet core
