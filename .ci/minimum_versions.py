"""Print, as a pip constraint file, the lowest versions that setup.cfg admits.

A requirement with a lower bound (`numpy>=1.26.4`) becomes exactly that version; the tools of `dev`, which have none,
keep their pins of constraints.txt. `make test-min` installs `.[dev]` under the result and runs the quick tests.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("video", "text", "postgres", "qdrant", "dev")  # what the quick tests import beyond the core

# Not ours to bound, and needed for the set to work together:
COMPANIONS = {"pyarrow": "21.0.0"}  # datasets 4.4 takes any newer one, and recent ones refuse numpy 1.26


def requirements(config: configparser.ConfigParser) -> list[str]:
    """The requirement lines of the core and of EXTRAS, self-references left out."""
    lines = config["options"]["install_requires"].splitlines()
    for extra in EXTRAS:
        lines += config["options.extras_require"][extra].splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("unibrivl[")]


def lowest(lines: list[str], pins: dict[str, str]) -> dict[str, str]:
    """Requirement lines -> {distribution: version}; raises if a line has neither a lower bound nor a pin."""
    versions = {}
    for line in lines:
        # "psycopg[binary]" is pinned as psycopg; what a marker leaves out on some Python may be pinned all the same
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?(?:>=([0-9][0-9a-z.]*))?(?:;.*)?", line)
        if not match:
            raise ValueError(f"setup.cfg: {line!r} is not of the form name>=version")
        name, bound = match.groups()
        if bound is None and name not in pins:
            raise ValueError(f"setup.cfg: {name} has no lower bound, and constraints.txt no pin for it")
        versions[name] = pins[name] if bound is None else bound
    return versions


def read_pins(text: str) -> dict[str, str]:
    return dict(line.split("==") for line in text.splitlines() if "==" in line and not line.startswith("#"))


def main() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    pins = read_pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    for name, version in (lowest(requirements(config), pins) | COMPANIONS).items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
