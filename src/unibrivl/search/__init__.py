"""Find: files as vectors in a folder, and which of them are nearest to a sound, a picture, a text, or a mixture."""

from unibrivl.search.engine import Engine
from unibrivl.search.engines import ENGINES, open_engine

__all__ = ["ENGINES", "Engine", "open_engine"]
