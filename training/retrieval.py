"""How well sounds find their pictures, and pictures their sounds, among what was held out.

Shapes: A sounds, V pictures, E numbers of both spaces together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from unibrivl.data import DatasetError
from unibrivl.metrics import CosineScores, Relevance, median_rank, ranks, recall_at
from unibrivl.training.momentum import bare
from unibrivl.training.pairs import Collate, Pairs, picture_of
from unibrivl.training.parts import Batch
from unibrivl.training.sampler import Draw
from unibrivl.training.target_cache import Excerpt

KS = (1, 5, 10)
SEED = 0  # of the choice among more than `most`: every evaluation of every run asks the same


class Retrieval:
    """model -> R@1, R@5, R@10 and the median rank, both ways, and `recall`, the mean of the six R@k.

    A sound's right picture is its own; where sounds and pictures share labels only, any of its label. Both spaces
    count: a score is the mean of the cosines in the shared space and in the image tower's own.

    Args:
        pairs: the held-out part, without random parts or augmentation.
        collate: makes batches of examples.
        batch_size (`int`): examples of a forward pass.
        most (`int`): sounds, and pictures, that are asked at most.
        spaces: which of the two a model has; BrewCLIP has one, "shared".
    """

    def __init__(
        self,
        pairs: Pairs,
        collate: Collate,
        batch_size: int,
        most: int = 1000,
        spaces: tuple[str, ...] = ("shared", "native"),
    ):
        self.spaces = spaces
        self.pairs, self.collate, self.batch_size = pairs, collate, batch_size
        self.sounds = some(range(len(pairs)), most)
        if pairs.by_label:
            of_labels = {pairs.sounds[place].labels[0] for place in self.sounds}
            places = some(sorted(sum((pairs.pictures_of[label] for label in sorted(of_labels)), [])), most)
            answered = {pairs.pictures[place].labels[0] for place in places}
            self.sounds = [place for place in self.sounds if pairs.sounds[place].labels[0] in answered]
            asked = [pairs.sounds[place].labels[0] for place in self.sounds]
            given = [pairs.pictures[place].labels[0] for place in places]
        else:
            places = list({pairs.ids[place]: place for place in reversed(self.sounds)}.values())[::-1]
            asked, given = ([str(pairs.ids[place]) for place in group] for group in (self.sounds, places))
        if len(places) < 2:
            raise DatasetError(
                f"{pairs.summary()} held out: among {len(places)} pictures nothing can be looked for. Hold out more "
                "(data.validation), or set evaluate_every=0 and primary=none"
            )
        self.pictures, self.relevance = places, Relevance.from_labels(asked, given)

    def __call__(self, model: Any) -> dict[str, float]:
        scores = CosineScores(self._sounds(model), self._pictures(model))
        found: dict[str, float] = {}
        for ending, one, right in (("", scores, self.relevance), ("_picture_to_sound", scores.T, self.relevance.T)):
            ranks_Q = ranks(one, right)
            found |= {f"r{k}{ending}": recall_at(ranks_Q, k) for k in KS}
            found[f"medr{ending}"] = median_rank(ranks_Q)
        recalls = [value for name, value in found.items() if name.startswith("r")]
        return {"recall": float(np.mean(recalls)), **found}

    def picture_paths(self) -> list[str]:
        """Of the pictures that are looked at."""
        return [picture_of(self.pairs.pictures[place]) for place in self.pictures]

    def excerpts(self) -> list[Excerpt]:
        """Of the sounds that are heard."""
        return [self.pairs.excerpt(self.pairs.sounds[place]) for place in self.sounds]

    def summary(self) -> str:
        return f"{len(self.sounds)} sounds and {len(self.pictures)} pictures"

    def _sounds(self, model: Any) -> np.ndarray:
        """(A, E): each in the shared space, and beside it in the image tower's."""

        def embed(places: list[int]):
            heard = [self.pairs.heard(self.pairs.sounds[place], Draw(place, 0, 0)) for place in places]
            output = model(**on(self.collate(heard), model), return_dict=True)
            return [getattr(output, field) for field in self._fields("audio_embeds")]

        return self._embedded(self.sounds, embed, "sounds")

    def _pictures(self, model: Any) -> np.ndarray:
        """(V, E), in the same order of the spaces."""

        def embed(places: list[int]):
            seen = [self.pairs.seen(place, Draw(place, 0, 0)) for place in places]
            if "image_embeds" in seen[0]:
                native_BV = torch.from_numpy(np.stack([one["image_embeds"] for one in seen]))
                native_BV = native_BV.to(device_of(model))
                made = {"shared": bare(model).project_image(native_BV), "native": native_BV}
                return [made[space] for space in self.spaces]
            pictures = [one["image"] for one in seen]
            pixels = self.collate.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
            output = model(pixel_values=pixels.to(device_of(model)), return_dict=True)
            return [getattr(output, field) for field in self._fields("image_embeds")]

        return self._embedded(self.pictures, embed, "pictures")

    def _fields(self, name: str) -> list[str]:
        """Of a model's output, in the order of the spaces."""
        return [name if space == "shared" else f"native_{name}" for space in self.spaces]

    def _embedded(self, places: list[int], embed: Callable[[list[int]], list], what: str) -> np.ndarray:
        rows = []
        for start in tqdm(range(0, len(places), self.batch_size), desc=what, leave=False, disable=None):
            both = embed(places[start : start + self.batch_size])
            normal = [torch.nn.functional.normalize(one_BE.float(), dim=-1) for one_BE in both]
            rows.append(torch.cat(normal, 1).cpu().numpy())
        return np.concatenate(rows)


def some(places: Any, most: int) -> list[int]:
    """All, or as many as may be, drawn once and for all."""
    places = list(places)
    if len(places) <= most:
        return places
    return sorted(np.random.default_rng(SEED).choice(places, most, replace=False).tolist())


def device_of(model: Any) -> torch.device:
    return next(model.parameters()).device


def on(batch: Batch, model: Any) -> Batch:
    return {name: value.to(device_of(model)) for name, value in batch.items()}
