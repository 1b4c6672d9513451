"""`load(model)`: a name or folder -> an embedder, whatever family the model is of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from unibrivl.embedded import embedded
from unibrivl.embedder.calibration import FILE, Calibration
from unibrivl.embedder.embedder import Embedder

SETTINGS = ("window_s", "hop_s", "batch_size", "workers", "calibration")
EMBEDDED = "embedded"
MATCHER = "matcher"  # a pipeline's folder of it


def load(model: str | os.PathLike | Any, processor: Any = None, *, space: str = "match", **kwargs) -> Embedder:
    """An embedder of a model on the Hub or in a folder: UniBriVL, CAV-MAE, CAVT-MAE, BrewCLIP, CLAP,
    PE-AV (`facebook/pe-av-*`), CLIP, SigLIP.

    Args:
        model: name, folder, or a loaded model; a loaded one needs its `processor` too. "embedded" is the small model
            that lies in this package. Of a folder with a whole pipeline its matcher is taken.
        processor (*optional*): what prepares the model's input, where it does not lie beside the model.
        space (`str`): of UniBriVL's vectors: `"match"`, `"shared"` or `"native"`; see `UniBriVLMatcher`.
        kwargs: settings of `Embedder` (window_s, hop_s, batch_size, workers, calibration); all else is for
            `from_pretrained`: revision, dtype, device_map, token, local_files_only, ...
    """
    settings = {name: kwargs.pop(name) for name in SETTINGS if name in kwargs}
    embedder = Embedder(make_matcher(model, processor, space, kwargs), **settings)
    if "calibration" not in settings and isinstance(model, (str, os.PathLike)):
        folder = embedded() if model == EMBEDDED else Path(model)
        if (folder / FILE).is_file():
            embedder.calibration = Calibration.read(folder, embedder.fingerprint) or embedder.calibration
    return embedder


def make_matcher(model, processor, space: str, kwargs: dict):
    """The matcher of a model, loaded if it is a name or a folder."""
    from unibrivl.modeling.matching_models_unibrivl import load_model_and_processor, matcher_of

    if isinstance(model, (str, os.PathLike)):
        folder = embedded() if model == EMBEDDED else Path(model)
        if (folder / "model_index.json").is_file():
            model, processor, kwargs = in_pipeline(folder, processor, kwargs)
        model, processor = load_model_and_processor(os.fspath(model), processor, **kwargs)
    return matcher_of(model, processor, space)


def in_pipeline(folder: Path, processor: Any, kwargs: dict) -> tuple[Path, Any, dict]:
    """Where the matcher of a saved pipeline is, and what prepares its input.

    It is loaded in float32 unless told otherwise, however it is stored: half precision is for carrying it about.
    """
    from unibrivl.modeling import UniBriVLProcessor

    if not (folder / MATCHER).is_dir():
        raise ValueError(f"{folder} is a pipeline without a matcher, which embeds: load one that was saved with it")
    if processor is None:
        processor = UniBriVLProcessor.from_pretrained(folder / f"{MATCHER}_processor")
    return folder / MATCHER, processor, {"dtype": "float32", **kwargs}
