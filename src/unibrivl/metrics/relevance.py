"""Which gallery entries are right answers to which queries, stored so that 100,000 x 100,000 of them fit.

Right answers come in groups: the pictures of one class, the captions of one picture, the one sound of an id. A query
points to its group, and a group is written down once, so nothing here ever has a row for each query and entry.

Shapes: Q queries, G gallery entries, K groups, M members of all groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unibrivl.metrics.arrays import as_array

__all__ = ["Relevance"]


@dataclass(frozen=True, eq=False)
class Relevance:
    """Right answers by group; made by `from_labels`, `from_index` or `from_sets`.

    Args:
        group_Q (`np.ndarray`): the group of gallery entries that answers each query.
        starts_K (`np.ndarray`): where each group begins in `members_M`, and one more: the end of the last.
        members_M (`np.ndarray`): gallery entries, group after group, ascending within one.
        num_gallery (`int`): entries of the gallery, those that answer no query included.
    """

    group_Q: np.ndarray
    starts_K: np.ndarray
    members_M: np.ndarray
    num_gallery: int

    @classmethod
    def from_labels(cls, query_labels: Any, gallery_labels: Any) -> Relevance:
        """Whatever has the query's label is right: classes, or ids of which several captions have the same."""
        queries, gallery = as_array(query_labels, "query_labels", 1), as_array(gallery_labels, "gallery_labels", 1)
        if (queries.dtype.kind in "US") != (gallery.dtype.kind in "US"):
            raise ValueError(f"query labels are {queries.dtype} and gallery labels {gallery.dtype}: none can agree")
        _, groups = np.unique(np.concatenate([gallery, queries]), return_inverse=True)
        of_gallery, of_queries = groups[: len(gallery)], groups[len(gallery) :]
        counts = np.bincount(of_gallery, minlength=int(groups.max(initial=-1)) + 1)
        starts = np.concatenate([[0], np.cumsum(counts)])
        return cls(of_queries, starts, np.argsort(of_gallery, kind="stable"), len(gallery))

    @classmethod
    def from_index(cls, index: Any, num_gallery: int) -> Relevance:
        """One right answer for each query, by its place in the gallery."""
        index_Q = as_array(index, "relevant", 1)
        if index_Q.dtype.kind not in "iu":
            raise ValueError(f"relevant holds {index_Q.dtype}; places in the gallery are whole numbers from 0")
        refuse_outside(index_Q, num_gallery)
        return cls(index_Q, np.arange(num_gallery + 1), np.arange(num_gallery), num_gallery)

    @classmethod
    def from_sets(cls, sets: Iterable[Iterable[int]], num_gallery: int) -> Relevance:
        """Any number of right answers for each query, by their places in the gallery."""
        members = [np.unique(np.fromiter(one, dtype=np.int64)) for one in sets]
        joined = np.concatenate([np.zeros(0, np.int64), *members])
        refuse_outside(joined, num_gallery)
        starts = np.concatenate([[0], np.cumsum([len(one) for one in members], dtype=np.int64)])
        return cls(np.arange(len(members)), starts, joined, num_gallery)

    @classmethod
    def of(cls, relevant: Any, shape: tuple[int, int]) -> Relevance:
        """What a caller may write for it, checked against the `shape` of the scores.

        None means entry i for query i; a flat sequence of integers gives the one right place for each query; a
        sequence of sets or lists gives all of them.
        """
        if getattr(relevant, "ndim", 0) == 2:
            raise ValueError(
                "what is relevant is places in the gallery, and not a matrix. Two sets of vectors are compared as "
                "CosineScores(queries, gallery); of a matrix of yes and no take [row.nonzero()[0] for row in matrix]"
            )
        if isinstance(relevant, Relevance):
            found = relevant
        elif relevant is None:
            if shape[0] != shape[1]:
                raise ValueError(f"{shape[0]} queries and {shape[1]} entries are no pairs: say what is relevant")
            found = cls.from_index(np.arange(shape[0]), shape[1])
        elif is_nested(relevant):
            found = cls.from_sets(relevant, shape[1])
        else:
            found = cls.from_index(relevant, shape[1])
        if found.shape != shape:
            raise ValueError(
                f"the relevance is for {found.shape[0]} queries and {found.shape[1]} gallery entries, and the scores "
                f"have {shape[0]} and {shape[1]}"
            )
        return found

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.group_Q), self.num_gallery

    @property
    def counts_Q(self) -> np.ndarray:
        """How many right answers each query has."""
        return np.diff(self.starts_K)[self.group_Q]

    def members(self, query: int) -> np.ndarray:
        """The right answers of one query, as places in the gallery."""
        group = self.group_Q[query]
        return self.members_M[self.starts_K[group] : self.starts_K[group + 1]]

    @property
    def T(self) -> Relevance:  # noqa: N802  (as numpy calls it)
        """The other direction: which queries each gallery entry answers."""
        if len(np.unique(self.members_M)) == len(self.members_M):  # each entry in one group at most: labels, indices
            num_groups = len(self.starts_K) - 1
            group_G = np.full(self.num_gallery, num_groups)  # the group after the last: it has no members
            group_G[self.members_M] = np.repeat(np.arange(num_groups), np.diff(self.starts_K))
            counts: np.ndarray = np.append(np.bincount(self.group_Q, minlength=num_groups), 0)
            members = np.argsort(self.group_Q, kind="stable")
        else:
            queries: np.ndarray = np.repeat(np.arange(len(self.group_Q)), self.counts_Q)
            entries = np.concatenate([self.members(query) for query in range(len(self.group_Q))])
            group_G = np.arange(self.num_gallery)
            counts = np.bincount(entries, minlength=self.num_gallery)
            members = queries[np.argsort(entries, kind="stable")]
        return Relevance(group_G, np.concatenate([[0], np.cumsum(counts)]), members, len(self.group_Q))

    def only(self, kept_Q: np.ndarray) -> Relevance:
        """The same for a choice of the queries: a mask, or their numbers."""
        return Relevance(self.group_Q[kept_Q], self.starts_K, self.members_M, self.num_gallery)

    def refuse_unanswered(self) -> None:
        """Raise if a query has no right answer: it has no rank, and leaving it out is the caller's decision."""
        empty = np.flatnonzero(self.counts_Q == 0)
        if len(empty):
            raise ValueError(
                f"{len(empty)} of {len(self.group_Q)} queries, the first is number {empty[0]}, have no right answer "
                "in the gallery: leave them out of the queries, and say how many they were"
            )


def is_nested(relevant: Any) -> bool:
    """Whether each query has a collection of places and not one place."""
    if getattr(relevant, "ndim", 1) > 1:
        return True
    return isinstance(relevant, Sequence) and len(relevant) > 0 and isinstance(relevant[0], Iterable)


def refuse_outside(places: np.ndarray, num_gallery: int) -> None:
    if len(places) and (places.min() < 0 or places.max() >= num_gallery):
        wrong = places[(places < 0) | (places >= num_gallery)][0]
        raise ValueError(f"relevant names gallery entry {wrong}, and the gallery's go from 0 to {num_gallery - 1}")
