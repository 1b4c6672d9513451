"""Accuracy, recall, average precision and folds: the goldens, scikit-learn, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unibrivl import metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text(encoding="utf-8"))


def test_golden_classification():
    given_, expected = GOLDEN["classification"]["input"], GOLDEN["classification"]["expected"]
    labels, logits = np.array(given_["labels"]), np.array(given_["logits"])
    found = metrics.mean_average_precision(torch.tensor(logits).softmax(1), labels)
    np.testing.assert_allclose(found.per_class, expected["AP_per_class_softmax"], atol=1e-6)
    assert found.value == pytest.approx(expected["mAP_macro"], abs=1e-6)
    tied = metrics.mean_average_precision(np.array(given_["logits_with_ties"]), labels)
    np.testing.assert_allclose(tied.per_class, expected["AP_per_class_ties"], atol=1e-6)
    assert tied.value == pytest.approx(expected["mAP_macro_ties"], abs=1e-6)
    predictions = logits.argmax(1)
    assert metrics.accuracy(predictions, labels) == pytest.approx(expected["accuracy_top1"], abs=1e-6)
    assert metrics.top_k_accuracy(logits, labels) == pytest.approx(expected["accuracy_top1"], abs=1e-6)
    recall = metrics.unweighted_average_recall(predictions, labels)
    assert recall == pytest.approx(expected["unweighted_average_recall"], abs=1e-6)


def test_golden_kfold():
    given_, expected = GOLDEN["kfold"]["input"], GOLDEN["kfold"]["expected"]
    equal = metrics.kfold_summary(given_["fold_accuracy"], given_["fold_sizes"])
    assert equal["mean"] == equal["pooled"] == pytest.approx(expected["mean_of_folds"], abs=1e-6)
    assert equal["std"] == pytest.approx(expected["std_population"], abs=1e-6)
    unequal = metrics.kfold_summary(given_["fold_accuracy"], given_["fold_sizes_unequal"])
    assert unequal["pooled"] == pytest.approx(expected["pooled_unequal"], abs=1e-6)
    without_sizes = metrics.kfold_summary(given_["fold_accuracy"])
    assert without_sizes["pooled"] == pytest.approx(expected["mean_of_folds"], abs=1e-6)


@st.composite
def scored(draw):
    n = draw(st.integers(1, 30))
    scores = draw(hnp.arrays(np.float64, n, elements=st.integers(-4, 4).map(float)))
    return scores, draw(hnp.arrays(np.bool_, n))


@given(scored())
def test_average_precision_is_scikit_learns_with_ties(problem):
    scores, relevant = problem
    assume(relevant.any())
    wanted = sklearn_metrics.average_precision_score(relevant, scores)
    assert metrics.average_precision(scores, relevant) == pytest.approx(wanted)
    assert metrics.average_precision(np.exp(scores), relevant) == pytest.approx(wanted)


def test_a_class_without_items_has_no_precision_and_is_reported():
    assert np.isnan(metrics.average_precision([0.1, 0.2], [0, 0]))
    found = metrics.mean_average_precision([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]], [0, 1])
    assert (found.value, found.skipped, found.num_skipped) == (1.0, (2,), 1)
    assert np.isnan(found.per_class[2])


def test_several_labels_an_item():
    generator = np.random.default_rng(0)
    scores, targets = generator.random((50, 6)), generator.integers(0, 2, (50, 6))
    wanted = sklearn_metrics.average_precision_score(targets, scores, average="macro")
    assert metrics.mean_average_precision(scores, targets).value == pytest.approx(wanted)


def test_accuracies_are_scikit_learns():
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 7, 200), generator.standard_normal((200, 7))
    for k in (1, 3, 6):
        wanted = sklearn_metrics.top_k_accuracy_score(labels, scores, k=k)
        assert metrics.top_k_accuracy(scores, labels, k) == pytest.approx(wanted)
    wanted = sklearn_metrics.balanced_accuracy_score(labels, scores.argmax(1))
    assert metrics.unweighted_average_recall(scores.argmax(1), labels) == pytest.approx(wanted)
    names = np.array(list("abcdefg"))
    assert metrics.accuracy(names[scores.argmax(1)], names[labels]) == metrics.top_k_accuracy(scores, labels)


def test_equal_scores_are_no_answer():
    assert metrics.top_k_accuracy(np.zeros((4, 3)), [0, 1, 2, 0]) == 0
    assert metrics.top_k_accuracy(np.zeros((4, 3)), [0, 1, 2, 0], ties="optimistic") == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.accuracy([1, 2], [1]), "2 predictions, 1 labels"),
        (lambda: metrics.accuracy([], []), "no labels"),
        (lambda: metrics.accuracy(["a"], [1]), "none of them can agree"),
        (lambda: metrics.top_k_accuracy(np.eye(2), [0, 1], k=0), "k is 0"),
        (lambda: metrics.top_k_accuracy(np.eye(2), [0, 2]), "entry 2"),
        (lambda: metrics.average_precision([0.1], [2]), "beside 0 and 1"),
        (lambda: metrics.average_precision([np.nan], [1]), r"scores\[0\] is nan"),
        (lambda: metrics.mean_average_precision(np.eye(2), [0, 2]), "from 0 to 1"),
        (lambda: metrics.mean_average_precision(np.eye(2), np.zeros((2, 3))), r"\(2, 3\)"),
        (lambda: metrics.mean_average_precision(np.eye(2), np.zeros((2, 2))), "no class has an item"),
        (lambda: metrics.kfold_summary([0.5, 0.6], [10, 0]), "no items"),
        (lambda: metrics.kfold_summary([0.5, 0.6], [10]), "2 fold_scores, 1 fold_sizes"),
    ],
)
def test_wrong_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
