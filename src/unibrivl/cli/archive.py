"""The index of `unibrivl serve --index`: opened for reading, with the model that it is of."""

from __future__ import annotations

import argparse
from typing import Any


def load_archive(folder: str, pipe: Any, limits: Any, lock: Any, device: str | None = None) -> Any:
    """An archive whose queries are embedded by the model of the index.

    Where that is the page's own model, nothing is loaded.
    """
    from unibrivl.app.archive import Archive
    from unibrivl.cli.search import load_embedder
    from unibrivl.search import Index

    with Index.open(folder) as index:
        about, fingerprint = index.about, index.fingerprint
    embedder = own_embedder(pipe, about["settings"].get("window_s"))
    if embedder is None or embedder.fingerprint != fingerprint:
        embedder = load_embedder(argparse.Namespace(index=folder, model=None, device=device), about)
        lock = None
    return Archive(folder, embedder, limits, lock)


def own_embedder(pipe: Any, window_s: float | None) -> Any:
    from unibrivl.embedder import Embedder

    try:
        return Embedder(pipe.listener, window_s=window_s)
    except ValueError:  # it hears less than the windows of the index: it is another model
        return None


__all__ = ["load_archive"]
