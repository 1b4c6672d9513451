"""Every example runs as its first lines say, in an empty folder and without a network, and leaves what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import unibrivl

FOLDER = Path(__file__).resolve().parent.parent / "examples"
LEAVES = {
    "sound_to_picture": ["picture.png"],
    "candidates": ["best_1.png", "best_2.png", "best_3.png"],
    "mix_sounds": [f"mix_{step}.png" for step in range(5)],
    "storyboard": ["storyboard.png"],
    "replay_a_picture": ["picture.png"],
    "stock_diffusers": ["drawn.png"],
    "name_a_sound": [],
    "find_pictures": ["gallery/dog.png"],
    "embed_folder": ["vectors.parquet"],
    "train_on_a_folder": ["run/model/config.json"],
}
SAYS = {
    "sound_to_picture": "a photo of a rooster",
    "candidates": "9 of 12 candidates were dropped",
    "replay_a_picture": "equal, bit for bit",
    "name_a_sound": "sound 1: rain",
    "find_pictures": "dog.png",
}
NEEDS = {"embed_folder": ("pyarrow",), "name_a_sound": (), "train_on_a_folder": ("accelerate",)}  # others: diffusers


def run(name: str, folder: Path) -> str:
    for module in NEEDS.get(name, ("diffusers",)):
        pytest.importorskip(module, reason=f"{module} is not installed")
    if name != "train_on_a_folder":
        try:
            unibrivl.embedded()
        except FileNotFoundError:
            pytest.skip("the embedded model's weights are not in this checkout: make embedded VARIANT=open")
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py"],
        cwd=folder,
        text=True,
        capture_output=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", LEAVES)
def test_an_example_runs(name, tmp_path):
    said = run(name, tmp_path)
    assert SAYS.get(name, "") in said and said.strip()
    for left in LEAVES[name]:
        assert (tmp_path / left).stat().st_size > 0
        if left.endswith(".png"):
            assert len(Image.open(tmp_path / left).convert("RGB").getcolors(1 << 20)) > 100


def test_all_of_them_are_listed():
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert names == set(LEAVES) and len(names) == 10
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"]({name}.py)" in index for name in names)
    assert all(len((FOLDER / f"{name}.py").read_text().splitlines()) <= 50 for name in names)
