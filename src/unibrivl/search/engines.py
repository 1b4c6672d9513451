"""The table of engines. A module is imported when its engine is asked for, so none needs what another is made of.

Each module has `make_engine(folder, width, **options)`, which opens what lies in `folder`, or begins it there.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from unibrivl.search.engine import Engine

# name -> module
ENGINES = {
    "exact": "unibrivl.search.exact",
    "faiss": "unibrivl.search.with_faiss",
    "postgres": "unibrivl.search.with_postgres",
    "qdrant": "unibrivl.search.with_qdrant",
}


def open_engine(name: str, folder: str | os.PathLike, width: int, **options) -> Engine:
    """The engine of this name, with what it keeps in `folder`.

    Args:
        name (`str`): a key of `ENGINES`.
        width (`int`): numbers in a vector.
        options: of the engine; see its module.
    """
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}: take one of {', '.join(sorted(ENGINES))}")
    if width < 1:
        raise ValueError(f"vectors have a width of at least 1, got {width}")
    module = importlib.import_module(ENGINES[name])
    try:
        return module.make_engine(Path(folder), width, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"the engine {name} has no such option: {str(error).split('argument ')[-1]}") from error
