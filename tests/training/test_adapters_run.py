"""Runs with an adapter: checkpoints of the adapter alone, resumed to the bit, and what is left at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_run
import torch
from tiny_towers import unibrivl_config

pytest.importorskip("peft", reason="adapters need peft: pip install peft")

from peft import PeftModel  # noqa: E402

from unibrivl.cli import main  # noqa: E402
from unibrivl.modeling import UniBriVLModel  # noqa: E402
from unibrivl.training.adapters import adapt, load_adapter  # noqa: E402
from unibrivl.training.checkpoint import read_state  # noqa: E402
from unibrivl.training.config import ConfigError, override  # noqa: E402
from unibrivl.training.loop import train  # noqa: E402
from unibrivl.training.objectives import OBJECTIVES  # noqa: E402
from unibrivl.utils.state_of_code import version  # noqa: E402

STEPS = ["steps=6", "evaluate_every=3", "save_every=3", "accumulation=1", "keep=3"]
VIT = "model.batch_norm=false"
KINDS = {
    "lora": [VIT, "adapter.method=lora", "adapter.rank=4", "adapter.dropout=0.1"],
    "prompt": [VIT, "adapter.method=prompt", "adapter.num_prompts=3"],
    "last_k": ["adapter.method=last_k", "adapter.last_k=1"],  # with batch norms, frozen and not
}


def configured(folder, kind: str, *more: str):
    return override(tiny_run.config(str(folder)), [*STEPS, *KINDS[kind], *more])


def build_and_fall(at: int):
    """The tiny run, whose process falls over at a forward pass."""

    def build(config):
        parts = tiny_run.build(config)
        parts.objective.stop = at
        return parts

    return build


def batch():
    data = tiny_run.Pairs(5, tiny_run.TinyData(3))
    return {"input_features": data.mels, "pixel_values": data.pixels}


@torch.no_grad()
def scores(model) -> torch.Tensor:
    return model.eval()(**batch()).logits_audio_image


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_an_adapter_resumes_to_the_bit(kind, tmp_path):
    """3 steps, a fall, and 3 more are 6: weights, average, moments, generators and metrics."""
    whole = train(configured(tmp_path / "whole", kind), tiny_run.build)
    with pytest.raises(RuntimeError, match="stopped here"):
        train(configured(tmp_path / "fallen", kind), build_and_fall(5))
    train(configured(tmp_path / "fallen", kind), tiny_run.build, resume=True)
    names = ["adapter_model", "optimizer", "objective", "average", "random"]
    for name in [f"checkpoints/step_0000000{step}/{name}.safetensors" for step in (3, 6) for name in names]:
        assert (tmp_path / "fallen" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    for name in ("metrics.jsonl", "model/adapter_model.safetensors", "base.json"):
        assert (tmp_path / "fallen" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["train"]["loss"] != rows[-2]["train"]["loss"] and whole.step == 6

    # the base is saved once, and never with a checkpoint
    base = (tmp_path / "whole" / "base" / "model.safetensors").stat().st_size
    for path in [*(tmp_path / "whole" / "checkpoints").iterdir(), whole.model]:
        assert not (path / "model.safetensors").exists()
        assert (path / "adapter_model.safetensors").stat().st_size < base / 2
    plain = UniBriVLModel.from_pretrained(tmp_path / "whole" / "base")
    again = tiny_run.build(override(configured(tmp_path, kind), ["adapter.method=full"]))
    assert plain.state_dict().keys() == again.model.state_dict().keys()
    assert plain.config.freeze_audio_tower is again.model.config.freeze_audio_tower is False


@pytest.mark.slow
def test_a_run_with_an_adapter_that_is_killed_ends_as_a_whole_one(tmp_path):
    """A real process and SIGKILL, in the middle of its checkpoints."""
    script = Path(tiny_run.__file__)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parent)}
    settings = ["steps=16", "save_every=2", "log_every=1", *KINDS["lora"]]

    def start(name):
        command = [sys.executable, str(script), str(tmp_path / name), "--resume", *settings]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start("whole").wait(300) == 0
    rows = tmp_path / "killed" / "metrics.jsonl"
    process = start("killed")
    while not rows.exists() or rows.read_bytes().count(b"\n") < 7:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert start("killed").wait(300) == 0
    last = "checkpoints/step_00000016"
    names = [f"{last}/{name}.safetensors" for name in ("adapter_model", "optimizer", "objective", "average", "random")]
    for name in ("metrics.jsonl", "model/adapter_model.safetensors", *names):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_what_is_left_is_an_adapter_with_the_average_and_the_merged_model(tmp_path):
    """Of the best step; PEFT alone loads it, and the merged model is the same without PEFT."""
    config = configured(tmp_path, "lora", "adapter.merge_at_end=true")
    outcome = train(config, tiny_run.build, command="unibrivl train --recipe tiny")
    settings = json.loads((outcome.model / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(tmp_path / "base")
    base = UniBriVLModel.from_pretrained(tmp_path / "base")
    adapted = PeftModel.from_pretrained(base, outcome.model)
    average = read_state(tmp_path / "checkpoints" / f"step_0000000{outcome.best_step}", "average")
    live = dict(adapted.named_parameters())
    assert average.keys() <= live.keys() and all(torch.equal(live[name], value) for name, value in average.items())
    whole = UniBriVLModel.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(scores(whole), scores(adapted), atol=1e-5, rtol=0)
    assert whole.config.freeze_audio_tower is False
    assert main(["merge", str(outcome.model), str(tmp_path / "by-command")]) == 0
    by_command, by_run = (tmp_path / name / "model.safetensors" for name in ("by-command", "merged"))
    assert by_command.read_bytes() == by_run.read_bytes()
    assert main(["merge", str(outcome.model), str(tmp_path / "merged")]) == 2
    card = (outcome.model / "README.md").read_text()
    assert "load_adapter(UniBriVLModel.from_pretrained(" in card and "An adapter (lora) of" in card
    assert json.loads((outcome.model / "training.json").read_text())["settings"]["adapter.rank"] == "4"


def test_momentum_copies_and_queues_know_adapters(tmp_path):
    """The whole objective of the paper: its state holds the adapter's averages and no weight of the base."""

    def build(config):
        parts = tiny_run.build(config)
        parts.objective = OBJECTIVES["cx"](parts.model, queue_size=8)
        return parts

    train(configured(tmp_path, "lora", "evaluate_every=0", "primary=none"), build)
    state = read_state(tmp_path / "checkpoints" / "step_00000006", "objective")
    kept = [name for name in state if name.startswith("momentum.")]
    assert kept and all("lora_" in name or ".modules_to_save." in name for name in kept)
    rows = [json.loads(line)["train"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(row["gradient_norm"] > 0 for row in rows[1:])


def test_an_adapter_goes_on_from_a_model_that_was_loaded(tmp_path):
    """Nothing is copied: the adapter names the folder or the Hub's name, and prompt frames are found again."""
    UniBriVLModel(unibrivl_config("hubert")).save_pretrained(tmp_path / "start")

    def build(config):
        parts = tiny_run.build(override(config, ["adapter.method=full"]))
        parts.model = adapt(UniBriVLModel.from_pretrained(tmp_path / "start"), config.adapter)
        sounds = torch.randn(22, 6000, generator=torch.Generator().manual_seed(0))
        parts.collate = lambda rows: {
            "input_values": sounds[: len(rows)],
            "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        }
        parts.evaluate = None
        return parts

    config = configured(tmp_path / "run", "prompt", "evaluate_every=0", "primary=none", "steps=3")
    outcome = train(config, build)
    assert not (tmp_path / "run" / "base").exists()
    model = load_adapter(UniBriVLModel.from_pretrained(tmp_path / "start"), outcome.model)
    assert model.peft_config["default"].base_model_name_or_path == str(tmp_path / "start")
    # another base under the same name
    UniBriVLModel(unibrivl_config("hubert")).save_pretrained(tmp_path / "start")
    with pytest.raises(ValueError, match="the base model is not the one"):
        train(config, build, resume=True)


def test_what_cannot_be_is_said_before_anything_is_trained(tmp_path):
    def forgetful(config):
        return tiny_run.build(override(config, ["adapter.method=full"]))

    with pytest.raises(ValueError, match=r"adapt\(model, config\.adapter\)"):
        train(configured(tmp_path / "forgot", "lora"), forgetful)
    with pytest.raises(ConfigError, match="gradient_checkpointing=false"):
        configured(tmp_path, "prompt", "gradient_checkpointing=true")
    with pytest.raises(ConfigError, match="merge_at_end=false"):
        configured(tmp_path, "prompt", "adapter.merge_at_end=true")
    with pytest.raises(ConfigError, match="did you mean 'adapter.rank'"):
        configured(tmp_path, "lora", "adapter.rnk=3")


def test_a_longer_run_is_refused_with_what_to_do(tmp_path):
    config = override(tiny_run.config(str(tmp_path)), ["steps=2", "evaluate_every=0", "primary=none"])
    train(config, tiny_run.build)
    with pytest.raises(ValueError, match=r"steps was 2 and is 4.*learning rate of each.*--set steps=2.*output_dir"):
        train(override(config, ["steps=4"]), tiny_run.build, resume=True)


def test_the_command_counts_what_trains(tmp_path, capsys):
    settings = ["--set", "model.width=32", "--set", "adapter.method=lora", "--set", "adapter.rank=4"]
    assert main(["train", "--recipe", "tones", "--dry-run", *settings]) == 0
    said = capsys.readouterr().out
    assert "9,184 of 57,472 parameters train (15.98 %)" in said and "an adapter of 36.7 kB is saved" in said
    short = ["--set", "steps=2", "--set", "evaluate_every=0", "--set", "primary=none", "--set", "warmup=1"]
    folder = tmp_path / "run"
    assert main(["train", "--recipe", "tones", *settings, *short, "--set", f"output_dir={folder}"]) == 0
    assert "an adapter of 36.7 kB is saved" in capsys.readouterr().out
    assert (folder / "model" / "adapter_model.safetensors").stat().st_size < 45_000


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_says_when_files_were_changed(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "a.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    git("tag", "v1")
    clean = version(tmp_path)
    assert len(clean) == 12 and int(clean, 16)
    (tmp_path / "a.py").write_text("2")
    assert version(tmp_path) == f"{clean}+changes"


def test_merge_says_what_it_was_given(tmp_path, monkeypatch, capsys):
    """A whole model, a base that is named from elsewhere, and a run that was moved."""
    config = configured(tmp_path / "run", "lora", "steps=1")
    train(config, tiny_run.build)
    run = Path(config.output_dir)
    assert main(["merge", str(run / "base"), str(tmp_path / "out")]) == 2
    assert "is a whole model already" in capsys.readouterr().err
    moved = tmp_path / "moved"
    run.rename(moved)
    assert main(["merge", str(moved / "model"), str(tmp_path / "whole")]) == 0
    assert (tmp_path / "whole" / "model.safetensors").exists()
    shutil.rmtree(moved / "base")
    capsys.readouterr()
    assert main(["merge", str(moved / "model"), str(tmp_path / "again")]) == 2
    assert "pass --base" in capsys.readouterr().err
