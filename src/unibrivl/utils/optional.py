"""The guard around optional dependencies: a missing one says which pip line brings it."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or raise an `ImportError` that names the extra of unibrivl it comes with.

    Args:
        module (`str`): the module to import, such as `"av"`.
        extra (`str`): the extra of `setup.cfg` that installs it.
        purpose (`str`): what the user wanted, in words: `"reading m4a files"`.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise  # the library is there and one of its own dependencies is not: its message is the better one
        raise ImportError(f'{purpose} needs {module}. Install it with: pip install "unibrivl[{extra}]"') from error
