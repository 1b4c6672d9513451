"""Sounds of a pack with labels: what is trained on, what is held out, and ESC-10 among them.

ESC-10 are ten of the labels, with 24 clips each to train on (folds 1 to 3) and eight to test on (fold 4). Whatever is
chosen is chosen on fold 3 (`data.validation_fold=3`): it is then held out in place of fold 4, which nobody looks at.

Shapes: S samples of a sound, N clips, T units of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from unibrivl import data as datasets
from unibrivl.data import DatasetError, Listing, Sample
from unibrivl.modeling import SpeechLMPhoneTokenizer
from unibrivl.training.augment_sound import SoundAugmentation
from unibrivl.training.config import ConfigError
from unibrivl.training.pairs import SOUND, Collate, Pairs, part_of
from unibrivl.training.parts import Batch
from unibrivl.training.recipes.photos import chances, drawn
from unibrivl.training.sampler import Draw, derive
from unibrivl.training.target_cache import TargetCache

RATE_HZ = 16_000
ESC10 = (
    *("chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog", "helicopter", "rain", "rooster", "sea_waves"),
    "sneezing",
)
# Clips may begin anywhere: what happens in them stands at no fixed place
AUGMENTATION = SoundAugmentation(shift_s=5.0, num_bands=0, num_spans=0, gain_db=10.0)  # OURS: clips are 5 s long


@dataclass(frozen=True)
class SoundsData:
    """
    Args:
        folder: the pack `sounds_and_pictures`.
        validation_fold (`int`, *optional*): hold this fold of ESC-10 out in place of the test part, to choose on.
        seconds (`float`): the most that is heard of a clip.
        balance (`float`): a label with n clips is drawn in proportion to n to the power of 1 - balance.
        sound: augmentation of the sounds.
    """

    folder: str = ""
    validation_fold: int | None = None
    seconds: float = 5.0  # OURS: the length of ESC-50's clips
    balance: float = 0.5  # OURS: 24 clips of some labels, four of others
    sound: SoundAugmentation = field(default_factory=lambda: AUGMENTATION)


@dataclass(frozen=True)
class Division:
    """
    Args:
        listing: the whole pack.
        train: all labels, sounds and pictures, without what is held out.
        esc10_train, esc10_held: clips of ESC-10 alone.
    """

    listing: Listing
    train: Listing
    esc10_train: tuple[Sample, ...]
    esc10_held: tuple[Sample, ...]


def division(settings: SoundsData) -> Division:
    if not settings.folder:
        raise ConfigError("where is the pack? --set data.folder=FOLDER, the folder that holds classes.csv")
    listing, fold = datasets.load(settings.folder, "sounds_and_pictures"), settings.validation_fold

    def held(one: Sample) -> bool:
        """The test part is never trained on, whether it is looked at or not."""
        in_fold = fold is not None and one.audio is not None and one.labels[0] in ESC10 and one.fold == fold
        return one.split == "test" or in_fold

    clips = [one for one in listing if one.audio and one.labels[0] in ESC10]
    train = tuple(one for one in clips if not held(one))
    looked_at = tuple(one for one in clips if (one.split == "test" if fold is None else one.fold == fold))
    overlap = {one.group for one in train} & {one.group for one in looked_at}
    if not train or not looked_at or overlap:
        raise DatasetError(
            f"{listing.summary()}: {len(train)} clips of ESC-10 to train on and {len(looked_at)} held out, "
            f"{len(overlap)} recordings in both. Set data.validation_fold to a fold that the pack has, or to none"
        )
    return Division(listing, listing.filter(lambda one: not held(one), f"{listing.name} train"), train, looked_at)


def with_both(parts: Division) -> set[str]:
    """Labels that have sounds and pictures to train on."""
    sounds, pictures = ({one.labels[0] for one in parts.train if getattr(one, kind)} for kind in ("audio", "image"))
    return sounds & pictures


class Clips:
    """Clips as they are heard, each decoded once and kept: 640 of five seconds take 200 MB."""

    def __init__(self, seconds: float):
        self.seconds, self.kept = seconds, dict[str, np.ndarray]()

    def __call__(self, one: Sample) -> np.ndarray:
        """(S,) float32."""
        if one.id not in self.kept:
            self.kept[one.id] = part_of(one, RATE_HZ, self.seconds)
        return self.kept[one.id]


class LabelledSounds(Pairs):
    """Pairs by label, drawn so that rare labels are heard too; or the sounds alone.

    Args:
        listing: sounds and pictures.
        labels: names of the classes, in the order of their numbers; sounds of other labels are passed over.
        clips: see `Clips`.
        settings: see `SoundsData`.
        targets (*optional*): embeddings of the pictures; without them examples have no picture.
    """

    def __init__(
        self,
        listing: Listing,
        labels: Sequence[str],
        clips: Clips,
        settings: SoundsData,
        targets: TargetCache | None = None,
    ):
        numbers = {label: number for number, label in enumerate(labels)}
        chosen = listing.filter(lambda one: len(one.labels) == 1 and one.labels[0] in numbers, listing.name)
        super().__init__(chosen, RATE_HZ, settings.seconds, False, settings.sound, targets)
        self.labels, self.clips = numbers, clips
        self.chances_N = chances(np.array([numbers[one.labels[0]] for one in self.sounds]), settings.balance)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        return super().__getitem__(Draw(drawn(self.chances_N, draw.seed), draw.epoch, draw.seed))

    def heard(self, one: Sample, draw: Draw) -> dict[str, Any]:
        assert self.augmentation is not None
        chance = np.random.default_rng(derive(draw.seed, SOUND))
        return {"audio": self.augmentation(self.clips(one), self.rate_hz, chance)}

    def seen(self, place: int, draw: Draw) -> dict[str, Any]:
        return {} if self.targets is None else super().seen(place, draw)


@dataclass(frozen=True)
class Texts:
    """What each class is called, as units that the language tower reads.

    Args:
        unit_ids_NT, mask_NT: one row a class.
        most (`int`): that are read in a batch.
    """

    unit_ids_NT: torch.Tensor
    mask_NT: torch.Tensor
    most: int = 8

    @classmethod
    def of(cls, labels: Sequence[str], tokenizer: SpeechLMPhoneTokenizer, most: int = 8) -> Texts:
        read = tokenizer([in_words(label) for label in labels], padding=True, return_tensors="pt")
        return cls(read["input_ids"], read["attention_mask"], most)

    def read(self, classes: Any) -> Batch:
        """`unit_ids` and their mask, as long as the longest of them."""
        mask_RT = self.mask_NT[classes]
        longest = int(mask_RT.sum(1).max())
        return {"unit_ids": self.unit_ids_NT[classes, :longest], "unit_attention_mask": mask_RT[:, :longest]}

    def batch(self, label_B: torch.Tensor) -> Batch:
        """The texts of the first labels of a batch, each once, and the rows that they belong to."""
        rows = list({label: row for row, label in reversed(list(enumerate(label_B.tolist())))}.values())
        rows = sorted(rows)[: self.most]
        return {**self.read(label_B[rows]), "text_rows": torch.tensor(rows)}


def in_words(label: str) -> str:
    return label.replace("_", " ")


def tokenizer_for(labels: Sequence[str], folder: str) -> SpeechLMPhoneTokenizer:
    """A tokenizer that can pronounce the labels, and little else, from the whole one in a folder."""
    everything = SpeechLMPhoneTokenizer.from_pretrained(folder)
    words = sorted({word for label in labels for word in everything.words(in_words(label))})
    unknown = [word for word in words if word not in everything.lexicon]
    if unknown:
        raise ConfigError(
            f"the lexicon in {folder} has no pronunciation of {', '.join(unknown[:5])}: make one that has, unibrivl "
            "lexicon FOLDER, or leave the words out with data.lexicon=none"
        )
    return SpeechLMPhoneTokenizer(lexicon={word: everything.lexicon[word] for word in words})


@dataclass(frozen=True)
class LabelledCollate:
    """A batch in which all rows of one label are one sample: whatever repels, they do not repel each other.

    Args:
        collate: see `Collate`.
        texts (*optional*): the labels' texts, read beside the sounds.
    """

    collate: Collate
    texts: Texts | None = None

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        batch = self.collate(examples)
        batch["sample_id"] = batch["label"]
        return batch if self.texts is None else {**batch, **self.texts.batch(batch["label"])}
