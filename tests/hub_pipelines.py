"""What the tests of pipelines on the Hub run in processes of their own: tiny pipelines pushed, and loaded again.

The folder they share holds `pictures.npy`, what the pipeline drew before it left: "the same" can mean bit for bit.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CALL = {"prompt": "a dog", "num_inference_steps": 3, "num_candidates": 2, "strategy": "rerank", "output_type": "np"}
CALL |= {"height": 32, "width": 32, "sampling_rate": 16000}


def draw(pipe) -> np.ndarray:
    """Three steps, two candidates, both sounds the same for everybody."""
    import torch

    pipe.set_progress_bar_config(disable=True)
    sound = (0.1 * np.random.default_rng(0).standard_normal(6400)).astype(np.float32)
    return pipe(audio=sound, generator=torch.Generator().manual_seed(0), **CALL).images


def edit(pipe) -> np.ndarray:
    """A picture that a sound changes, by prompt-to-prompt."""
    import torch

    pipe.set_progress_bar_config(disable=True)
    sound = (0.1 * np.random.default_rng(0).standard_normal(6400)).astype(np.float32)
    return pipe(
        "a <audio>", source_prompt="a dog", audio=sound, audio_sampling_rate=16000, num_inference_steps=3,
        height=32, width=32, output_type="np", generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip


def push(folder: str) -> dict[str, object]:
    """A whole pipeline, its base alone and its matcher alone, each by the way its users push it."""
    import tiny_audio_token
    from diffusers import StableDiffusionPipeline
    from tiny_diffusion import pipeline, sd_parts

    from unibrivl.pipelines import AudioTokenEditPipeline

    pipe = pipeline()
    np.save(Path(folder) / "pictures.npy", draw(pipe))
    pipe.push_to_hub("org/whole", private=True)
    editor = tiny_audio_token.pipeline(AudioTokenEditPipeline)
    np.save(Path(folder) / "edited.npy", edit(editor))
    editor.push_to_hub("org/editor", private=True)
    pipe.save_pretrained(Path(folder) / "whole")
    StableDiffusionPipeline(**sd_parts()).push_to_hub("org/base", private=True)
    pipe.matcher.push_to_hub("org/matcher", private=True)
    pipe.matcher_processor.push_to_hub("org/matcher", private=True)
    return json.loads((Path(folder) / "whole" / "model_index.json").read_text())


def same(folder: str, pipe) -> bool:
    return np.array_equal(np.load(Path(folder) / "pictures.npy"), draw(pipe))


def fetch(folder: str) -> dict[str, object]:
    """Everything by its name on the Hub, with the package."""
    import transformers
    from diffusers import DiffusionPipeline, StableDiffusionPipeline

    from unibrivl import UniBriVLPipeline

    said: dict[str, object] = {}
    for name in ("org/whole", "org/by-command"):
        pipe = UniBriVLPipeline.from_pretrained(name)
        said[f"{name} own"] = same(folder, pipe), type(pipe).__module__, type(pipe.matcher).__module__
    joined = UniBriVLPipeline.from_pretrained("org/base", matcher="org/matcher")
    said["joined"] = same(folder, joined), joined.config._name_or_path, type(joined.matcher_processor).__name__
    found = (
        transformers.AutoModel.from_pretrained("org/matcher"),
        transformers.AutoProcessor.from_pretrained("org/matcher"),
    )
    objects = UniBriVLPipeline.from_pretrained("org/whole", matcher=found[0], matcher_processor=found[1])
    said["objects"] = same(folder, objects), objects.matcher is found[0]
    base = StableDiffusionPipeline.from_pretrained("org/base")
    said["from pipe"] = same(folder, UniBriVLPipeline.from_pipe(base, matcher="org/matcher"))
    for name, cls in {"base class": DiffusionPipeline, "stock": StableDiffusionPipeline}.items():
        try:
            cls.from_pretrained("org/whole")
            said[name] = "loaded"
        except ValueError as error:
            said[name] = str(error)
    return said


def fetch_without_the_package(folder: str, checkout: str) -> dict[str, object]:
    """The same where `import unibrivl` fails: out of the Hub and out of a folder."""
    from flat_reader import forget_the_package

    forget_the_package(checkout)
    from diffusers import DiffusionPipeline

    said: dict[str, object] = {}
    for place in ("org/whole", "org/by-command", str(Path(folder) / "flat")):
        pipe = DiffusionPipeline.from_pretrained(place, trust_remote_code=True)
        said[Path(place).name] = same(folder, pipe), type(pipe).__module__, type(pipe.matcher).__module__
    editor = DiffusionPipeline.from_pretrained("org/editor", trust_remote_code=True)
    said["editor"] = np.array_equal(np.load(Path(folder) / "edited.npy"), edit(editor)), type(editor).__module__
    try:
        pipe(audio="dog.wav", prompt="a dog")
    except ImportError as error:
        said["path"] = str(error)
    try:
        DiffusionPipeline.from_pretrained("org/whole")
    except ValueError as error:
        said["untrusted"] = str(error)
    cls = type(pipe)
    pipe.save_pretrained(Path(folder) / "again")
    said["again"] = same(folder, cls.from_pretrained(Path(folder) / "again"))
    try:
        pipe.push_to_hub("org/again", private=True)
    except ValueError as error:
        said["push"] = str(error)
    joined = cls.from_pretrained("org/base", matcher="org/matcher", trust_remote_code=True)
    said["joined"] = same(folder, joined), type(joined.matcher).__module__.split(".")[0]
    return said
