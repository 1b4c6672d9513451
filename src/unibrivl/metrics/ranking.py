"""Retrieval: ranks with a stated rule for ties, and what is made of them; in chunks, so that 100,000 x 100,000 fit.

The rank of a query is 1 + how many wrong entries stand before its best right one. A tie counts against the system
("pessimistic", the default: constant vectors then find nothing), for it ("optimistic") or half ("average").

Scores are a matrix, or `CosineScores` of two sets of vectors, which makes its rows when they are asked for. Both have
a transpose, which is the other direction.

Shapes: Q queries, G gallery entries, C queries of one chunk, R right answers of one query, D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from unibrivl.metrics.arrays import ROWS_AT_ONCE, as_array, as_numbers, refuse_non_finite
from unibrivl.metrics.intervals import bootstrap, wilson
from unibrivl.metrics.relevance import Relevance

__all__ = [
    "CosineScores",
    "Ties",
    "mean_rank",
    "median_rank",
    "mrr",
    "ranks",
    "recall_at",
    "retrieval_average_precisions",
    "retrieval_map",
    "retrieval_report",
]

Ties = Literal["pessimistic", "optimistic", "average"]
# Of the wrong entries that tie with the right one, the share that stands before it.
TIED_SHARE = {"pessimistic": 1.0, "optimistic": 0.0, "average": 0.5}
SCORES_AT_ONCE = 2**24  # 64 MiB in float32
KS = (1, 5, 10)


class MatrixScores:
    """A matrix of scores as it was given: equal is equal."""

    tolerance = 0.0

    def __init__(self, scores: Any) -> None:
        self.scores_QG = as_array(scores, "scores", 2)
        if self.scores_QG.dtype.kind not in "fiub":
            raise ValueError(f"scores are {self.scores_QG.dtype} and must be real numbers")
        self.shape: tuple[int, int] = self.scores_QG.shape

    @property
    def T(self) -> MatrixScores:  # noqa: N802  (as numpy calls it)
        return MatrixScores(self.scores_QG.T)

    def rows(self, start: int, stop: int) -> np.ndarray:
        rows_CG = self.scores_QG[start:stop]
        if rows_CG.dtype.kind in "iub":
            rows_CG = rows_CG.astype(np.float64)
        rows_CG = np.ascontiguousarray(rows_CG)  # columns of a transpose, side by side
        refuse_non_finite(rows_CG, "scores", start)
        return rows_CG


class CosineScores:
    """The cosines of two sets of vectors, in float32 after scaling each vector to length one.

    The same two vectors can give cosines that differ in the last bits, depending on where they stand in the matrix
    and on the library that multiplies. Cosines closer than `tolerance` are therefore one score: a tie.

    Args:
        queries_QD: vectors of the queries; arrays or tensors of any precision and any length of the vectors.
        gallery_GD: vectors of the gallery.
    """

    tolerance = 2.0**-21  # four times the distance between float32 numbers just below 1

    def __init__(self, queries_QD: Any, gallery_GD: Any) -> None:
        queries, gallery = as_array(queries_QD, "queries", 2), as_array(gallery_GD, "gallery", 2)
        if queries.shape[1] != gallery.shape[1]:
            raise ValueError(f"queries have width {queries.shape[1]} and the gallery {gallery.shape[1]}: two spaces")
        # Checked here, since a product of unit vectors is finite: its rows need no second look.
        self.query_lengths_Q = lengths(queries, "queries")
        self.gallery_lengths_G = lengths(gallery, "gallery")
        self.queries_QD, self.gallery_GD = queries, gallery
        self.shape = (len(queries), len(gallery))
        self.unit_gallery_GD: np.ndarray | None = None

    @property
    def T(self) -> CosineScores:  # noqa: N802  (as numpy calls it)
        other = object.__new__(CosineScores)
        other.queries_QD, other.gallery_GD = self.gallery_GD, self.queries_QD
        other.query_lengths_Q, other.gallery_lengths_G = self.gallery_lengths_G, self.query_lengths_Q
        other.shape = self.shape[::-1]
        other.unit_gallery_GD = None
        return other

    def rows(self, start: int, stop: int) -> np.ndarray:
        if self.unit_gallery_GD is None:
            self.unit_gallery_GD = np.empty(self.gallery_GD.shape, np.float32)
            for first in range(0, self.shape[1], ROWS_AT_ONCE):
                some = slice(first, first + ROWS_AT_ONCE)
                self.unit_gallery_GD[some] = self.gallery_GD[some] / self.gallery_lengths_G[some, None]
        unit_CD = (self.queries_QD[start:stop] / self.query_lengths_Q[start:stop, None]).astype(np.float32)
        return unit_CD @ self.unit_gallery_GD.T


Scores = MatrixScores | CosineScores


def lengths(vectors_ND: np.ndarray, name: str) -> np.ndarray:
    """Euclidean lengths in float64, none of them zero."""
    lengths_N = np.empty(len(vectors_ND))
    for first in range(0, len(vectors_ND), ROWS_AT_ONCE):
        some_ND: np.ndarray = vectors_ND[first : first + ROWS_AT_ONCE].astype(np.float64)
        refuse_non_finite(some_ND, name, first)
        lengths_N[first : first + ROWS_AT_ONCE] = np.linalg.norm(some_ND, axis=1)
    if not lengths_N.all():
        raise ValueError(f"{name}[{int(lengths_N.argmin())}] is all zeros: it has no direction, and no cosine")
    return lengths_N


def as_scores(scores: Any) -> Scores:
    return scores if isinstance(scores, MatrixScores | CosineScores) else MatrixScores(scores)


def chunks(scores: Scores, chunk_size: int | None) -> Iterator[tuple[int, np.ndarray]]:
    """Number of the first query, scores of some queries; each entry of the matrix once."""
    num_queries, num_gallery = scores.shape
    if not num_queries or not num_gallery:
        raise ValueError(f"there are {num_queries} queries and {num_gallery} gallery entries: nothing to rank")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it counts queries, from 1")
    rows = chunk_size or max(1, SCORES_AT_ONCE // num_gallery)
    for start in range(0, num_queries, rows):
        yield start, scores.rows(start, start + rows)


def ranks(
    scores: Any, relevant: Any = None, *, ties: Ties = "pessimistic", chunk_size: int | None = None
) -> np.ndarray:
    """The rank of each query's best right answer among the wrong ones, from 1: float64, halves with "average" ties.

    Args:
        scores: a matrix (queries, gallery), higher is better; or `CosineScores`.
        relevant (*optional*): the right answers: nothing (entry i for query i), one place for each query, a list of
            sets of places, or a `Relevance` (`Relevance.from_labels` for classes and for several captions a picture).
        ties (`str`, *optional*, defaults to `"pessimistic"`): where wrong entries with the same score stand: before
            the right one, behind it (`"optimistic"`), or half of them before (`"average"`).
        chunk_size (`int`, *optional*): queries at once; by default as many as fill 64 MiB. The ranks do not depend on
            it.
    """
    scores, share = as_scores(scores), share_of(ties)
    relevance = Relevance.of(relevant, scores.shape)
    relevance.refuse_unanswered()
    ranks_Q = np.empty(scores.shape[0])
    for start, rows_CG in chunks(scores, chunk_size):
        for query, row_G in enumerate(rows_CG, start):
            right_R = row_G[relevance.members(query)]
            ranks_Q[query] = 1 + wrong_before(row_G, right_R, right_R.max(), scores.tolerance, share)
    return ranks_Q


def wrong_before(row_G: np.ndarray, right_R: np.ndarray, best: np.floating, tolerance: float, share: float) -> float:
    """Wrong entries before the best right one; one comparison of the whole row where the rule for ties allows it."""
    step = row_G.dtype.type(tolerance)
    before = 0.0
    if share < 1:
        before += (1 - share) * np.count_nonzero(row_G > best + step)  # no right answer is among them
    if share > 0:
        before += share * (np.count_nonzero(row_G >= best - step) - np.count_nonzero(right_R >= best - step))
    return before


def share_of(ties: str) -> float:
    if ties not in TIED_SHARE:
        raise ValueError(f"ties is {ties!r} and must be one of {', '.join(TIED_SHARE)}")
    return TIED_SHARE[ties]


def as_ranks(ranks: Any) -> np.ndarray:
    ranks_Q = as_numbers(ranks, "ranks", 1)
    if ranks_Q.min() < 1:
        raise ValueError(f"a rank is {ranks_Q.min():g}; they start at 1")
    return ranks_Q


def recall_at(ranks: Any, k: int) -> float:
    """R@k: the share of queries that have a right answer among the first k."""
    if k < 1:
        raise ValueError(f"k is {k}; it counts entries, from 1")
    return float((as_ranks(ranks) <= k).mean())


def mrr(ranks: Any) -> float:
    """The mean of 1 / rank."""
    return float((1 / as_ranks(ranks)).mean())


def median_rank(ranks: Any) -> float:
    """MedR: the mean of the two in the middle where their number is even."""
    return float(np.median(as_ranks(ranks)))


def mean_rank(ranks: Any) -> float:
    """MeanR."""
    return float(as_ranks(ranks).mean())


def retrieval_average_precisions(
    scores: Any, relevant: Any = None, *, ties: Ties = "pessimistic", chunk_size: int | None = None
) -> np.ndarray:
    """For each query the mean, over its right answers, of the precision at the place of each, down the full list.

    The place of the j-th right answer is j + the wrong entries before it, ties counted as in `ranks`. The arguments
    are those of `ranks`.
    """
    scores, share = as_scores(scores), share_of(ties)
    relevance = Relevance.of(relevant, scores.shape)
    relevance.refuse_unanswered()
    precisions_Q = np.empty(scores.shape[0])
    for start, rows_CG in chunks(scores, chunk_size):
        for query, row_G in enumerate(rows_CG, start):
            right_R = np.sort(row_G[relevance.members(query)])
            before_R = all_before(np.sort(row_G), right_R, scores.tolerance, share)
            before_R -= all_before(right_R, right_R, scores.tolerance, share)
            order_R = np.arange(len(right_R), 0, -1)  # ascending scores: the first of them stands last
            precisions_Q[query] = (order_R / (order_R + before_R)).mean()
    return precisions_Q


def all_before(sorted_G: np.ndarray, right_R: np.ndarray, tolerance: float, share: float) -> np.ndarray:
    """For each of `right_R` how many of `sorted_G` (ascending) are above it, and a share of those that equal it."""
    step = sorted_G.dtype.type(tolerance)
    above_R = len(sorted_G) - np.searchsorted(sorted_G, right_R + step, side="right")
    at_least_R = len(sorted_G) - np.searchsorted(sorted_G, right_R - step, side="left")
    return np.asarray(share * at_least_R + (1 - share) * above_R)


def retrieval_map(
    scores: Any, relevant: Any = None, *, ties: Ties = "pessimistic", chunk_size: int | None = None
) -> float:
    """The mean of `retrieval_average_precisions`."""
    return float(retrieval_average_precisions(scores, relevant, ties=ties, chunk_size=chunk_size).mean())


def retrieval_report(
    scores: Any,
    relevant: Any = None,
    *,
    ks: Sequence[int] = KS,
    ties: Ties = "pessimistic",
    names: tuple[str, str] = ("q2g", "g2q"),
    with_map: bool = False,
    chunk_size: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Both directions, each with its chance level and 95 % intervals, as plain values for a JSON file.

    Each direction holds `R@k`, `MRR`, `MedR`, `MeanR`, with `with_map` also `mAP`; `n` queries that were ranked, in a
    gallery of `gallery`; `unanswered` ones that were not, since nothing in the gallery is right for them; the rule for
    `ties`; `chance`, what a random order gives on average; `ci95` (Wilson for `R@k`, bootstrap for the others).

    Args:
        scores: as for `ranks`.
        relevant (*optional*): as for `ranks`, seen from the queries.
        ks (`Sequence[int]`, *optional*, defaults to `(1, 5, 10)`): the k of R@k.
        ties (`str`, *optional*, defaults to `"pessimistic"`): as for `ranks`.
        names (`tuple[str, str]`, *optional*, defaults to `("q2g", "g2q")`): what the directions are called.
        with_map (`bool`, *optional*, defaults to `False`): also mean average precision, which sorts every row.
        chunk_size (`int`, *optional*): as for `ranks`.
    """
    scores = as_scores(scores)
    relevance = Relevance.of(relevant, scores.shape)
    report = {}
    for name, one, right in ((names[0], scores, relevance), (names[1], scores.T, relevance.T)):
        report[name] = direction(one, right, ks, ties, with_map, chunk_size)
    return report


def direction(
    scores: Scores, relevance: Relevance, ks: Sequence[int], ties: Ties, with_map: bool, chunk_size: int | None
) -> dict[str, Any]:
    """The values of one direction; queries without a right answer are left out and counted."""
    answered_Q = relevance.counts_Q > 0
    unanswered = int((~answered_Q).sum())
    if unanswered:
        scores, relevance = choose(scores, answered_Q), relevance.only(answered_Q)
    ranks_Q = ranks(scores, relevance, ties=ties, chunk_size=chunk_size)
    values: dict[str, Any] = {f"R@{k}": recall_at(ranks_Q, k) for k in ks}
    ci95 = {f"R@{k}": list(wilson(int((ranks_Q <= k).sum()), len(ranks_Q))) for k in ks}
    values |= {"MRR": mrr(ranks_Q), "MedR": median_rank(ranks_Q), "MeanR": mean_rank(ranks_Q)}
    ci95["MRR"] = list(bootstrap(1 / ranks_Q).bounds)
    if with_map:
        precisions_Q = retrieval_average_precisions(scores, relevance, ties=ties, chunk_size=chunk_size)
        values["mAP"] = float(precisions_Q.mean())
        ci95["mAP"] = list(bootstrap(precisions_Q).bounds)
    values |= {"n": len(ranks_Q), "gallery": scores.shape[1], "unanswered": unanswered, "ties": ties}
    return values | {"chance": chance(relevance, ks), "ci95": ci95}


def choose(scores: Scores, kept_Q: np.ndarray) -> Scores:
    """The rows of some queries."""
    if not kept_Q.any():
        raise ValueError("no query has a right answer in the gallery: are these the ids and labels you meant?")
    if isinstance(scores, MatrixScores):
        return MatrixScores(scores.scores_QG[kept_Q])
    return CosineScores(scores.queries_QD[kept_Q], scores.gallery_GD)


def chance(relevance: Relevance, ks: Sequence[int]) -> dict[str, float]:
    """What a random order of the gallery gives on average, exactly: R@k and MRR.

    With R right answers among G, the best of them stands at place r with the probability that the r - 1 before it are
    all wrong and it is right; queries with the same R share one computation.
    """
    num_gallery = relevance.num_gallery
    sums = dict.fromkeys([*(f"R@{k}" for k in ks), "MRR"], 0.0)
    for count, num_queries in zip(*np.unique(relevance.counts_Q, return_counts=True), strict=True):
        places = np.arange(num_gallery - count + 1)  # wrong ones before the best right one
        still_wrong = np.concatenate([[1.0], np.cumprod(1 - count / (num_gallery - places[:-1]))])
        at_place = still_wrong * count / (num_gallery - places)
        for k in ks:
            sums[f"R@{k}"] += num_queries * at_place[:k].sum()
        sums["MRR"] += num_queries * (at_place / (places + 1)).sum()
    return {name: float(value / len(relevance.group_Q)) for name, value in sums.items()}
