"""How long `import unibrivl` and `unibrivl --help` take, against a bare interpreter, with limits that fail the run.

Writes `results/import.json`. Each figure is the best of ten fresh interpreters, taken in turn so that a busy moment
falls on all of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from machine import describe

RESULTS = Path(__file__).resolve().parent / "results" / "import.json"
RUNS = 10
COMMANDS = {
    "bare_interpreter": ["-c", ""],
    "import_unibrivl": ["-c", "import unibrivl"],
    "unibrivl_help": ["-m", "unibrivl", "--help"],
}
IMPORT_LIMIT_S = 0.15  # above a bare interpreter
HELP_LIMIT_S = 0.4  # in all


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for arguments in COMMANDS.values():
        seconds(arguments)  # fills the file cache and writes the .pyc files
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    best = {name: min(found) for name, found in times.items()}
    figures = {
        "import_above_bare_s": {"value": best["import_unibrivl"] - best["bare_interpreter"], "limit": IMPORT_LIMIT_S},
        "help_s": {"value": best["unibrivl_help"], "limit": HELP_LIMIT_S},
    }
    missed = 0
    for name, figure in figures.items():
        figure["value"] = round(figure["value"], 4)
        verdict = "ok" if figure["value"] <= figure["limit"] else "TOO SLOW"
        missed += verdict != "ok"
        print(f"{name:22s} {figure['value']:.3f} s   limit {figure['limit']} s   {verdict}")
    result = {
        "runs": RUNS,
        "best_s": {name: round(value, 4) for name, value in best.items()},
        "figures": figures,
        "machine": describe(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
