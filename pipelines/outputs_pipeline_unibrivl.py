"""What UniBriVL's pipelines return: diffusers' own output, and how its pictures were chosen."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image
from diffusers.utils import BaseOutput


@dataclass
class Candidate:
    """One picture that was begun for a sound.

    Args:
        sound (`int`): which sound of the call it was for.
        prompt (`str`, *optional*): None where the call had prompt_embeds.
        seed (`int`, *optional*): of its generator; None where it shared one with others.
        score (`float`, *optional*): its matching score; None if it was given up on the way.
        image: the picture, if it was kept.
    """

    sound: int
    prompt: str | None
    seed: int | None
    score: float | None = None
    image: Any = None


@dataclass
class UniBriVLPipelineOutput(BaseOutput):
    """
    Args:
        images: a list of PIL images, an array or a tensor: for each sound the best ones first.
        nsfw_content_detected (*optional*): of each of them, where the base has a safety checker.
        scores (`list[float]`): the matching score of each of them.
        candidates (`list[Candidate]`): all that were begun, the finished ones best first; with pictures on request.
        receipts (`list[dict]`): for each picture, what it takes to make it again.
        times (`list`): (start, end) in seconds of the window each picture belongs to, for storyboards.
        labels (`list[str]`): of each picture its gain, "-20 dB", where the loudness was swept.
    """

    images: list[PIL.Image.Image] | np.ndarray
    nsfw_content_detected: list[bool] | None = None
    scores: list[float] | None = None
    candidates: list[Candidate] = field(default_factory=list)
    receipts: list[dict] = field(default_factory=list)
    times: list[tuple[float, float]] | None = None
    labels: list[str] | None = None


__all__ = ["Candidate", "UniBriVLPipelineOutput"]
