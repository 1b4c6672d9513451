"""The table of engines. A module is imported when its engine is asked for, so none needs what another is made of.

Each module has `make_engine(folder, width, *, options)`, which opens what lies in `folder`, or begins it there, and
`check_usable()` where something may be missing: what it is made of, or the environment variable of its server. One
that asks a server says two things more: `CONNECTION`, which of its options tell where the server is and who asks, with
the environment variable of each, and `PLACE`, the option that names its table.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from unibrivl.search.engine import Engine

# name -> module
ENGINES = {
    "exact": "unibrivl.search.exact",
    "faiss": "unibrivl.search.with_faiss",
    "postgres": "unibrivl.search.with_postgres",
    "qdrant": "unibrivl.search.with_qdrant",
}
OF_INDEX = {"dtype", "read_only", "fingerprint"}  # options that an index sets itself


def open_engine(name: str, folder: str | os.PathLike, width: int, **options) -> Engine:
    """The engine of this name, with what it keeps in `folder`.

    Args:
        name (`str`): a key of `ENGINES`.
        width (`int`): numbers in a vector.
        options: of the engine; see its module.
    """
    if width < 1:
        raise ValueError(f"vectors have a width of at least 1, got {width}")
    check_known(name, options, known_options(name))
    return module_of(name).make_engine(Path(folder), width, **options)


def module_of(name: str) -> ModuleType:
    if not isinstance(name, str) or name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}: take one of {', '.join(sorted(ENGINES))}")
    return importlib.import_module(ENGINES[name])


def known_options(name: str) -> list[str]:
    """What the engine of this name can be told."""
    given = inspect.signature(module_of(name).make_engine).parameters.values()
    return [one.name for one in given if one.kind is one.KEYWORD_ONLY]


def is_server(name: str) -> bool:
    """Whether what the engine keeps lies elsewhere, where others can change it."""
    return hasattr(module_of(name), "CONNECTION")


def check_known(name: str, options: Iterable[str], known: Iterable[str]) -> None:
    unknown = [option for option in options if option not in known]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none here"
        raise ValueError(f"the engine {name} has no such option: {', '.join(map(repr, unknown))}; {has}")


def check_kept_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuses what an index may not write down, nor read from a folder that may be a stranger's.

    A password would lie on the disk, and an address of a stranger's would be sent our key.
    """
    module = module_of(name)
    connection: dict[str, str] = getattr(module, "CONNECTION", {})
    for option in options:
        if option in connection:
            raise ValueError(
                f"an index does not keep {option}, since its folder may be anybody's: leave it out of the options, "
                f"and set the environment variable {connection[option]}"
            )
    check_known(name, options, [one for one in known_options(name) if one not in {*connection, *OF_INDEX}])
    place = getattr(module, "PLACE", "")
    if place in options and "{kind}" not in str(options[place]):
        raise ValueError(
            f"sounds, pictures and texts lie apart: write {{kind}} where it stands in {place}={options[place]!r}, "
            f"such as {place}=mine_{{kind}}"
        )


def check_for_index(name: str, options: Mapping[str, Any]) -> None:
    """Both: before an index is made, and before it opens an engine."""
    check_kept_options(name, options)
    check_usable(name)


def check_usable(name: str) -> None:
    """Refuses an engine that an index cannot use here, before hours go into its vectors."""
    module = module_of(name)
    if hasattr(module, "check_usable"):
        module.check_usable()
