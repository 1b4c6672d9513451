"""The stages of the embedded model: recipes, one after the other, each with the folders of those before.

    unibrivl embedded --variant open --data PACKS --out runs/embedded

A stage that is finished is left alone, one that was broken off goes on from its last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unibrivl.training.config import ConfigError, command_of, override
from unibrivl.training.recipes import load_recipe


@dataclass(frozen=True)
class Stage:
    """
    Args:
        name, recipe: of the folder, and of what makes it.
        takes: key of the recipe's configuration -> the stage whose model it names.
        on_gpu: settings where there is a GPU, which has room for more.
        settings: of the recipe, in place of its own.
    """

    name: str
    recipe: str
    takes: Mapping[str, str] = field(default_factory=dict)
    on_gpu: Sequence[str] = ()
    settings: Sequence[str] = ()


STAGES = (
    Stage("pictures", "small_pictures"),
    Stage("words", "small_words", {"model.tower": "pictures"}),
    Stage("sounds", "small_sounds", {"model.pictures": "pictures", "model.words": "words"}),
    Stage("latents", "small_latents", {"model.tower": "pictures"}, ("steps=12000", "batch_size=64")),
    Stage(
        "generator",
        "small_generator",
        {"model.latents": "latents", "model.words": "words"},
        ("steps=60000", "batch_size=256"),
    ),
)

PIPELINE = "pipeline"
# when the pipeline is there: from a sound to a word of its text encoder
ADAPTER = Stage(
    "adapter",
    "audio_token",
    settings=(
        "data.source=small_world",
        "model.hidden_size=512",
        "objective.label=1.0",  # a few dozen words are known, so a sound may begin as one of them
        "objective.snr_gamma=5.0",
        "steps=1000",
        "batch_size=32",
        "learning_rate=1e-3",
        "final_share=0.0",
        "save_every=200",
        "evaluate_every=500",
    ),
)


def run_stages(
    variant: str,
    data: Path,
    out: Path,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    tell: Callable[[str], object] = lambda line: None,
) -> None:
    """All stages of a variant, into `OUT/VARIANT/STAGE`.

    Args:
        variant: "open" or "research"; see `recipes/small_world.py`.
        data: folder of the packs.
        settings: `STAGE.KEY=VALUE` for a stage's configuration, such as `generator.steps=100`.
        only: names of stages; all by default.
        tell: is given a line whenever there is something to tell.
    """
    names = [stage.name for stage in (*STAGES, ADAPTER)]
    unknown = [one for one in settings if one.split(".")[0] not in names]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is of no stage: write STAGE.KEY=VALUE, with a stage of {', '.join(names)}")
    for stage in STAGES:
        if not only or stage.name in only:
            run_stage(stage, variant, data, out, settings, tell)


def run_adapter(
    variant: str,
    data: Path,
    out: Path,
    settings: Sequence[str] = (),
    tell: Callable[[str], object] = lambda line: None,
) -> Path:
    """The stage that comes when the others are a pipeline; the adapter's folder."""
    base = out / variant / PIPELINE
    if not (base / "model_index.json").is_file():
        raise ConfigError(f"there is no pipeline in {base}: run the other stages first, without --only")
    run_stage(ADAPTER, variant, data, out, settings, tell, [f"model.base={base}", f"data.cache={out / 'targets'}"])
    return out / variant / ADAPTER.name / "model"


def run_stage(
    stage: Stage,
    variant: str,
    data: Path,
    out: Path,
    settings: Sequence[str],
    tell: Callable[[str], object],
    more: Sequence[str] = (),
) -> None:
    """One stage, unless it is finished; `more` are settings that depend on where things are."""
    folder = out / variant / stage.name
    if (folder / "model").is_dir():
        tell(f"{stage.name}: {folder / 'model'} is there")
        return
    import torch

    from unibrivl.training.loop import train

    recipe = load_recipe(stage.recipe)
    default = recipe.config()
    own = [one.removeprefix(f"{stage.name}.") for one in settings if one.startswith(f"{stage.name}.")]
    config = override(
        default,
        [
            f"output_dir={folder}",
            f"data.folder={data}",
            f"data.variant={variant}",
            *stage.settings,
            *more,
            *(f"{key}={out / variant / other / 'model'}" for key, other in stage.takes.items()),
            *(stage.on_gpu if torch.cuda.is_available() else ()),
            *own,
        ],
    )
    begun = time.monotonic()
    tell(f"{stage.name}: {config.steps} steps of {stage.recipe}")
    train(config, recipe.build, True, command_of(config, default))
    tell(f"{stage.name}: {time.monotonic() - begun:.0f} s -> {folder / 'model'}")
