"""Features that were computed once: a file that is believed only if its ids and its fingerprint are the expected ones.

The fingerprint is whatever the features depend on beside the items: model, revision, windows, rate. A file is written
beside its place and moved there when it is whole, so that an interrupted run leaves no half of one.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unibrivl.metrics.arrays import as_array, refuse_non_finite

__all__ = ["cached_features"]

logger = logging.getLogger(__name__)


def cached_features(
    path: str | Path,
    ids: Sequence[str],
    fingerprint: str,
    compute: Callable[[list[str]], Any],
    *,
    on_mismatch: Literal["recompute", "raise"] = "recompute",
) -> np.ndarray:
    """The features of `ids`, in their order: from the file if it holds just these, else computed and written.

    Args:
        path (`str` or `Path`): an npz file; its folder is made.
        ids (`Sequence[str]`): the items, each once.
        fingerprint (`str`): what else the features depend on.
        compute (callable): gets the ids and returns an array with one row for each; called only if need be.
        on_mismatch (`str`, *optional*, defaults to `"recompute"`): what to do if the file is of other ids, of another
            fingerprint or damaged: compute and overwrite, or `"raise"`.
    """
    if on_mismatch not in ("recompute", "raise"):
        raise ValueError(f"on_mismatch is {on_mismatch!r} and must be 'recompute' or 'raise'")
    path, names = Path(path), [str(one) for one in ids]
    if len(set(names)) < len(names):
        raise ValueError("ids occur twice: a row could not be told from another")
    if path.exists():
        features, why = read(path, names, fingerprint)
        if features is not None:
            return features
        if on_mismatch == "raise":
            raise ValueError(f"{path} {why}. Delete it, give another path, or pass on_mismatch='recompute'")
        logger.warning("%s %s: computing anew", path, why)
    features = as_array(compute(names), "features")
    if features.ndim < 1 or len(features) != len(names):
        raise ValueError(f"compute returned the shape {features.shape} for {len(names)} ids: one row for each, please")
    refuse_non_finite(features, "features")
    write(path, names, fingerprint, features)
    return features


def read(path: Path, ids: list[str], fingerprint: str) -> tuple[np.ndarray | None, str]:
    """The features, or None and what is wrong with the file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["fingerprint"]) != fingerprint:
                return None, f"has the fingerprint {str(file['fingerprint'])!r} and not {fingerprint!r}"
            if file["ids"].tolist() != ids:
                return None, f"holds {len(file['ids'])} ids which are not the {len(ids)} asked for in their order"
            features = file["features"]
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, AttributeError) as error:
        return None, f"is no file of features ({error})"
    if len(features) != len(ids):
        return None, f"has {len(features)} rows for {len(ids)} ids"
    return features, ""


def write(path: Path, ids: list[str], fingerprint: str, features: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, features=features, ids=np.array(ids, dtype=str), fingerprint=np.array(fingerprint))
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
