"""The engines by name; a module is imported when its engine is asked for, so that none needs another's libraries."""

from __future__ import annotations

import importlib
import os

from unibrivl.search.engine import Engine

# name -> module with `open(folder, width, **options) -> Engine`
ENGINES = {
    "exact": "unibrivl.search.engine_exact",
    "faiss": "unibrivl.search.engine_faiss",
    "postgres": "unibrivl.search.engine_postgres",
    "qdrant": "unibrivl.search.engine_qdrant",
}


def open_engine(name: str, folder: str | os.PathLike, width: int, **options) -> Engine:
    """The engine `name` of an index in `folder`, made where there is none; vectors have `width` numbers."""
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}: choose one of {', '.join(sorted(ENGINES))}")
    return importlib.import_module(ENGINES[name]).open(folder, width, **options)
