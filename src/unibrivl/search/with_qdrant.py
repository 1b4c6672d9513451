"""Qdrant as an engine: the embedded one in a folder, for small collections, or a server.

Qdrant names points by numbers or UUIDs, so a point is named by the UUID5 of its id, and the id lies in its payload.
What model and width a collection is of stands in a second, tiny collection beside it, which a server keeps too.

The embedded engine compares with every vector and holds all of them in memory; its files are pickles of Qdrant's, so
open only a folder that you trust. An `Index` never opens it: its folder may come from anybody.

Shapes: N vectors, Q queries, E embedding.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unibrivl.search.database_rows import (
    FORMAT,
    as_result,
    can_be_held,
    check_about,
    checked_rows,
    known_name,
    remember_name,
)
from unibrivl.search.engine import checked_queries
from unibrivl.utils import require

URL, API_KEY = "UNIBRIVL_QDRANT_URL", "UNIBRIVL_QDRANT_API_KEY"  # environment variables
CONNECTION = {"url": URL, "api_key": API_KEY}
PLACE = "collection"
FILE = "qdrant.json"  # in the folder: the collection's name
EMBEDDED = "qdrant"  # in the folder: what the embedded engine writes
NAMES = uuid.UUID("6b0b3d3e-2f0c-5b54-9d2a-6d1f0c1e8a77")  # ours: the same id is the same point in every collection
MOST_ID_BYTES = 1_000_000
POINTS_AT_ONCE = 1000
QUERIES_AT_ONCE = 100


def make_engine(
    folder: str | os.PathLike,
    width: int,
    *,
    url: str | None = None,
    api_key: str | None = None,
    collection: str | None = None,
    fingerprint: str | None = None,
    ef_search: int | None = None,
    exact: bool = False,
) -> QdrantEngine:
    """The collection of the index in `folder`, made where there is none.

    Args:
        url (`str`, *optional*): of a server; by default what the environment variable UNIBRIVL_QDRANT_URL says. With
            neither, or an empty one, the embedded engine writes into the folder.
        api_key (`str`, *optional*): of the server. UNIBRIVL_QDRANT_API_KEY goes to the server of UNIBRIVL_QDRANT_URL
            only: a `url` that is given here gets the key that is given here, or none.
        collection (`str`, *optional*): its name; by default one that is made up, and kept in the folder.
        fingerprint (`str`, *optional*): of the embedder; a collection of another one is refused. None accepts any.
        ef_search (`int`, *optional*): how many candidates a server's HNSW looks at; by default the server decides.
        exact (`bool`): a server compares with every vector, too. The embedded engine always does.
    """
    client_of = require("qdrant_client", "qdrant", "an index in Qdrant").QdrantClient
    if url is None:
        url, api_key = os.environ.get(URL), api_key or os.environ.get(API_KEY)
    collection = known_name(folder, FILE, collection, "collection")
    if url:
        client = client_of(url=url, api_key=api_key)
    else:
        try:
            client = client_of(path=str(Path(folder) / EMBEDDED))
        except RuntimeError as error:
            raise ValueError(f"another process has {folder} open: close it, or use a server with url=") from error
    engine = QdrantEngine(client, collection, width, ef_search, exact)
    unanswered = require("qdrant_client.http.exceptions", "qdrant", "an index in Qdrant").ApiException
    try:
        engine.prepare(fingerprint)
        remember_name(folder, FILE, collection)
    except unanswered as error:
        client.close()
        raise ConnectionError(f"Qdrant cannot be reached: {str(error).strip()}") from error
    except BaseException:
        client.close()
        raise
    return engine


def check_usable() -> None:
    if not os.environ.get(URL):
        raise ValueError(
            f"an index in Qdrant asks the server that the environment variable {URL} names (its key: {API_KEY}): set "
            "it. The embedded engine keeps pickles, which are code to whoever opens them, so no index uses it: that "
            "one is for open_engine('qdrant', folder, width) and folders of your own"
        )
    require("qdrant_client", "qdrant", "an index in Qdrant")


def point_id(name: str) -> str:
    return str(uuid.uuid5(NAMES, name))


class QdrantEngine:
    """See `make_engine`, which makes it."""

    name = "qdrant"

    def __init__(self, client: Any, collection: str, width: int, ef_search: int | None, exact: bool):
        self.client, self.collection, self.width = client, collection, width
        self.models = require("qdrant_client.models", "qdrant", "an index in Qdrant")
        self.parameters = self.models.SearchParams(hnsw_ef=ef_search, exact=exact)

    def prepare(self, fingerprint: str | None) -> None:
        """The collection and what is said of it, made or checked."""
        said_in, said_as = f"{self.collection}_about", point_id("about")
        if self.client.collection_exists(said_in) and (found := self.client.retrieve(said_in, [said_as])):
            check_about(found[0].payload, self.width, fingerprint, f"the collection {self.collection!r}")
        elif self.client.collection_exists(self.collection):
            raise ValueError(f"{self.collection!r} is there and no index of ours: choose another collection")
        else:
            # first what it is of: a collection without it would be taken for somebody else's
            self._make(said_in, 1)
            about = {"format": FORMAT, "fingerprint": fingerprint or "", "width": self.width}
            point = self.models.PointStruct(id=said_as, vector=[1.0], payload=about)
            self.client.upsert(said_in, [point], wait=True)
        self._make(self.collection, self.width)

    def _make(self, collection: str, width: int) -> None:
        if not self.client.collection_exists(collection):
            vectors = self.models.VectorParams(size=width, distance=self.models.Distance.COSINE)
            self.client.create_collection(collection, vectors_config=vectors)

    def __len__(self) -> int:
        return self.client.count(self.collection, exact=True).count

    def add(self, ids: Sequence[str], vectors_NE: np.ndarray) -> None:
        """A thousand at a time; what has the same id is replaced."""
        vectors_NE = checked_rows(ids, vectors_NE, self.width, MOST_ID_BYTES)
        for start in range(0, len(ids), POINTS_AT_ONCE):
            some = ids[start : start + POINTS_AT_ONCE]
            batch = self.models.Batch(
                ids=[point_id(name) for name in some],
                vectors=vectors_NE[start : start + POINTS_AT_ONCE].tolist(),
                payloads=[{"id": name} for name in some],
            )
            self.client.upsert(self.collection, batch, wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        """Ids that are not there, or could not be, are no error."""
        points = [point_id(name) for name in ids if can_be_held(name, MOST_ID_BYTES)]
        for start in range(0, len(points), POINTS_AT_ONCE):
            # the embedded engine of older clients stumbles over a point that is not there
            there = self.client.retrieve(self.collection, points[start : start + POINTS_AT_ONCE], with_payload=False)
            if there:
                some = self.models.PointIdsList(points=[point.id for point in there])
                self.client.delete(self.collection, some, wait=True)

    def search(self, queries_QE: np.ndarray, k: int) -> tuple[list[list[str]], np.ndarray]:
        """Ids and cosines (Q, <= k), best first."""
        queries_QE = checked_queries(queries_QE, k, self.width)
        found: list[list[tuple[str, float]]] = []
        for start in range(0, len(queries_QE), QUERIES_AT_ONCE):
            asked = [
                self.models.QueryRequest(query=query, limit=k, params=self.parameters, with_payload=True)
                for query in queries_QE[start : start + QUERIES_AT_ONCE].tolist()
            ]
            answers = self.client.query_batch_points(self.collection, asked)
            found += [[(point.payload["id"], point.score) for point in answer.points] for answer in answers]
        return as_result(found)

    def clear(self) -> None:
        """All is forgotten; the collection is made again."""
        self.client.delete_collection(self.collection)
        self._make(self.collection, self.width)

    def drop(self) -> None:
        """The collection is removed, with all that is in it."""
        for collection in (self.collection, f"{self.collection}_about"):
            self.client.delete_collection(collection)

    def flush(self) -> None:
        """Nothing to do: both engines have written what `add` and `delete` did when they return."""

    def close(self) -> None:
        self.client.close()
