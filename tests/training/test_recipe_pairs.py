"""The recipe `pairs`: from a folder to a model, cached targets as good as live ones, resumed to the bit."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import tiny_pairs
import torch
from transformers import CLIPVisionModelWithProjection

from unibrivl.cli import main
from unibrivl.data import DatasetError
from unibrivl.embedder import load
from unibrivl.modeling import UniBriVLModel
from unibrivl.training import target_cache
from unibrivl.training.config import ConfigError, override
from unibrivl.training.journal import read_rows
from unibrivl.training.loop import train
from unibrivl.training.recipes import pairs

SMALL = ["model.audio=tiny", "batch_size=4", "log_every=1", "save_every=100", "evaluate_every=0", "primary=none"]
PLAIN = ["data.augment_pictures=false", "data.augment_sounds=false"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_pairs.by_stem(tmp_path_factory.mktemp("mine"))


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    return tiny_pairs.image_tower(tmp_path_factory.mktemp("tower"))


def configured(folder, tmp_path, name, *settings, tower="tiny"):
    own = [f"data.folder={folder}", f"output_dir={tmp_path / name}", f"data.cache={tmp_path / 'cache'}"]
    return override(pairs.config(), [*SMALL, f"model.image={tower}", *own, *settings])


def losses(folder):
    return [row["train"] for row in read_rows(folder / "metrics.jsonl") if "train" in row]


def test_cached_targets_give_the_losses_of_the_live_tower(folder, tower, tmp_path):
    """20 steps in float32 of the whole objective, terms and gradients, without augmentation: to 1e-5."""
    runs = {"cached": [], "live": ["data.cache=none"]}
    for name, settings in runs.items():
        train(configured(folder, tmp_path, name, "steps=20", *PLAIN, *settings, tower=tower), pairs.build)
    cached, live = (losses(tmp_path / name) for name in runs)
    assert len(cached) == len(live) == 20 and cached[5]["loss"] > 0.1
    for ours, theirs in zip(cached, live, strict=True):
        assert ours.keys() == theirs.keys() and "audio_to_native_image" in ours
        for name in ours:
            tolerance = 1e-5 if name != "gradient_norm" else 1e-3
            assert ours[name] == pytest.approx(theirs[name], abs=tolerance), name


def test_a_second_run_computes_nothing(folder, tower, tmp_path, monkeypatch):
    train(configured(folder, tmp_path, "one", "steps=1", "data.views=2", tower=tower), pairs.build)
    made = target_cache.picture_tower

    def untouchable(*arguments, **changes):
        tower = made(*arguments, **changes)

        def refuse(*_):
            raise AssertionError("the tower was asked again")

        object.__setattr__(tower, "embed", refuse)
        return tower

    monkeypatch.setattr(pairs, "picture_tower", untouchable)
    train(configured(folder, tmp_path, "two", "steps=2", "data.views=2", tower=tower), pairs.build)
    with pytest.raises(AssertionError, match="asked again"):
        train(configured(folder, tmp_path, "three", "steps=2", "data.views=3", tower=tower), pairs.build)


def test_the_finished_model_is_one_like_any_other(folder, tower, tmp_path):
    settings = ["steps=4", "evaluate_every=2", "primary=recall", "data.validation=0.3", "workers=1"]
    outcome = train(configured(folder, tmp_path, "run", *settings, tower=tower), pairs.build)
    assert set(outcome.metrics) >= {"recall", "r1", "r10", "medr", "r5_picture_to_sound"}
    assert 0 <= outcome.metrics["r1"] <= outcome.metrics["r5"] <= 1 <= outcome.metrics["medr"]
    found = json.loads((outcome.model / "training.json").read_text())
    assert found["data"] == [{"name": folder.name, "found": 12, "expected": 12}]
    assert found["towers"]["audio"]["model"] == "new, of the size 'tiny'"
    embedder = load(outcome.model)
    files = sorted(map(str, folder.iterdir()))
    scores = embedder.similarity(embedder.encode_audio(files[1::2]), embedder.encode_image(files[0::2]))
    assert tuple(scores.shape) == (12, 12)
    # and it is something to go on with
    again = configured(folder, tmp_path, "again", "steps=1", f"model.base={outcome.model}")
    assert train(again, pairs.build).step == 1


@pytest.mark.parametrize(
    "objective",
    ["in_batch", pytest.param("moco", marks=pytest.mark.slow), pytest.param("distillation", marks=pytest.mark.slow)],
)
def test_every_objective_runs_on_labels_with_cached_views(objective, tower, tmp_path):
    mine = tiny_pairs.by_label(tmp_path / "mine")
    settings = [f"objective.name={objective}", "data.views=2", "steps=3", "evaluate_every=3", "primary=recall"]
    outcome = train(configured(mine, tmp_path, "run", *settings, "data.validation=0.4", tower=tower), pairs.build)
    assert len(losses(tmp_path / "run")) == 3 and 0 <= outcome.best <= 1


def test_only_the_head_trains_beside_cached_targets(folder, tower, tmp_path):
    pytest.importorskip("peft")
    config = configured(folder, tmp_path, "run", "steps=3", "adapter.method=head", tower=tower)
    train(config, pairs.build)
    assert len(losses(tmp_path / "run")) == 3 and (tmp_path / "cache").is_dir()


def test_a_run_that_stopped_goes_on_to_the_same_bits(folder, tower, tmp_path):
    settings = ["steps=6", "save_every=2", "data.views=2"]
    train(configured(folder, tmp_path, "whole", *settings, tower=tower), pairs.build)

    def build(config):
        parts = pairs.build(config)
        forward = parts.objective.forward

        def stopping(model, batch):
            if parts.objective.step == 3:
                raise KeyboardInterrupt
            return forward(model, batch)

        parts.objective.forward = stopping
        return parts

    cut = configured(folder, tmp_path, "cut", *settings, f"data.cache={tmp_path / 'other'}", tower=tower)
    with pytest.raises(KeyboardInterrupt):
        train(cut, build)
    train(cut, pairs.build, resume=True)
    for name in ("metrics.jsonl", "model/model.safetensors", "checkpoints/step_00000006/objective.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name


def test_from_the_command_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "--recipe", "pairs"]
    for setting in [*SMALL, f"data.folder={folder}", "model.image=tiny", "steps=2", "evaluate_every=2"]:
        words += ["--set", setting]
    assert main([*words, "--dry-run"]) == 0
    assert "10 examples an epoch" in capsys.readouterr().out and os.listdir(tmp_path) == []
    assert main(words) == 0
    assert (tmp_path / "runs" / "pairs" / "model" / "README.md").exists()


def test_an_image_tower_with_an_adapter_is_not_cached(folder, tower, tmp_path):
    pytest.importorskip("peft")
    settings = ["adapter.method=lora", "adapter.towers=audio,vision"]
    parts = pairs.build(configured(folder, tmp_path, "run", *settings, tower=tower))
    assert parts.data.targets is None
    assert pairs.build(configured(folder, tmp_path, "run", "adapter.method=lora", tower=tower)).data.targets


def test_mistakes_are_answered_with_the_setting(folder, tower, tmp_path):
    def refused(match, *settings, error=ConfigError, **changes):
        with pytest.raises(error, match=match):
            pairs.build(configured(changes.pop("mine", folder), tmp_path, "run", *settings, **changes))

    refused("data.folder=FOLDER", mine="")
    refused("set 10 or less", "batch_size=64")
    refused("would stay noise", "model.freeze_image=true")
    refused("would stay noise", "adapter.method=head")
    refused("the image tower trains: set data.views=0", "data.views=2")
    refused("data.cache is none: set data.views=0", "data.views=2", "data.cache=none", tower=tower)
    refused("needs none: drop it", "data.loader=esc50", "data.how=stems")
    refused("nothing can be looked for", "data.validation=0.9", "batch_size=1", "evaluate_every=1",
            mine=tiny_pairs.by_stem(tmp_path / "two", 2), error=DatasetError)  # fmt: skip
    lonely = tmp_path / "lonely"
    shutil.copytree(folder, lonely, ignore=shutil.ignore_patterns("*.png"))
    refused("give a folder that holds both", mine=lonely, error=DatasetError)


def test_broken_files_stop_a_run_before_its_first_step(folder, tower, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    (mine / "thing_03.png").write_bytes(b"no picture")
    config = configured(mine, tmp_path, "run", "steps=1", tower=tower)
    with pytest.raises(DatasetError, match=r"1 of 20 files.*thing_03\.png.*leave_out"):
        train(config, pairs.build)
    train(override(config, ["data.leave_out=thing_03", f"output_dir={tmp_path / 'other'}"]), pairs.build)


def test_a_base_that_was_saved_in_half_trains_in_float32(folder, tower, tmp_path):
    outcome = train(configured(folder, tmp_path, "run", "steps=1", tower=tower), pairs.build)
    half = tmp_path / "half"
    shutil.copytree(outcome.model, half)
    UniBriVLModel.from_pretrained(outcome.model).half().save_pretrained(half)
    parts = pairs.build(configured(folder, tmp_path, "on", f"model.base={half}"))
    assert {weight.dtype for weight in parts.model.parameters()} == {torch.float32}
    eye = tmp_path / "eye"
    shutil.copytree(tower, eye)
    CLIPVisionModelWithProjection.from_pretrained(tower).half().save_pretrained(eye)
    parts = pairs.build(configured(folder, tmp_path, "eyes", tower=eye))
    assert {weight.dtype for weight in parts.model.parameters()} == {torch.float32}


def test_a_model_that_is_not_there_is_answered_with_its_setting(folder, tmp_path, monkeypatch):
    def unreachable(*names, **options):
        raise OSError("no such repository")

    monkeypatch.setattr(UniBriVLModel, "from_pretrained_towers", unreachable)
    with pytest.raises(ConfigError, match=r"model\.audio=huge is no folder of a model, no size \(tiny"):
        pairs.build(configured(folder, tmp_path, "run", "model.audio=huge"))


def test_a_run_may_go_on_with_its_cache_elsewhere(folder, tower, tmp_path):
    config = configured(folder, tmp_path, "run", "steps=2", tower=tower)
    train(config, pairs.build)
    train(override(config, [f"data.cache={tmp_path / 'moved'}"]), pairs.build, resume=True)
    with pytest.raises(ValueError, match="data.cache was"):
        train(override(config, ["data.cache=none"]), pairs.build, resume=True)
