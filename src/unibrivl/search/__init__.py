"""Search: vectors under ids in an engine, and the nearest of a query.

    from unibrivl.search import open_engine
    engine = open_engine("postgres", "birds.index", width=512, dsn="postgresql://localhost/birds")

What an engine is: `engine`; which there are: `engines`.
"""

from unibrivl.search.engine import Engine
from unibrivl.search.engines import ENGINES, open_engine

__all__ = ["ENGINES", "Engine", "open_engine"]
