"""Find: files as vectors in a folder, and which of them are nearest to a sound, a picture, a text, or a mixture."""

from unibrivl.search.engine import Engine
from unibrivl.search.engines import ENGINES, open_engine
from unibrivl.search.index import Hit, Index, change_engine, remove
from unibrivl.search.query import Part, Query, encoded
from unibrivl.search.update import UpdateReport, update

__all__ = [
    "ENGINES",
    "Engine",
    "Hit",
    "Index",
    "Part",
    "Query",
    "UpdateReport",
    "change_engine",
    "encoded",
    "open_engine",
    "remove",
    "update",
]
