"""Sounds with pictures for audio tokens: what is heard and the latents of what is seen, each computed once.

Both are kept on the disk (`target_cache`), so that a step costs no audio encoder and no autoencoder. Sounds and
pictures come as the recipe `pairs` reads them, or from the packs of the small world.

Shapes: B batch, T tokens of a sound, A their width, C latent channels, h x w a latent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from unibrivl.audio import load_part
from unibrivl.data import Listing
from unibrivl.data.pictures import open_picture
from unibrivl.hub.fingerprint import fingerprint
from unibrivl.training.diffusion_base import DiffusionBase
from unibrivl.training.pairs import PICTURE, Pairs, check_files
from unibrivl.training.parts import Batch
from unibrivl.training.recipes.small_pictures import licences_of
from unibrivl.training.recipes.small_world import DIGITS, TEMPLATES, Item, SmallWorld, noun, pixels_of, share_of
from unibrivl.training.recipes.sounds_and_pictures_data import in_words
from unibrivl.training.sampler import Draw, derive
from unibrivl.training.target_cache import FORMAT, Excerpt, TargetCache, Tower, usual_device

NOISE = 7  # what a draw's seed is derived for, beside those of `pairs`
KINDS = ("photo", "drawing", "digit")
AT_ONCE = 64  # pictures


def latent_tower(base: DiffusionBase) -> Tower:
    """The base's autoencoder: picture -> its latent, as one row."""
    side = base.side // base.scale
    settings = {"kind": "latents", "format": FORMAT, "side": base.side}

    def embed(pictures: list[Image.Image], seeds: list[int] | None) -> np.ndarray:
        base.vae.to(usual_device())
        return base.latents(base.pixels(pictures)).flatten(1).cpu().numpy()

    width = base.vae.config.latent_channels * side * side
    return Tower(fingerprint(base.vae, {}, settings), width, open_picture, embed)


def sound_tokens_tower(ears: Any, pooled: bool) -> Tower:
    """An audio encoder: part of a sound -> its tokens, or its one vector."""
    rate_hz = ears.sampling_rate
    settings = {"kind": "sound tokens", "format": FORMAT, "pooled": pooled, "space": getattr(ears, "space", "")}

    def read(excerpt: Excerpt) -> np.ndarray:
        return load_part(excerpt.path, excerpt.first / rate_hz, excerpt.stop / rate_hz, rate_hz=rate_hz).samples

    def embed(sounds: list[np.ndarray], seeds: list[int] | None) -> list[np.ndarray]:
        ears.model.to(usual_device())
        heard = ears.heard(sounds)
        return [(vector[None] if pooled else tokens).cpu().numpy() for tokens, vector in heard]

    parts = {"feature_extractor": ears.feature_extractor}
    return Tower(fingerprint(ears.model, parts, settings), ears.width, read, embed)


class HeardPictures:
    """Examples by `Draw`: a sound's features, the latent of a picture that goes with it, and a text that has both.

    Args:
        pairs: which sound goes with which picture, and the caches of both.
        shape: of a latent, C, h, w.
        texts: what a picture is told by, `<audio>` in the sound's place; drawn for each example.
        labels: names of the sounds' classes, by number.
    """

    def __init__(self, pairs: Pairs, shape: tuple[int, int, int], texts: Sequence[str], labels: Sequence[str]):
        self.pairs, self.shape, self.texts, self.labels = pairs, shape, tuple(texts), tuple(labels)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        found = self.pairs[draw]
        label = self.labels[found["label"]] if "label" in found else None
        return {
            "features": torch.from_numpy(np.array(found["audio_frames"], np.float32)),
            "latent": torch.from_numpy(found["image_embeds"]).reshape(self.shape),
            "text": self.texts[derive(draw.seed, NOISE) % len(self.texts)],
            "label_text": None if label is None else in_words(label),
            "seed": draw.seed,
        }


class SmallPictures:
    """The same of the small world: sounds of a class with its photographs, drawings and digits.

    Args:
        sounds, pictures: items; sounds whose class has no picture are left out.
        features: cache of what was heard.
        rate_hz, seconds: of what is heard of a sound.
    """

    def __init__(
        self,
        sounds: Sequence[Item],
        pictures: Sequence[Item],
        features: TargetCache,
        rate_hz: int,
        seconds: float,
    ):
        self.pictures, self.features = list(pictures), features
        self.latents_NChw: torch.Tensor | None = None
        self.places: dict[str, dict[str, list[int]]] = {}  # label -> kind -> places of pictures
        for place, one in enumerate(self.pictures):
            self.places.setdefault(one.label, {}).setdefault(one.kind, []).append(place)
        self.sounds = [one for one in sounds if one.label in self.places]
        self.stop = max(1, round(seconds * rate_hz))

    def __len__(self) -> int:
        return len(self.sounds)

    def look(self, base: DiffusionBase) -> None:
        """The latents of all pictures, kept in memory: they are small."""
        pixels_N3HW = torch.from_numpy(pixels_of(self.pictures))
        found = []
        base.vae.to(usual_device())
        for start in tqdm(range(0, len(pixels_N3HW), AT_ONCE), desc="latents", disable=None):
            some = pixels_N3HW[start : start + AT_ONCE].float() / 255
            if some.shape[-1] != base.side:
                size = (base.side, base.side)
                some = torch.nn.functional.interpolate(some, size, mode="bicubic", antialias=True).clamp(0, 1)
            found.append(base.latents(some).cpu())
        self.latents_NChw = torch.cat(found)

    def excerpts(self) -> list[Excerpt]:
        return [Excerpt(one.source, 0, self.stop) for one in self.sounds]

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        assert self.latents_NChw is not None, "prepare comes first"
        one = self.sounds[draw.index]
        kinds = self.places[one.label]
        kind = sorted(kinds)[derive(draw.seed, NOISE) % len(kinds)]  # drawings are few, and as welcome as photographs
        place = kinds[kind][derive(draw.seed, PICTURE) % len(kinds[kind])]
        return {
            "features": torch.from_numpy(np.array(self.features.block(Excerpt(one.source, 0, self.stop)), np.float32)),
            "latent": self.latents_NChw[place],
            "text": TEMPLATES[kind][0].format("<audio>"),
            "label_text": one.label if one.label in DIGITS else noun(one.label),
            "seed": draw.seed,
        }


@dataclass(frozen=True)
class Collate:
    """Examples as a batch, with noise and steps of its own.

    Args:
        steps (`int`): of noise.
        pooled (`bool`): whether a sound has one vector.
    """

    steps: int
    pooled: bool

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        chance = torch.Generator().manual_seed(derive(examples[0]["seed"], NOISE))
        latents = torch.stack([one["latent"] for one in examples])
        batch: Batch = {
            "latents": latents,
            "noise": torch.randn(latents.shape, generator=chance),
            "timestep": torch.randint(0, self.steps, (len(latents),), generator=chance),
            "text": [one["text"] for one in examples],
        }
        if self.pooled:
            batch["features"] = torch.cat([one["features"] for one in examples])
        else:
            longest = max(len(one["features"]) for one in examples)
            batch["features"] = torch.zeros(len(examples), longest, examples[0]["features"].shape[1])
            batch["feature_mask"] = torch.zeros(len(examples), longest, dtype=torch.long)
            for row, one in enumerate(examples):
                batch["features"][row, : len(one["features"])] = one["features"]
                batch["feature_mask"][row, : len(one["features"])] = 1
        if all(one["label_text"] is not None for one in examples):
            batch["label_text"] = [one["label_text"] for one in examples]
        return batch


@dataclass
class Prepared:
    """
    Args:
        train, valid: examples to learn from, and to be held out.
        prepare: fills the caches of both.
        data, licences: for the card.
        name: of what is held out.
    """

    train: Any
    valid: Any
    prepare: Callable[[], None]
    data: list[dict[str, Any]]
    licences: dict[str, str]
    name: str


def of_pairs(
    found: tuple[Listing, Listing, Listing], ears: Any, base: DiffusionBase, pooled: bool, settings: Any
) -> Prepared:
    """From a listing, what is trained on, and what is held out."""
    listing, train, valid = found
    heard = TargetCache(settings.cache, sound_tokens_tower(ears, pooled))
    seen = TargetCache(settings.cache, latent_tower(base))
    shape = latent_shape(base)
    parts = [Pairs(one, ears.sampling_rate, settings.seconds, False, None, seen, heard) for one in (train, valid)]

    def prepare() -> None:
        check_files(*parts)
        heard.prepare(sorted({one.excerpt(sound) for one in parts for sound in one.sounds}))
        seen.prepare(sorted({path for one in parts for path in one.picture_paths()}))

    examples = [HeardPictures(one, shape, settings.texts, tuple(one.labels)) for one in parts]
    about = [{"name": listing.name, "found": listing.found, "expected": listing.expected}]
    return Prepared(examples[0], examples[1], prepare, about, {}, valid.name)


def of_small_world(world: SmallWorld, ears: Any, base: DiffusionBase, pooled: bool, settings: Any) -> Prepared:
    """From the packs of the small world."""
    heard = TargetCache(settings.cache, sound_tokens_tower(ears, pooled))
    parts = []
    for split, part in (("train", "world"), ("test", "test")):
        pictures = world.pictures(part, KINDS)  # type: ignore[arg-type]
        spoken = {one.label for one in pictures}
        sounds = [one for one in world.sounds(split) if one.label in spoken]
        labels = {one.label for one in sounds}
        pictures = fewer([one for one in pictures if one.label in labels], settings.most_pictures)
        parts.append(SmallPictures(sounds, pictures, heard, ears.sampling_rate, settings.seconds))

    def prepare() -> None:
        heard.prepare(sorted({*parts[0].excerpts(), *parts[1].excerpts()}))
        for one in parts:
            one.look(base)

    items = [*parts[0].sounds, *parts[0].pictures]
    counts = {kind: sum(one.kind == kind for one in items) for kind in dict.fromkeys(one.kind for one in items)}
    return Prepared(
        parts[0],
        parts[1],
        prepare,
        [{"name": f"{kind}s", "found": count, "expected": count} for kind, count in counts.items()],
        licences_of(items),
        f"{len(parts[1])} sounds that were held out, {world.variant}",
    )


def fewer(pictures: Sequence[Item], most: int) -> list[Item]:
    """Of each label and kind at most so many, the same ones always: of handwritten digits there are thousands."""
    taken: dict[tuple[str, str], int] = {}
    chosen = []
    for one in sorted(pictures, key=lambda one: share_of(one.id)):
        key = (one.kind, one.label)
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= most:
            chosen.append(one)
    return chosen


def latent_shape(base: DiffusionBase) -> tuple[int, int, int]:
    side = base.side // base.scale
    return base.vae.config.latent_channels, side, side
