"""Engines of search on made-up vectors in clusters: time to build, recall, time of a query, memory and disk.

    python benchmarks/bench_search.py --sizes 10000 100000 --engines exact faiss

Recall is of the ten nearest that a plain product finds. Each engine runs in a process of its own, whose largest memory
is what is told; queries are asked one at a time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from unibrivl.search import open_engine

WIDTH, QUERIES, NEAREST, BLOCK = 512, 100, 10, 10_000
RESULTS = Path(__file__).parent / "results" / "bench_search.json"


def block(number: int, count: int, width: int) -> np.ndarray:
    """Vectors around a thousand centres, near enough that neighbours are hard to tell apart."""
    centres = np.random.default_rng(0).standard_normal((1000, width), np.float32)
    generator = np.random.default_rng(number + 1)
    vectors = centres[generator.integers(1000, size=count)] + generator.standard_normal((count, width), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def blocks(size: int, width: int):
    for begin in range(0, size, BLOCK):
        count = min(BLOCK, size - begin)
        yield [str(begin + row) for row in range(count)], block(begin // BLOCK, count, width)


def truth(size: int, width: int, queries: np.ndarray) -> list[set[str]]:
    best, names = np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), int)
    for ids, vectors in blocks(size, width):
        first = int(ids[0])
        best = np.concatenate([best, queries @ vectors.T], 1)
        names = np.concatenate(
            [names, np.broadcast_to(np.arange(first, first + len(ids)), (len(queries), len(ids)))], 1
        )
        order = np.argsort(-best, 1)[:, :NEAREST]
        best, names = np.take_along_axis(best, order, 1), np.take_along_axis(names, order, 1)
    return [set(map(str, row)) for row in names]


def measure(name: str, size: int, width: int) -> dict:
    queries = block(-2 + (1 << 20), QUERIES, width)
    with tempfile.TemporaryDirectory() as folder:
        options = {"expected": size} if name == "faiss" else {}
        began = time.perf_counter()
        engine = open_engine(name, folder, width, **options)
        for ids, vectors in blocks(size, width):
            engine.add(ids, vectors)
        engine.flush()
        build_s = time.perf_counter() - began
        engine.search(queries[:1], NEAREST)  # the first reads from the disk
        times, found = [], []
        for query in queries:
            began = time.perf_counter()
            found.append(engine.search(query[None], NEAREST)[0][0])
            times.append(time.perf_counter() - began)
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        engine.close()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    right = truth(size, width, queries)
    recall = np.mean([len(set(one) & wanted) / NEAREST for one, wanted in zip(found, right, strict=True)])
    return {
        "engine": name,
        "kind": getattr(engine, "kind", ""),
        "vectors": size,
        "width": width,
        "build_s": round(build_s, 2),
        "recall_at_10": round(float(recall), 4),
        "p50_ms": round(1000 * float(np.percentile(times, 50)), 3),
        "p95_ms": round(1000 * float(np.percentile(times, 95)), 3),
        "memory_mb": round(memory / 1e6),
        "disk_mb": round(disk / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--engines", nargs="+", default=["exact", "faiss"])
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.engines[0], args.sizes[0], args.width)))
        return
    rows = []
    for size in args.sizes:
        for name in args.engines:
            words = [sys.executable, __file__, "--one", "--sizes", str(size), "--engines", name]
            done = subprocess.run([*words, "--width", str(args.width)], stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            if len(rows) == 1:
                print("  ".join(f"{key:>12}" for key in rows[0]))
            print("  ".join(f"{value!s:>12}" for value in rows[-1].values()), flush=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
