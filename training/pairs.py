"""Sounds with pictures, from a listing: what the loop asks by `Draw`, and how a list of examples becomes a batch.

Samples that have both are pairs. Where no sample has both, a sound is paired with a picture of its label, another one
in each epoch. Whatever is random about an example follows from its draw: which part of a long sound, which picture,
which view of it, how both are augmented.

A file that cannot be read is an error that names it, and none is replaced in silence: a run must not depend on how
often a disk failed. `check_files` looks at the beginning of every sound and picture before the first step; pictures
are read whole when their embeddings are cached. What cannot be mended is left out by its id, in the configuration.

Shapes: S samples of a sound, T frames, V and W numbers of a cached embedding and of a cached frame.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from unibrivl.audio import AudioError, load_audio, load_part
from unibrivl.data import DatasetError, Listing, Sample
from unibrivl.data.pictures import fault_of_picture, open_picture
from unibrivl.training.augment import PictureAugmentation
from unibrivl.training.augment_sound import SoundAugmentation
from unibrivl.training.parts import Batch
from unibrivl.training.sampler import Draw, derive
from unibrivl.training.target_cache import MOST_NAMED, Excerpt, TargetCache, pixels_of
from unibrivl.training.target_sounds import beginning, exact_seconds

CROP, SOUND, PICTURE, PIXELS = range(4)  # what a draw's seed is derived for
TRAIN_NAMES = ("train", "training")
VALID_NAMES = ("valid", "validation", "val", "dev", "test", "eval", "evaluation")  # the first that is there


class Pairs:
    """
    Args:
        listing: the samples; see `unibrivl.data.load`. One that is neither sound nor picture of a pair is passed over.
        rate_hz (`int`): of the sounds.
        seconds (`float`): the most that is taken of a sound: a random part of it in training, else its beginning.
        random_parts (`bool`): whether this is training.
        augmentation (*optional*): of sounds, after the cut.
        targets (*optional*): cached embeddings take the place of pictures.
        frames (*optional*): what the sound tower made of them, cached, takes the place of sounds; of their beginning,
            unaugmented.
    """

    def __init__(
        self,
        listing: Listing,
        rate_hz: int,
        seconds: float = 10.0,  # UniBriVL paper: clips of AudioSet
        random_parts: bool = True,
        augmentation: SoundAugmentation | None = None,
        targets: TargetCache | None = None,
        frames: TargetCache | None = None,
    ):
        if not seconds > 0:
            raise ValueError(f"seconds is the most that is heard of a sound, above 0; got {seconds}")
        if frames is not None and (random_parts or augmentation is not None):
            raise ValueError("cached sounds are always the same: pass random_parts=False and no augmentation")
        self.rate_hz, self.seconds, self.random_parts = rate_hz, seconds, random_parts
        self.augmentation, self.targets, self.frames = augmentation, targets, frames
        both = [one for one in listing if one.audio and one.image]
        self.by_label = not both
        self.sounds = both or [one for one in listing if one.audio and len(one.labels) == 1]
        self.pictures = both or [one for one in listing if one.image and not one.audio and len(one.labels) == 1]
        self.pictures_of: dict[str, list[int]] = {}  # label -> places in `pictures`
        if self.by_label:
            for place, one in enumerate(self.pictures):
                self.pictures_of.setdefault(one.labels[0], []).append(place)
            self.sounds = [one for one in self.sounds if one.labels[0] in self.pictures_of]
            heard = {one.labels[0] for one in self.sounds}
            self.pictures_of = {label: places for label, places in self.pictures_of.items() if label in heard}
        if not self.sounds:
            raise DatasetError(no_pairs(listing))
        numbers: dict[str, int] = {}  # of a picture, however many samples have it
        self.ids = [numbers.setdefault(picture_of(one), len(numbers)) for one in self.pictures]
        self.labels = {label: number for number, label in enumerate(listing.labels)}
        self.labelled = all(len(one.labels) == 1 for one in self.sounds)

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        one = self.sounds[draw.index]
        place = draw.index
        if self.by_label:
            places = self.pictures_of[one.labels[0]]
            place = places[derive(draw.seed, PICTURE) % len(places)]
        return {**self.heard(one, draw), **self.seen(place, draw), **self.about(one, place)}

    def heard(self, one: Sample, draw: Draw) -> dict[str, Any]:
        """`audio`, (S,) float32; with a cache `audio_frames`, (T, W), not to be written to."""
        if self.frames is not None:
            return {"audio_frames": self.frames.block(self.excerpt(one))}
        chance = np.random.default_rng(derive(draw.seed, CROP)) if self.random_parts else None
        samples_S = part_of(one, self.rate_hz, self.seconds, chance)
        if self.augmentation is not None:
            generator = np.random.default_rng(derive(draw.seed, SOUND))
            samples_S = self.augmentation(samples_S, self.rate_hz, generator)
        return {"audio": samples_S}

    def seen(self, place: int, draw: Draw) -> dict[str, Any]:
        """`image_embeds`, (V,) float32; without a cache the Pillow `image`, and `image_seed` for its augmentation."""
        path = picture_of(self.pictures[place])
        if self.targets is not None:
            return {"image_embeds": self.targets.row(path, (draw.epoch + place) % self.targets.views)}
        return {"image": open_picture(path), "image_seed": derive(draw.seed, PIXELS)}

    def about(self, one: Sample, place: int) -> dict[str, int]:
        """`sample_id`, of the picture; `label`, where every sample has one."""
        label = {"label": self.labels[one.labels[0]]} if self.labelled else {}
        return {"sample_id": self.ids[place], **label}

    def picture_paths(self) -> list[str]:
        """Of all pictures that an example may have."""
        if not self.by_label:
            return [picture_of(one) for one in self.pictures]
        return [picture_of(self.pictures[place]) for places in self.pictures_of.values() for place in places]

    def excerpt(self, one: Sample) -> Excerpt:
        """What is heard of a sound where nothing is left to chance."""
        return beginning(one, self.rate_hz, self.seconds)

    def used(self) -> Iterable[tuple[Sample, str | None, str | None]]:
        """Samples of which an example may be made, each with the sound and the picture that are taken of it."""
        if not self.by_label:
            return ((one, one.audio, one.image) for one in self.sounds)
        places = [place for places in self.pictures_of.values() for place in places]
        return (
            *((one, one.audio, None) for one in self.sounds),
            *((self.pictures[place], None, self.pictures[place].image) for place in places),
        )

    def check(self) -> None:
        check_files(self)

    def summary(self) -> str:
        how = f"{len(self.sounds)} pairs"
        if self.by_label:
            pictures = sum(map(len, self.pictures_of.values()))
            how = f"{len(self.sounds)} sounds and {pictures} pictures of {len(self.pictures_of)} labels"
        return how


def check_files(*parts: Pairs) -> None:
    """Open every sound and picture; one error names all that cannot be. Nothing is decoded, so damage further on
    stays."""
    sounds, pictures, ids = dict[str, float](), dict[str, None](), dict[str, list[str]]()
    for one, sound, picture in (row for part in parts for row in part.used()):
        if sound is not None:
            sounds[sound] = max(sounds.get(sound, 0.0), one.start_s or 0.0)
        if picture is not None:
            pictures[picture] = None
        for path in {sound, picture} - {None}:
            ids.setdefault(str(path), []).append(one.id)

    def fault_of_sound(path: str) -> str | None:
        try:
            seconds = exact_seconds(path)
        except (ValueError, OSError) as error:
            return str(error).removeprefix(f"{path}: ")
        if seconds is not None and sounds[path] >= seconds and sounds[path]:
            return f"it ends at {seconds:g} s, before a sample that begins at {sounds[path]:g} s"
        return None

    broken = dict[str, str]()
    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="unibrivl-check") as pool:
        checks: tuple[tuple[str, list[str], Callable[[str], str | None]], ...] = (
            ("sounds", sorted(sounds), fault_of_sound),
            ("pictures", sorted(pictures), fault_of_picture),
        )
        for what, paths, fault in checks:
            faults = tqdm(pool.map(fault, paths), total=len(paths), desc=what, unit="file", disable=None)
            broken |= {path: why for path, why in zip(paths, faults, strict=True) if why is not None}
    if broken:
        raise DatasetError(told(broken, len(sounds) + len(pictures), ids))


def told(broken: dict[str, str], number: int, ids: dict[str, list[str]]) -> str:
    """Files that cannot be used, and the setting that leaves their samples out."""
    named = "; ".join(f"{path}: {why}".rstrip(".") for path, why in sorted(broken.items())[:MOST_NAMED])
    more = f"; and {len(broken) - MOST_NAMED} more" if len(broken) > MOST_NAMED else ""
    without = sorted({one for path in broken for one in ids[path]})
    way = "leave their samples out"
    if not any("," in one for one in without):
        way += f": --set {shlex.quote('data.leave_out=' + ','.join(without))}"
    return f"{len(broken)} of {number} files cannot be used: {named}{more}. Mend or remove them, or {way}"


def picture_of(one: Sample) -> str:
    assert one.image is not None, "a pair has a picture"
    return one.image


def no_pairs(listing: Listing) -> str:
    """Why there is nothing to train on, and what would do."""
    sounds, pictures = sum(bool(one.audio) for one in listing), sum(bool(one.image) for one in listing)
    held = f"{listing.summary()}: {sounds} with a sound, {pictures} with a picture, none with both"
    if not sounds or not pictures:
        films = sum(bool(one.video) for one in listing)
        if films:
            return f"{held}. Its {films} videos have both: take sound and picture out of them with unibrivl prepare"
        return f"{held}. Training needs sounds and pictures: give a folder that holds both"
    return (
        f"{held}, and no label that a sound and a picture share. Give what belongs together one stem (dog_1.wav, "
        "dog_1.jpg), one row of a table with the columns audio and image, or one folder a class"
    )


def part_of(one: Sample, rate_hz: int, seconds: float, chance: np.random.Generator | None = None) -> np.ndarray:
    """At most `seconds` of the part of a file that a sample means, (S,) float32; a random part if there is chance.

    Where the file says how long it is and can be entered anywhere (WAV, AIFF, FLAC), only what is heard is read.
    """
    assert one.audio is not None, "a pair has a sound"
    if chance is None:  # what follows need not be decoded
        return between(one, rate_hz, *beginning(one, rate_hz, seconds)[1:])
    first = round((one.start_s or 0.0) * rate_hz)
    last = None if one.end_s is None else round(one.end_s * rate_hz)
    most = max(1, round(seconds * rate_hz))
    length_s = exact_seconds(one.audio)
    if length_s is not None:
        length = int(length_s * rate_hz)
        spare = min(length, length if last is None else last) - first - most
        begin = first + (int(chance.integers(spare + 1)) if spare > 0 else 0)
        end = begin + most if last is None else min(last, begin + most)
        try:
            return between(one, rate_hz, begin, end)
        except DatasetError:
            if begin == first:
                raise
            # it is shorter than it says: a part of what there is
    samples_S: np.ndarray = between(one, rate_hz, first, last)
    spare = len(samples_S) - most
    begin = int(chance.integers(spare + 1)) if spare > 0 else 0
    return samples_S[begin : begin + most]


def between(one: Sample, rate_hz: int, first: int, last: int | None) -> np.ndarray:
    """The samples from `first` up to `last` of a file, as many as there are."""
    too_late = DatasetError(
        f"{one.id}: {one.audio} ends before {first / rate_hz} s, where this part begins, or the part is empty. Mend "
        f"start_s and end_s, or leave the sample out: --set {shlex.quote(f'data.leave_out={one.id}')}"
    )
    if last is not None and last <= first:
        raise too_late
    if not first and last is None:
        return load_audio(one.audio, rate_hz=rate_hz).samples
    try:
        return load_part(one.audio, first / rate_hz, None if last is None else last / rate_hz, rate_hz=rate_hz).samples
    except AudioError as error:
        if "ends before" not in error.reason:
            raise
        raise too_late from error


# ---- batches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Collate:
    """A list of examples as a batch, by the model's processor.

    Args:
        processor: a `UniBriVLProcessor`.
        augmentation (*optional*): of pictures that are not cached.
    """

    processor: Any
    augmentation: PictureAugmentation | None = None

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        if "audio_frames" in examples[0]:
            batch = padded([one["audio_frames"] for one in examples])
        else:
            rate_hz = self.processor.feature_extractor.sampling_rate
            sounds = [one["audio"] for one in examples]
            batch = dict(self.processor(audio=sounds, sampling_rate=rate_hz, return_tensors="pt"))
        if "image_embeds" in examples[0]:
            batch["image_embeds"] = torch.from_numpy(np.stack([one["image_embeds"] for one in examples]))
        elif "image" in examples[0]:
            pictures, seeds = [one["image"] for one in examples], [one["image_seed"] for one in examples]
            batch["pixel_values"] = pixels_of(pictures, self.processor.image_processor, self.augmentation, seeds)
        for name in ("sample_id", "label"):
            if name in examples[0]:
                batch[name] = torch.tensor([one[name] for one in examples])
        return batch


def padded(blocks: Sequence[np.ndarray]) -> Batch:
    """Frames (T, W) of each sound as `audio_frames` and `frame_mask`."""
    frames_BTW = np.zeros((len(blocks), max(map(len, blocks)), blocks[0].shape[1]), blocks[0].dtype)
    mask_BT = torch.zeros(frames_BTW.shape[:2], dtype=torch.long)
    for row, block_TW in enumerate(blocks):
        frames_BTW[row, : len(block_TW)] = block_TW
        mask_BT[row, : len(block_TW)] = 1
    return {"audio_frames": torch.from_numpy(frames_BTW), "frame_mask": mask_BT}


# ---- what to train on and what to hold out --------------------------------------------------------------------------


def without(listing: Listing, ids: Sequence[str]) -> Listing:
    """A listing without some samples; an id that is not there is an error."""
    unknown = sorted(set(ids) - {one.id for one in (*listing.samples, *listing.missing)})
    if unknown:
        raise ValueError(f"data.leave_out names {unknown[0]!r}, and {listing.name} has no sample of that id")
    return listing.filter(lambda one: one.id not in set(ids)) if ids else listing


def divided(
    listing: Listing, share: float, seed: int, train: str | None = None, valid: str | None = None
) -> tuple[Listing, Listing]:
    """What is trained on and what is held out.

    By the listing's own splits, if it has some: `valid` or else the first of valid, validation, val, dev, test and
    eval is held out; `train`, or else "train", is trained on, with all that has no split. Otherwise a share is drawn
    from the seed; samples of one group, or of one picture, stay together.
    """
    splits = {name.lower(): name for name in listing.splits}
    held = valid or next((splits[name] for name in VALID_NAMES if name in splits), None)
    taken = train or next((splits[name] for name in TRAIN_NAMES if name in splits), None)
    for name in (train, valid):
        if name is not None and name not in listing.splits:
            raise ValueError(f"{listing.name} has no split {name!r}: it has {', '.join(listing.splits) or 'none'}")
    if taken is not None:
        rest = listing.filter(lambda one: one.split in (taken, None), f"{listing.name} {taken}")
    elif valid is not None:
        rest = listing.filter(lambda one: one.split != valid, f"{listing.name} without {valid}")
    else:
        rest = listing.filter(lambda one: one.split is None, f"{listing.name} without split")
    if held is not None and len(rest):
        return rest, listing.filter(lambda one: one.split == held, f"{listing.name} {held}")
    listing = rest if taken is not None else listing
    if not 0 < share < 1:
        raise ValueError(f"data.validation is the share that is held out, between 0 and 1; got {share}")
    held_out = drawn(listing, share, seed)
    return (
        listing.filter(lambda one: group_of(one) not in held_out, f"{listing.name} without validation"),
        listing.filter(lambda one: group_of(one) in held_out, f"{listing.name} validation"),
    )


def group_of(one: Sample) -> str:
    return one.group or one.image or one.audio or one.id


def drawn(listing: Listing, share: float, seed: int) -> set[str]:
    """A share of the groups; by label, of those of every label and kind, so that what is held out has its answers."""
    strata: dict[tuple, dict[str, None]] = {}
    whole = any(one.audio and one.image for one in listing)
    for one in listing:
        stratum = () if whole else (one.labels, bool(one.audio))
        strata.setdefault(stratum, {})[group_of(one)] = None
    chosen: set[str] = set()
    for number, (_, groups) in enumerate(sorted(strata.items(), key=lambda item: str(item[0]))):
        names = list(groups)
        order = np.random.default_rng([seed, number]).permutation(len(names))
        chosen |= {names[place] for place in order[: num_held(len(names), share, 2 if whole else 1)]}
    return chosen


def num_held(number: int, share: float, least: int) -> int:
    """Among one picture nothing can be looked for; and something has to be left."""
    return min(max(least, round(share * number)), number - 1)
