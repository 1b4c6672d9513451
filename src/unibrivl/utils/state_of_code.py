"""Which state of the code this is, for whatever must be made again: runs, scores."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


def version(folder: Path = HERE) -> str:
    """The commit of the checkout this runs from, with "+changes" if files differ from it; or the installed version."""
    from unibrivl import __version__

    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+changes"],
            cwd=folder,
            text=True,
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return f"unibrivl {__version__}"
    return found.stdout.strip()
