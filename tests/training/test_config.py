"""A run's configuration: keys by name, values by type, errors that name what was meant; and the command around it."""

from __future__ import annotations

import argparse
import dataclasses

import pytest
import tiny_run

from unibrivl.cli import main, train
from unibrivl.training.config import ConfigError, command_of, differences, from_json, override, parse, to_json
from unibrivl.training.recipes import RECIPES, load_recipe


def test_values_are_read_as_the_type_of_their_key():
    config = override(
        tiny_run.config(),
        ["steps=5", "learning_rate=2e-4", "clip=none", "compile=true", "precision=bf16", "betas=0.9,0.95", "ema=0.5"],
    )
    assert (config.steps, config.learning_rate, config.clip, config.compile) == (5, 2e-4, None, True)
    assert (config.precision, config.betas, config.ema) == ("bf16", (0.9, 0.95), 0.5)
    nested = override(config, ["data.kinds=3,4,5", "model.freeze_images=false", "data.noise=1"])
    assert nested.data.kinds == (3, 4, 5) and nested.model.freeze_images is False
    assert nested.data.noise == 1.0 and isinstance(nested.data.noise, float)
    assert override(config, ["output_dir=a=b"]).output_dir == "a=b"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("learning_rat=1", "did you mean 'learning_rate'"),
        ("data.nois=1", "did you mean 'data.noise'"),
        ("noise=1", "did you mean 'data.noise'"),
        ("model=1", "no key 'model'"),
        ("zzzz=1", "it has recipe, output_dir, model.dropout"),
        ("steps", "write key=value"),
        ("steps=many", "steps must be a whole number"),
        ("steps=1.5", "steps must be a whole number"),
        ("learning_rate=fast", "must be a number"),
        ("compile=yes", "true or false"),
        ("precision=fp8", "one of no, bf16, fp16"),
        ("betas=0.9", "takes 2 values"),
        ("steps=0", "at least 1"),
        ("ema=1", "between 0 and 1"),
        ("clip=0", "above 0"),
        ("learning_rate=nan", "above 0"),
        ("final_share=2", "from 0 to 1"),
        ("workers=-1", "at least 0"),
    ],
)
def test_what_no_run_has_is_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        override(tiny_run.config(), [setting])


def test_patience_needs_something_to_wait_for():
    with pytest.raises(ConfigError, match="patience"):
        tiny_run.config(patience=2, evaluate_every=0)


def test_json_and_back():
    config = override(tiny_run.config(), ["data.kinds=7", "betas=0.8,0.9", "steps=77", "clip=none"])
    found = to_json(config)
    assert found["data.kinds"] == [7] and found["clip"] is None
    assert from_json(tiny_run.config(), found) == config
    assert differences(to_json(tiny_run.config()), found)["steps"] == (12, 77)
    with pytest.raises(ConfigError, match="stepz"):
        from_json(tiny_run.config(), {"stepz": 1})


def test_a_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_run.config().steps = 3


def test_the_command_says_what_was_set():
    settings = ["steps=5", "betas=0.9,0.95", "ema=none", "output_dir=elsewhere"]
    config = override(tiny_run.config(), settings)
    command = command_of(config, tiny_run.config())
    assert command == "unibrivl train --recipe tiny --set steps=5 --set betas=0.9,0.95 --set ema=none"
    said = command.split(" --set ")[1:]
    assert dataclasses.replace(override(tiny_run.config(), said), output_dir="elsewhere") == config


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_has_four_options_and_no_fifth():
    """What is different about a run belongs into its configuration, where it is checked, saved and printed."""
    parser = argparse.ArgumentParser(add_help=False)
    train.add_arguments(parser)
    assert {option for action in parser._actions for option in action.option_strings} == {
        "--recipe",
        "--set",
        "--resume",
        "--dry-run",
    }
    assert all(action.option_strings for action in parser._actions)


def test_every_recipe_has_a_configuration_of_its_name():
    for name in RECIPES:
        recipe = load_recipe(name)
        assert recipe.config().recipe == name and callable(recipe.build)
    with pytest.raises(ValueError, match="did you mean 'tones'"):
        load_recipe("tone")


def test_a_dry_run_says_what_would_be_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--recipe", "tones", "--set", "ema=0.99", "--set", "model.width=32", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    keys = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.startswith("  ")}
    assert keys["model.width"] == "32" and keys["ema"] == "0.99"
    recipe = load_recipe("tones")
    model = recipe.build(override(recipe.config(), ["model.width=32"])).model
    count = sum(weight.numel() for weight in model.parameters())
    assert any(line.startswith(f"{count:,} of {count:,} parameters train (100") for line in lines)
    sizes = {name: float(keys[name].split()[0]) for name in ("weights", "gradients", "moments", "average", "total")}
    assert sizes["moments"] == pytest.approx(8 * count / 1e6, abs=0.06)
    assert sizes["average"] == pytest.approx(4 * count / 1e6, abs=0.06)
    assert sizes["total"] == pytest.approx(20 * count / 1e6, abs=0.2)
    assert not list(tmp_path.iterdir())


def test_a_mistake_ends_in_one_line(capsys):
    assert main(["train", "--recipe", "tones", "--set", "learning_rat=1"]) == 2
    assert capsys.readouterr().err == (
        "unibrivl train: there is no key 'learning_rat' in this recipe: did you mean 'learning_rate'?\n"
    )


def test_names_keep_the_brackets_they_end_in():
    """Copies of files are called "dog (1)"."""
    assert parse("dog (1)", tuple[str, ...], "key") == ("dog (1)",)
    assert parse("a,dog (1)", tuple[str, ...], "key") == ("a", "dog (1)")
    assert parse("(0.9, 0.98)", tuple[float, float], "key") == (0.9, 0.98)
    assert parse("[]", tuple[str, ...], "key") == () == parse("", tuple[str, ...], "key")


@pytest.mark.parametrize(
    ("saved", "told"), [((), "stopped before the first checkpoint"), (("step_00000004",), "step_00000004: the same")]
)
def test_a_stop_by_hand_says_where_it_stands(saved, told, tmp_path, monkeypatch, capsys):
    for name in saved:
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "checkpoint.json").write_text('{"step": 4, "metric": null}')

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("unibrivl.training.loop.train", stopped)
    assert main(["train", "--recipe", "tones", "--set", f"output_dir={tmp_path}"]) == 130
    said = capsys.readouterr().err
    assert told in said and "--resume" in said
