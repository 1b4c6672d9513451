"""The wheel carries the tree: every file of every package, and nothing that is not one.

A subpackage missing from `packages` in setup.cfg works from a checkout and is absent from the wheel, so the built
wheel is compared with the folders. The build runs on a copy: setuptools leaves `build/` behind and would pack stale
files from it.
"""

from __future__ import annotations

import configparser
import email
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEFT_BEHIND = {"__pycache__", ".mypy_cache", ".ruff_cache"}


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def package_folders(config) -> dict[str, Path]:
    """Package -> its folder, as `packages` and `package_dir` of setup.cfg say."""
    mapped = dict(line.split(" = ") for line in config["options"]["package_dir"].split("\n") if line)
    folders = {}
    for package in config["options"]["packages"].split():
        root = max((name for name in mapped if f"{package}.".startswith(f"{name}.")), key=len)
        folders[package] = ROOT.joinpath(mapped[root], *package.split(".")[root.count(".") + 1 :])
    return folders


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, config, package_folders) -> zipfile.ZipFile:
    """The wheel of a copy of what packaging needs, built by setuptools itself."""
    copy = tmp_path_factory.mktemp("checkout")
    needed = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE", "src"]
    needed += [line.split(" = ")[1] for line in config["options"]["package_dir"].split("\n") if line]
    for name in {Path(name).parts[0] for name in needed}:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns(*LEFT_BEHIND, "*.egg-info")
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(ROOT / name, copy / name)
    code = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, copy / "dist"], cwd=copy, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next((copy / "dist").glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(wheel) -> email.message.Message:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def files_in(folder: Path) -> set[str]:
    """Files of one package folder, subpackages and caches left out; folders without `__init__.py` hold its data."""
    found = set()
    for where, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f not in LEFT_BEHIND and not (Path(where) / f / "__init__.py").exists()]
        found |= {(Path(where) / name).relative_to(folder).as_posix() for name in files if not name.endswith(".pyc")}
    return found


def test_packages_are_the_folders_with_an_init(package_folders):
    on_disk = set()
    for where, folders, files in os.walk(ROOT / "src" / "unibrivl", followlinks=True):
        folders[:] = [f for f in folders if f not in LEFT_BEHIND]
        if "__init__.py" in files:
            on_disk.add(".".join(Path(where).relative_to(ROOT / "src").parts))
    assert set(package_folders) == on_disk


def test_every_package_folder_exists(package_folders):
    assert [package for package, folder in package_folders.items() if not (folder / "__init__.py").is_file()] == []


def test_the_wheel_is_the_tree(wheel, package_folders):
    expected = {
        f"{package.replace('.', '/')}/{name}"
        for package, folder in package_folders.items()
        for name in files_in(folder)
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert "unibrivl/py.typed" in packed
    assert any(name.startswith("unibrivl/modeling/") for name in packed)


def test_the_wheel_holds_no_test_or_golden(wheel):
    assert [
        name for name in wheel.namelist() if "test" in name or "golden" in name or "/parity_speechlm" in name
    ] == []


@pytest.mark.parametrize("name", ["modeling", "model_cards", "pipelines", "training"])
def test_a_root_folder_is_reachable_inside_the_package(name):
    """Each root folder of the namespace has its symlink, for type checkers and editors."""
    link = ROOT / "src" / "unibrivl" / name
    if not (ROOT / name).exists():
        assert not link.is_symlink()
    elif not link.is_symlink():
        pytest.skip("this checkout has no symlinks; it imports all the same")
    else:
        assert Path(os.readlink(link)) == Path("../..") / name
        assert link.resolve() == ROOT / name


def test_the_metadata_names_the_licence(wheel, metadata):
    assert metadata["License-Expression"] == "Apache-2.0 AND CC-BY-SA-4.0"  # the code, and the embedded weights
    licence = next(name for name in wheel.namelist() if name.endswith("/LICENSE"))
    assert wheel.read(licence) == (ROOT / "LICENSE").read_bytes()
    terms = next(name for name in wheel.namelist() if "dist-info" in name and name.endswith("/LICENSE-WEIGHTS"))
    assert wheel.read(terms) == (ROOT / "src/unibrivl/embedded/open/LICENSE-WEIGHTS").read_bytes()


def test_the_metadata_has_every_extra(config, metadata):
    assert set(metadata.get_all("Provides-Extra")) == set(config["options.extras_require"])


def test_the_metadata_asks_for_lower_bounds_only(metadata):
    """A leaf package that pins or caps freezes the environment of whoever installs it."""
    asked = metadata.get_all("Requires-Dist")
    assert [line for line in asked if any(sign in line.split(";")[0] for sign in ("==", "<", "~=", "@ "))] == []
    core = [line for line in asked if ";" not in line]
    assert len(core) == 10
    assert not [line for line in core if ">=" not in line]


def test_the_wheel_installs_the_command(wheel):
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "unibrivl = unibrivl.cli:main" in wheel.read(name).decode()


def test_constraints_satisfy_the_lower_bounds(config):
    """constraints.txt pins every distribution that setup.cfg asks for, at or above its bound."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {k.lower().replace("_", "-"): v for k, v in (line.split("==") for line in lines if "==" in line)}
    asked = config["options"]["install_requires"].split()
    asked += [line for extra in config["options.extras_require"].values() for line in extra.split()]
    for line in asked:
        name, _, bound = line.partition(";")[0].partition(">=")
        name = name.partition("[")[0]
        if not name.startswith("unibrivl"):
            assert name in pins, f"constraints.txt has no pin for {name}"
            assert version(pins[name]) >= version(bound or "0"), line


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
