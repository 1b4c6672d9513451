"""From a folder on a disk to examples: your own sounds and pictures, or a benchmark as its makers lay it out.

Everything comes back as one `Listing` of `Sample`s, which says how many were found of how many. No sound or picture is
opened for it: `load_audio` reads the ones, `unibrivl.data.pictures` the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from unibrivl.data import (
    audioset,
    clotho,
    desed,
    esc50,
    flickr8k_audio,
    folder,
    localized_narratives,
    packs,
    ravdess,
    spoken_coco,
    urbansound8k,
    vegas,
    vggsound,
)
from unibrivl.data.records import DatasetError, Listing, Sample
from unibrivl.data.tables import nearest

__all__ = ["LOADERS", "DatasetError", "Listing", "Sample", "load"]

# name -> what reads it
LOADERS: dict[str, Callable[..., Listing]] = {
    "folder": folder.load,
    "audioset": audioset.load,
    "clotho": clotho.load,
    "desed": desed.load,
    "esc50": esc50.load,
    "flickr8k_audio": flickr8k_audio.load,
    "localized_narratives": localized_narratives.load,
    "ravdess": ravdess.load,
    "spoken_coco": spoken_coco.load,
    "urbansound8k": urbansound8k.load,
    "vegas": vegas.load,
    "vggsound": vggsound.load,
    "captions": packs.load_captions,
    "sounds_and_pictures": packs.load_sounds_and_pictures,
    "speech_emotion": packs.load_speech_emotion,
    "spoken_digits": packs.load_spoken_digits,
}


def load(root: str | os.PathLike, name: str = "folder", **options: Any) -> Listing:
    """A folder as a `Listing`.

    Args:
        root (`str`): the folder, or a table of your own.
        name (`str`, *optional*, defaults to `"folder"`): which of `LOADERS` reads it.
        options: what that loader takes: `load("sounds", how="labels")`.
    """
    if name not in LOADERS:
        near = nearest(name, LOADERS)
        raise ValueError(
            f"no dataset is called {name!r}: there are {', '.join(LOADERS)}" + (f". Is it {near!r}?" if near else "")
        )
    return LOADERS[name](root, **options)
