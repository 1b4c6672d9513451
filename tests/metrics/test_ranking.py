"""Ranks, R@k, MRR and retrieval mAP: the goldens, a count by hand, scikit-learn, and laws that ranks keep."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unibrivl import metrics
from unibrivl.metrics import ranking

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text(encoding="utf-8"))
TIES = ["pessimistic", "optimistic", "average"]


def by_counting(scores, sets, ties):
    """The definition, one pair after the other."""
    c = {"pessimistic": 1, "optimistic": 0, "average": 0.5}[ties]
    found = []
    for row, right in zip(np.asarray(scores).tolist(), sets, strict=True):
        best = max(row[j] for j in right)
        wrong = [row[j] for j in range(len(row)) if j not in right]
        found.append(1 + sum(s > best for s in wrong) + c * sum(s == best for s in wrong))
    return found


def check_golden(section, scores, relevance, ks):
    for name, expected in section["expected"].items():
        way, ties = name.split("/")
        one, right = (scores, relevance) if way == "q2g" else (scores.T, relevance.T)
        found = metrics.ranks(one, right, ties=ties)
        np.testing.assert_allclose(found, expected["ranks"], atol=1e-6)
        for k in ks:
            assert metrics.recall_at(found, k) == pytest.approx(expected[f"R@{k}"], abs=1e-6)
        assert metrics.mrr(found) == pytest.approx(expected["MRR"], abs=1e-6)
        assert metrics.median_rank(found) == pytest.approx(expected["MedR"], abs=1e-6)
        assert metrics.mean_rank(found) == pytest.approx(expected["MeanR"], abs=1e-6)
        report = metrics.retrieval_report(scores, relevance, ks=ks, ties=ties)[way]
        assert {key: report[key] for key in ("MRR", "MedR")} == pytest.approx(
            {key: expected[key] for key in ("MRR", "MedR")}, abs=1e-6
        )


def test_golden_instances_with_ties():
    section = GOLDEN["retrieval_instance_ties"]
    given_ = section["input"]
    relevance = metrics.Relevance.from_labels(given_["query_ids"], given_["gallery_ids"])
    check_golden(section, np.array(given_["similarity"]), relevance, given_["ks"])


def test_golden_several_captions_for_a_picture():
    section = GOLDEN["retrieval_multi_caption"]
    given_ = section["input"]
    relevance = metrics.Relevance.from_labels(given_["audio_image_ids"], given_["image_ids"])
    check_golden(section, np.array(given_["similarity_audio_x_image"]), relevance, given_["ks"])


def test_golden_classes():
    section = GOLDEN["retrieval_class_level"]
    given_, expected = section["input"], section["expected"]
    scores = np.array(given_["similarity"])
    relevance = metrics.Relevance.from_labels(given_["query_labels"], given_["gallery_labels"])
    assert metrics.mrr(metrics.ranks(scores, relevance)) == pytest.approx(expected["class_MRR_q2g"], abs=1e-6)
    assert metrics.mrr(metrics.ranks(scores.T, relevance.T)) == pytest.approx(expected["class_MRR_g2q"], abs=1e-6)
    assert metrics.mrr(metrics.ranks(scores)) == pytest.approx(expected["instance_MRR_q2g"], abs=1e-6)
    found = metrics.retrieval_average_precisions(scores, relevance)
    np.testing.assert_allclose(found, expected["AP_per_query"], atol=1e-6)
    assert metrics.retrieval_map(scores, relevance) == pytest.approx(expected["retrieval_mAP_q2g"], abs=1e-6)


@st.composite
def problems(draw):
    """Scores with many ties, and a set of right answers for each query."""
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 9)))
    scores = draw(hnp.arrays(np.float64, shape, elements=st.integers(-3, 3).map(float)))
    places = st.sets(st.integers(0, shape[1] - 1), min_size=1)
    return scores, draw(st.lists(places, min_size=shape[0], max_size=shape[0]))


@given(problems(), st.sampled_from(TIES), st.integers(1, 9))
def test_ranks_are_what_counting_gives_in_chunks_of_any_size(problem, ties, chunk_size):
    scores, sets = problem
    assert metrics.ranks(scores, sets, ties=ties, chunk_size=chunk_size).tolist() == by_counting(scores, sets, ties)


@given(problems(), st.sampled_from(TIES), st.randoms(use_true_random=False))
def test_the_order_of_the_gallery_and_of_the_queries_changes_nothing(problem, ties, random):
    scores, sets = problem
    queries, gallery = list(range(scores.shape[0])), list(range(scores.shape[1]))
    random.shuffle(queries)
    random.shuffle(gallery)
    moved = [{gallery.index(j) for j in sets[query]} for query in queries]
    for function in (metrics.ranks, metrics.retrieval_average_precisions):
        np.testing.assert_allclose(
            function(scores[np.ix_(queries, gallery)], moved, ties=ties), function(scores, sets, ties=ties)[queries]
        )


@given(problems(), st.sampled_from(TIES))
def test_a_rising_function_of_the_scores_changes_nothing(problem, ties):
    scores, sets = problem
    for function in (metrics.ranks, metrics.retrieval_average_precisions):
        np.testing.assert_allclose(
            function(np.exp(scores) + scores**3, sets, ties=ties), function(scores, sets, ties=ties)
        )


@given(problems())
def test_the_rules_for_ties_are_in_their_order(problem):
    scores, sets = problem
    worst, best, middle = (metrics.ranks(scores, sets, ties=ties) for ties in TIES)
    assert (best <= middle).all()
    np.testing.assert_allclose(middle, (worst + best) / 2)


@given(problems())
def test_transposing_the_relevance_twice_gives_it_back(problem):
    scores, sets = problem
    relevance = metrics.Relevance.from_sets(sets, scores.shape[1])
    there, back = relevance.T, relevance.T.T
    for j in range(scores.shape[1]):
        assert set(there.members(j).tolist()) == {i for i, one in enumerate(sets) if j in one}
    assert [set(back.members(i).tolist()) for i in range(len(sets))] == sets


def test_average_precision_is_scikit_learns_where_nothing_is_tied():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    scores, labels = generator.standard_normal((40, 60)), generator.integers(0, 5, 60)
    relevance = metrics.Relevance.from_labels(labels[:40], labels)
    wanted = [sklearn_metrics.average_precision_score(labels == labels[i], scores[i]) for i in range(40)]
    for chunk_size in (None, 1, 7):
        np.testing.assert_allclose(
            metrics.retrieval_average_precisions(scores, relevance, chunk_size=chunk_size), wanted
        )
    ranked = sklearn_metrics.label_ranking_average_precision_score(np.eye(40), scores[:, :40])
    assert metrics.mrr(metrics.ranks(scores[:, :40])) == pytest.approx(ranked)


def test_tied_answers_in_average_precision_stand_behind_or_before():
    scores, right = [[1.0, 1.0, 1.0]], [{0, 1}]
    assert metrics.retrieval_map(scores, right) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metrics.retrieval_map(scores, right, ties="optimistic") == 1
    assert metrics.retrieval_map(scores, right, ties="average") == pytest.approx((1 / 1.5 + 2 / 2.5) / 2)


@pytest.mark.parametrize("width", [1, 3, 512, 700])
@pytest.mark.parametrize("chunk_size", [None, 1, 7])
def test_constant_vectors_find_nothing(width, chunk_size):
    vectors = np.tile(np.random.default_rng(width).standard_normal(width), (50, 1))
    report = metrics.retrieval_report(metrics.CosineScores(vectors, 3 * vectors), chunk_size=chunk_size)
    assert {report[way]["R@10"] for way in report} == {0.0}
    assert {report[way]["MedR"] for way in report} == {50.0}


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "bfloat16", "list"])
def test_cosines_are_those_of_the_whole_matrix(kind):
    generator = np.random.default_rng(0)
    gallery = generator.standard_normal((90, 24))
    queries = gallery + 2 * generator.standard_normal((90, 24))
    if kind == "list":
        one, two = queries.tolist(), gallery.tolist()
    elif kind == "bfloat16":
        one, two = (torch.from_numpy(x).to(torch.bfloat16).requires_grad_() for x in (queries, gallery))
        queries, gallery = (x.detach().double().numpy() for x in (one, two))
    else:
        one, two = queries.astype(kind), gallery.astype(kind)
        queries, gallery = one.astype(np.float64), two.astype(np.float64)
    scores = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (gallery.T / np.linalg.norm(gallery, axis=1))
    for chunk_size in (None, 1, 13):
        lazy = metrics.CosineScores(one, two)
        assert metrics.ranks(lazy, chunk_size=chunk_size).tolist() == metrics.ranks(scores).tolist()
        assert metrics.ranks(lazy.T, chunk_size=chunk_size).tolist() == metrics.ranks(scores.T).tolist()


def test_vectors_of_any_length_have_a_direction():
    generator = np.random.default_rng(0)
    queries, gallery = generator.standard_normal((2, 20, 8))
    wanted = metrics.ranks(metrics.CosineScores(queries, gallery))
    sizes = np.logspace(-150, 150, 20)[:, None]
    assert metrics.ranks(metrics.CosineScores(queries * sizes, gallery * sizes)).tolist() == wanted.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_with_its_place(bad):
    scores = np.zeros((5, 6))
    scores[3, 2] = bad
    with pytest.raises(ValueError, match=r"scores\[3, 2\] is"):
        metrics.ranks(scores, [0] * 5, chunk_size=2)
    with pytest.raises(ValueError, match=r"gallery\[3, 2\] is"):
        metrics.CosineScores(np.ones((2, 6)), scores)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.ranks(np.zeros((2, 3))), "say what is relevant"),
        (lambda: metrics.ranks(np.zeros((2, 3)), [0, 3]), "entry 3"),
        (lambda: metrics.ranks(np.zeros((2, 3)), [0, -1]), "entry -1"),
        (lambda: metrics.ranks(np.zeros((2, 3)), [0.0, 1.0]), "whole numbers"),
        (lambda: metrics.ranks(np.zeros((2, 3)), [0]), "1 queries and 3"),
        (lambda: metrics.ranks(np.zeros((2, 3)), [{0}, set()]), "number 1, have no right answer"),
        (lambda: metrics.ranks(np.zeros((0, 3)), []), "nothing to rank|whole numbers"),
        (lambda: metrics.ranks(np.zeros((2, 2)), ties="fair"), "pessimistic, optimistic, average"),
        (lambda: metrics.ranks(np.zeros((2, 2)), chunk_size=0), "chunk_size is 0"),
        (lambda: metrics.ranks(np.zeros(4)), "2 dimensions"),
        (lambda: metrics.ranks(np.zeros((2, 2)), metrics.Relevance.from_labels(["a", "b"], [1, 2])), "none can agree"),
        (lambda: metrics.CosineScores(np.ones((2, 3)), np.ones((2, 4))), "two spaces"),
        (lambda: metrics.CosineScores(np.eye(3), np.diag([1.0, 0, 1])), r"gallery\[1\] is all zeros"),
        (lambda: metrics.recall_at([1, 2], 0), "k is 0"),
        (lambda: metrics.mrr([0, 1]), "start at 1"),
        (lambda: metrics.mrr([]), "empty"),
        (lambda: metrics.retrieval_report(np.zeros((1, 1)), [set()]), "no query has a right answer"),
    ],
)
def test_wrong_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_chance_is_what_random_scores_reach():
    generator = np.random.default_rng(0)
    sets = [{0}, {1, 2}, {0, 3, 4, 5}, set(range(6))]
    chance = metrics.retrieval_report(np.zeros((4, 6)), sets, ks=(1, 3))["q2g"]["chance"]
    found = np.concatenate([metrics.ranks(generator.random((4, 6)), sets) for _ in range(4000)])
    assert chance["R@1"] == pytest.approx((1 + 2 + 4 + 6) / 24)
    assert chance["R@3"] == pytest.approx(metrics.recall_at(found, 3), abs=0.01)
    assert chance["MRR"] == pytest.approx(metrics.mrr(found), abs=0.01)


def test_chance_of_instances_is_the_harmonic_mean():
    relevance = metrics.Relevance.from_index(np.arange(15446), 15446)
    assert ranking.chance(relevance, (1,))["MRR"] == pytest.approx(0.00066, abs=5e-6)
    assert ranking.chance(relevance, (1,))["MRR"] == pytest.approx(math.fsum(1 / n for n in range(1, 15447)) / 15446)


def test_a_report_counts_what_it_left_out():
    """Two distractors in the gallery: they are no queries of the other direction."""
    report = metrics.retrieval_report(np.eye(3, 5), [0, 1, 2], names=("a2i", "i2a"), with_map=True)
    assert (report["a2i"]["n"], report["a2i"]["gallery"], report["a2i"]["unanswered"]) == (3, 5, 0)
    assert (report["i2a"]["n"], report["i2a"]["gallery"], report["i2a"]["unanswered"]) == (3, 3, 2)
    assert report["i2a"]["R@1"] == report["i2a"]["mAP"] == 1.0
    assert report["a2i"]["ci95"]["R@1"][1] == 1.0
    assert json.loads(json.dumps(report)) == report
    lazy = metrics.retrieval_report(metrics.CosineScores(np.eye(3), np.eye(5, 3) + 0.1), [0, 1, 2])
    assert (lazy["g2q"]["n"], lazy["g2q"]["unanswered"], lazy["g2q"]["R@1"]) == (3, 2, 1.0)


def peak_bytes(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_with_the_vectors_and_not_with_their_product():
    """12,000 x 12,000 scores would be 550 MiB; held are two chunks, the last and the next, and the gallery."""
    generator = np.random.default_rng(0)
    queries, gallery = generator.standard_normal((2, 12_000, 8), dtype=np.float32)
    labels = generator.integers(0, 2, 12_000)
    chunk = ranking.SCORES_AT_ONCE * 4
    scores = metrics.CosineScores(queries, gallery)
    assert peak_bytes(lambda: metrics.ranks(scores)) < 2.2 * chunk
    relevance = metrics.Relevance.from_labels(labels, labels)
    assert peak_bytes(lambda: metrics.ranks(scores, relevance)) < 2.2 * chunk


@pytest.mark.slow
def test_100000_by_100000_stays_below_a_gigabyte():
    """A gallery of 512 wide vectors; 2,000 queries stand for all, since each chunk frees its own."""
    generator = np.random.default_rng(0)
    gallery = generator.standard_normal((100_000, 512), dtype=np.float32)
    peak = peak_bytes(lambda: metrics.ranks(metrics.CosineScores(gallery[:2000], gallery), np.arange(2000)))
    assert peak < 0.5 * 2**30


def test_vectors_in_place_of_relevance_are_met_with_the_right_call():
    vectors = np.eye(4)
    with pytest.raises(ValueError, match=r"CosineScores\(queries, gallery\)"):
        metrics.retrieval_report(vectors, vectors)
