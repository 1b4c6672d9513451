"""Engines of search on made-up vectors in clusters: time to build, recall, time of a query, memory and disk.

    python benchmarks/bench_search.py
    python benchmarks/bench_search.py --sizes 10000 --engines exact postgres

Recall is of the ten nearest that a plain product finds. Each engine runs in a process of its own, whose largest memory
is told (of PostgreSQL that of the client alone); pages of mapped files count in it, though the system may take them
back. Queries are asked one at a time. `index` is the whole road of a user: an `Index` with its catalogue, searched by
faiss, estimates computed again from the vectors. Where an engine would take an hour it is left out (`MOST`).

Shapes: N vectors, Q queries, E width.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from unibrivl.embedder import Embeddings
from unibrivl.search import Index, open_engine

WIDTH, QUERIES, NEAREST, BLOCK = 512, 200, 10, 10_000
HERE = Path(__file__).parent
RESULTS, PLOT = HERE / "results" / "search.json", HERE.parent / "docs" / "images" / "search_engines.png"
OPTIONS: dict[str, dict[str, Any]] = {
    "exact": {},
    "exact, half": {"dtype": "float16"},
    "faiss": {},  # chosen by size
    "faiss graph": {"kind": "hnsw"},
    "faiss bytes": {"kind": "ivf"},
    "faiss codes": {"kind": "ivfpq"},
    "index": {},
    "postgres": {},
    "postgres graph": {},
    "qdrant": {},
}
MOST = {
    "exact, half": 100_000,
    "faiss graph": 100_000,
    "faiss codes": 100_000,
    "postgres": 10_000,
    "postgres graph": 10_000,
    "qdrant": 10_000,
}


def block(number: int, count: int, width: int) -> np.ndarray:
    """Vectors around a thousand centres, near enough that neighbours are hard to tell apart."""
    centres = np.random.default_rng(0).standard_normal((1000, width), np.float32)
    generator = np.random.default_rng(number + 1)
    vectors = centres[generator.integers(1000, size=count)] + generator.standard_normal((count, width), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def blocks(size: int, width: int) -> Iterator[tuple[list[str], np.ndarray]]:
    for begin in range(0, size, BLOCK):
        count = min(BLOCK, size - begin)
        yield [str(begin + row) for row in range(count)], block(begin // BLOCK, count, width)


def truth(size: int, queries_QE: np.ndarray) -> list[set[str]]:
    count, width = queries_QE.shape
    best, names = np.zeros((count, 0), np.float32), np.zeros((count, 0), int)
    for ids, vectors_NE in blocks(size, width):
        first = int(ids[0])
        best = np.concatenate([best, queries_QE @ vectors_NE.T], 1)
        names = np.concatenate([names, np.broadcast_to(np.arange(first, first + len(ids)), (count, len(ids)))], 1)
        order = np.argsort(-best, 1)[:, :NEAREST]
        best, names = np.take_along_axis(best, order, 1), np.take_along_axis(names, order, 1)
    return [set(map(str, row)) for row in names]


class Road:
    """An `Index` behind the three verbs that are timed."""

    def __init__(self, folder: str):
        self.folder = Path(folder) / "index"
        self.index = Index.create(self.folder, fingerprint="made up", engine="faiss")

    def add(self, ids: list[str], vectors_NE: np.ndarray) -> None:
        self.index.add(Embeddings(vectors_NE, tuple(ids), "image", fingerprint="made up"))

    def flush(self) -> None:
        self.index.close()
        self.index = Index.open(self.folder)

    def search(self, queries_QE: np.ndarray, k: int) -> tuple[list[list[str]], None]:
        return [[hit.path for hit in self.index.search(query, top=k)] for query in queries_QE], None

    def close(self) -> None:
        self.kind = getattr(self.index.engine("image"), "kind", "")
        self.index.close()


def opened(name: str, folder: str, size: int, width: int, stack: ExitStack) -> Any:
    if name == "index":
        return Road(folder)
    options = dict(OPTIONS[name])
    if name.startswith("faiss"):
        options["expected"] = size
    if name.startswith("postgres"):
        import pgserver

        server = pgserver.get_server(folder, cleanup_mode="stop")
        stack.callback(server.cleanup)
        options["dsn"] = server.get_uri()
    return open_engine(name.partition(" ")[0].strip(","), folder, width, **options)


def measure(name: str, size: int, width: int) -> dict[str, Any]:
    queries_QE = block(-2 + (1 << 20), QUERIES, width)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        build_s, began = 0.0, time.perf_counter()
        engine = opened(name, folder, size, width, stack)
        build_s += time.perf_counter() - began
        for ids, vectors_NE in blocks(size, width):
            began = time.perf_counter()  # the vectors themselves are not timed
            engine.add(ids, vectors_NE)
            build_s += time.perf_counter() - began
        began = time.perf_counter()
        engine.flush()
        if name == "postgres graph":
            engine.build_index()  # of what is there: several times as quick as row by row
        build_s += time.perf_counter() - began
        for query_E in queries_QE[:3]:
            engine.search(query_E[None], NEAREST)  # the first read from the disk
        times, found = [], []
        for query_E in queries_QE:
            began = time.perf_counter()
            found.append(engine.search(query_E[None], NEAREST)[0][0])
            times.append(time.perf_counter() - began)
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        engine.close()
    right = truth(size, queries_QE)
    recall = np.mean([len(set(one) & wanted) / NEAREST for one, wanted in zip(found, right, strict=True)])
    return {
        "engine": name,
        "kind": getattr(engine, "kind", ""),
        "vectors": size,
        "width": width,
        "build_s": round(build_s, 2),
        "ingest_per_s": round(size / build_s),
        "recall_at_10": round(float(recall), 4),
        "p50_ms": round(1000 * float(np.percentile(times, 50)), 3),
        "p95_ms": round(1000 * float(np.percentile(times, 95)), 3),
        "memory_mb": round(memory / 1e6),
        "disk_mb": round(disk / 1e6, 1),
    }


def drawn(rows: list[dict[str, Any]], path: Path) -> None:
    """Time of a query, vectors taken in a second, and memory, each by how many vectors there are."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    marks = dict(zip(OPTIONS, "osv^<>D*XP", strict=True))
    told = [("p95_ms", "p95 of a query, ms"), ("ingest_per_s", "vectors taken in per second"),
            ("memory_mb", "largest memory of the process, MB")]  # fmt: skip
    goals = {"p95_ms": 10, "ingest_per_s": 20_000}
    for axis, (key, title) in zip(axes, told, strict=True):
        for name, mark in marks.items():
            mine = [row for row in rows if row["engine"] == name]
            if mine:
                axis.plot([row["vectors"] for row in mine], [row[key] for row in mine], marker=mark, label=name)
        if key in goals:
            axis.axhline(goals[key], color="0.6", linestyle=":", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel=f"vectors of {rows[0]['width']} numbers", title=title)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=110)


NAMES = {
    "exact, half": "exact, half precision",
    "faiss": "faiss, chosen by size",
    "faiss graph": "faiss graph (HNSW)",
    "faiss bytes": "faiss bytes (IVF-SQ8)",
    "faiss codes": "faiss codes (IVF-PQ)",
    "index": "an `Index` with faiss",
    "postgres": "PostgreSQL, pgvector",
    "postgres graph": "PostgreSQL, its HNSW",
    "qdrant": "Qdrant, embedded",
}


def table(rows: list[dict[str, Any]]) -> str:
    """As it stands in docs/search.md."""
    lines = [
        "| engine | vectors | in per second | recall@10 | p50 ms | p95 ms | memory MB | disk MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        name = NAMES.get(row["engine"], row["engine"]) + (
            f" ({row['kind']})" if row["engine"] in ("faiss", "index") else ""
        )
        counts = [f"{row[key]:,.0f}".replace(",", " ") for key in ("vectors", "ingest_per_s", "memory_mb", "disk_mb")]
        lines.append(
            f"| {name} | {counts[0]} | {counts[1]} | {row['recall_at_10']:.3f} | {row['p50_ms']:.1f} | "
            f"{row['p95_ms']:.1f} | {counts[2]} | {counts[3]} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--engines", nargs="+", default=list(OPTIONS), choices=OPTIONS, metavar="ENGINE")
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--out", type=Path, default=RESULTS, help="rows of other engines and sizes there are kept")
    parser.add_argument("--plot", type=Path, default=PLOT)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.engines[0], args.sizes[0], args.width)))
        return
    if importlib.util.find_spec("matplotlib") is None:  # now, and not when everything is measured
        raise SystemExit("the plots need matplotlib: pip install matplotlib")
    rows = json.loads(args.out.read_text(encoding="ascii"))["rows"] if args.out.exists() else []
    for size in args.sizes:
        for name in [one for one in args.engines if size <= MOST.get(one, size)]:
            words = [sys.executable, __file__, "--one", "--sizes", str(size), "--engines", name]
            waiting = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # threads that wait do not hold a core
            done = subprocess.run(
                [*words, "--width", str(args.width)], stdout=subprocess.PIPE, text=True, check=True, env=waiting
            )
            row = json.loads(done.stdout.splitlines()[-1])
            print("  ".join(f"{key} {value}" for key, value in row.items() if value != ""), flush=True)
            rows = [one for one in rows if (one["engine"], one["vectors"]) != (name, size)] + [row]
            order = list(OPTIONS)
            rows.sort(key=lambda one: (one["vectors"], order.index(one["engine"])))
            told = {"machine": describe(), "queries": QUERIES, "nearest": NEAREST, "rows": rows}
            args.out.write_text(json.dumps(told, indent=1) + "\n", encoding="ascii")
    drawn(rows, args.plot)
    print(table(rows))


if __name__ == "__main__":
    main()
