"""Run transformers' own common tests on our models, and diffusers' on our pipelines.

transformers' wheel carries no tests; its source distribution has the mixins that every model in the library must pass.
`make mixins` runs this: the source distribution of the installed version is taken from the package index once and kept
in .peers/, and the testers of tests/peers, which say how to make each of our models, run against it. What the mixins
import and the distribution leaves out (generation, exporters, distributed runs) is filled with empty stand-ins.

diffusers has such tests in its repository and in none of its distributions: they run where `--diffusers` names a
checkout of it, at the tag of the installed version.

Prints passed, skipped (with the reasons) and failed for each class, and exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
TESTERS = ROOT / "tests" / "peers"
# what a stand-in cannot be empty for: fields that every configuration must keep, and a cache of downloads
WRITTEN = {
    "config_common_kwargs": """config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "problem_type": "regression",
    "id2label": {0: "label"},
    "label2id": {"label": 0},
}""",
    "url_to_local_path": "def url_to_local_path(url): return url",
}
OUTSIDE = {"fetch_hub_objects_for_ci": {"url_to_local_path"}}  # in utils/ of the repository
MISSING = """def {name}(*args, **kwargs):
    raise unittest.SkipTest("transformers' source distribution has no {name}")"""


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"failed ({done.returncode}): {' '.join(command)}\n{done.stdout}{done.stderr}")


def source_distribution(cache: Path) -> Path:
    """The source distribution of the installed transformers, taken from the package index once."""
    archive = cache / f"transformers-{version('transformers')}.tar.gz"
    if not archive.exists():
        print(f"taking {archive.name} from the package index", flush=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            source = ["--no-deps", "--no-binary", "transformers", "--no-build-isolation"]
            pip("download", "-q", *source, "-d", temporary, f"transformers=={version('transformers')}")
            next(Path(temporary).glob("*.tar.gz")).rename(archive)
    return archive


def unpack_tests(archive: Path, into: Path) -> Path:
    """The distribution's tests with stand-ins for what they import and it leaves out; returns the folder above."""
    root = into / archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(into, [m for m in file if m.name.startswith(f"{root.name}/tests/")], filter="data")
    wanted: dict[Path, set[str]] = defaultdict(set)
    for source in sorted((root / "tests").glob("*.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                module = f"tests.{node.module}" if node.level == 1 else node.module
                path = root / f"{module.replace('.', '/')}.py"
                if module.startswith("tests.") and not path.exists():
                    wanted[path] |= {alias.name for alias in node.names}
    wanted |= {root / f"{module}.py": names for module, names in OUTSIDE.items()}
    for path, names in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["import unittest", *map(stand_in, sorted(names)), ""]), encoding="utf-8")
    for folder in [root / "tests", *(path for path in (root / "tests").rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    return root


def stand_in(name: str) -> str:
    return WRITTEN.get(name) or (f"class {name}: ..." if name[0].isupper() else MISSING.format(name=name))


def needed_packages(cache: Path) -> list[Path]:
    """A folder with what the mixins import and our environment does not have."""
    if importlib.util.find_spec("parameterized"):
        return []
    site = cache / "site"
    if not (site / "parameterized").exists():
        pip("install", "-q", "--no-deps", "--target", site, "parameterized")
    return [site]


def run(root: Path, packages: list[Path], testers: list[Path], arguments: list[str]) -> Path:
    """Runs the testers inside the source distribution, whose `tests` they import; returns the report."""
    report = root / "report.xml"
    # testers find tests/tiny_towers.py
    paths = [str(ROOT / "tests"), *map(str, packages), os.environ.get("PYTHONPATH", "")]
    settings = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    pytest = ["-m", "pytest", "-c", os.devnull, "--rootdir", root, "--noconftest", "--import-mode=importlib"]
    pytest += ["-p", "no:cacheprovider", "-o", "verbosity_subtests=0", "-W", "ignore", "--tb=short", "-q"]
    pytest += [f"--junitxml={report}", "--show-capture=no", *testers, *arguments]
    subprocess.run([sys.executable, *map(str, pytest)], cwd=root, env={**os.environ, **settings}, check=False)
    return report


def summary(report: Path, library: str = "transformers") -> bool:
    """Prints passed, skipped and failed by class, and why something was skipped; returns whether all is well."""
    if not report.exists():
        sys.exit("pytest wrote no report: what went wrong is above")
    counts: dict[str, Counter] = defaultdict(Counter)
    reasons: dict[str, Counter] = defaultdict(Counter)
    for case in ElementTree.parse(report).iter("testcase"):
        tester = case.get("classname", "").rpartition(".")[2] or case.get("name", "")
        if case.find("failure") is not None or case.find("error") is not None:
            counts[tester]["failed"] += 1
        elif (skipped := case.find("skipped")) is not None:
            counts[tester]["skipped"] += 1
            reasons[tester][skipped.get("message", "")] += 1
        else:
            counts[tester]["passed"] += 1
    print(f"\n{library} {version(library)}: its common tests on our classes")
    for tester, row in counts.items():
        print(f"{tester:32} {row['passed']:4} passed {row['skipped']:4} skipped {row['failed']:4} failed")
        for reason, number in reasons[tester].most_common():
            print(f"    {number:4} skipped: {reason}")
    return bool(counts) and not any(row["failed"] for row in counts.values())


def main() -> int:
    usage = "%(prog)s [--cache FOLDER] [--diffusers CHECKOUT] [FILE.py ...] [-k ...]"
    parser = argparse.ArgumentParser(description=__doc__, usage=usage)
    parser.add_argument("--cache", type=Path, default=ROOT / ".peers", help="where the distribution is kept")
    parser.add_argument("--diffusers", type=Path, help="a checkout of diffusers, for its tests of pipelines")
    args, others = parser.parse_known_args()  # files of tests/peers, all by default; the rest is pytest's
    testers = [Path(path).resolve() for path in others if path.endswith(".py")] or sorted(TESTERS.glob("peer_*.py"))
    arguments = [argument for argument in others if not argument.endswith(".py")]
    pipelines = [path for path in testers if path.name.startswith("peer_pipeline_")]
    models = [path for path in testers if path not in pipelines]
    cache = args.cache.resolve()
    cache.mkdir(exist_ok=True)
    ok = True
    if models:
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            root = unpack_tests(source_distribution(cache), Path(temporary))
            ok = summary(run(root, needed_packages(cache), models, arguments))
    if pipelines and args.diffusers is None:
        print("\ndiffusers: not run; its tests of pipelines are in its repository alone: --diffusers CHECKOUT")
    elif pipelines:
        # PyPI's parameterized is what they import and our environment does not have
        report = run(args.diffusers.resolve(), needed_packages(cache), pipelines, arguments)
        ok = summary(report, "diffusers") and ok
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
