"""Pictures for what was heard: candidates from one seed, all finished, ranked by how well they fit the sound."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, PngImagePlugin

from unibrivl.app.limits import Refusal
from unibrivl.pipelines.receipt_unibrivl import KEY
from unibrivl.pipelines.strategy_embed import Embed
from unibrivl.pipelines.strategy_rerank import Rerank

MOST_CANDIDATES = 8
FEWEST_STEPS, MOST_STEPS = 2, 50
MOST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Wishes:
    """What a visitor may choose about the pictures.

    Args:
        bank (`str`, *optional*): of the pipeline's label banks: "photo", "drawing"; its first if None.
        candidates, steps, seed (`int`): the same numbers give the same pictures.
    """

    bank: str | None = None
    candidates: int = 4
    steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("candidates", 1, MOST_CANDIDATES), ("steps", FEWEST_STEPS, MOST_STEPS), ("seed", 0, MOST_SEED),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise Refusal(f"{name.capitalize()} must be a whole number from {least} to {most}.")


@dataclass(frozen=True)
class Drawn:
    """One picture.

    Args:
        image: as it was drawn.
        prompt (`str`, *optional*): what the generator was asked for.
        score (`float`): its cosine to the sound.
        seed (`int`, *optional*): of its noise.
        receipt (`dict`): what it takes to make it again.
        hidden (`bool`): whether a safety checker has blackened it.
    """

    image: Image.Image
    prompt: str | None
    score: float
    seed: int | None
    receipt: dict[str, Any]
    hidden: bool = False

    def png(self) -> bytes:
        """A file with its receipt inside, as `unibrivl generate` writes it."""
        return png_of(self.image, self.receipt)


def png_of(picture: Image.Image, receipt: dict[str, Any] | None = None) -> bytes:
    about = PngImagePlugin.PngInfo()
    if receipt is not None:
        about.add_text(KEY, json.dumps(receipt, allow_nan=False))
    file = io.BytesIO()
    picture.save(file, format="PNG", pnginfo=about)
    return file.getvalue()


def draw(
    pipe: Any, embeds_1E: torch.Tensor, wishes: Wishes, watch: Callable[[int, int], None] | None = None
) -> list[Drawn]:
    """The pictures of a query, the best first.

    Args:
        watch (*optional*): called after each step with its number and how many there are.
    """
    if wishes.bank is not None and wishes.bank not in pipe.label_banks:
        raise Refusal(f"This model draws no {wishes.bank!r}: choose one of {', '.join(pipe.label_banks) or 'none'}.")

    def seen(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if watch is not None:
            watch(step + 1, wishes.steps)
        return tensors

    seen.only_watches = True  # type: ignore[attr-defined]  # receipts stay replayable
    kind = Embed if "image_normalizer" in pipe.components else Rerank  # of a base of unCLIP its only way
    output = pipe(
        audio_embeds=embeds_1E,
        label_bank=wishes.bank,
        strategy=kind(num_candidates=wishes.candidates, num_prompts=1),  # what was heard, several times
        num_images_per_prompt=wishes.candidates,
        num_inference_steps=wishes.steps,
        generator=torch.Generator().manual_seed(wishes.seed),
        callback_on_step_end=seen,
    )
    hidden = output.nsfw_content_detected or [False] * len(output.images)
    return [
        Drawn(image, receipt["picture"]["prompt"], score, receipt["picture"]["seed"], receipt, bool(black))
        for image, receipt, score, black in zip(output.images, output.receipts, output.scores, hidden, strict=True)
    ]


__all__ = ["MOST_CANDIDATES", "MOST_SEED", "MOST_STEPS", "Drawn", "Wishes", "draw", "png_of"]
