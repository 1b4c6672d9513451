"""The small world of the embedded model: real sounds, and photographs, drawings and handwritten digits of 64 x 64.

Two packs lie side by side in one folder, `sounds_and_pictures` and `spoken_digits`. The variant `open` takes what has
an open licence by the packs' own tables, `research` takes everything. Every picture belongs to one of three parts:

    world   what the embedded model is trained on: its image tower, its texts, its sounds' partners, its generator
    judge   what the judge of its pictures is trained on, and nothing else
    test    held out from both

Photographs of the packs' `test` split are the test part; of the others a share, drawn by their names, is the judge's.
Drawings come in two styles: Noto's are the world's, EmojiTwo's the judge's, and the judge is examined on Noto's.

Shapes: N pictures, H and W their sides, S samples of a sound.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from unibrivl.data.pictures import open_picture
from unibrivl.data.tables import read_csv
from unibrivl.training.config import ConfigError
from unibrivl.training.recipes.sounds_and_pictures_data import ESC10, in_words

Variant = Literal["open", "research"]
Part = Literal["world", "judge", "test"]
SIDE = 64
OPEN = ("CC0", "CC-BY-3", "CC-BY-4", "CC-BY-SA", "Apache")  # how open licences begin in the packs' tables
JUDGES_SHARE = 0.4  # OURS: of the photographs: enough to learn from for a judge that has nothing else
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CORE = ESC10
KINDS = ("photo", "drawing", "digit")

# what a class is called within a sentence; classes that are not here are called by their label
NOUNS = {
    "airplane": "an airplane", "breathing": "a person breathing", "brushing_teeth": "a toothbrush",
    "can_opening": "a can", "car_horn": "a car", "cat": "a cat", "chainsaw": "a chainsaw",
    "chirping_birds": "a bird", "church_bells": "church bells", "clapping": "clapping hands",
    "clock_alarm": "an alarm clock", "clock_tick": "a clock", "coughing": "a person coughing", "cow": "a cow",
    "crackling_fire": "a fire", "crickets": "a cricket", "crow": "a crow", "crying_baby": "a baby", "dog": "a dog",
    "door_wood_creaks": "a creaking door", "door_wood_knock": "a knock on a door", "drinking_sipping": "a cup",
    "engine": "an engine", "fireworks": "fireworks", "footsteps": "footsteps", "frog": "a frog",
    "glass_breaking": "breaking glass", "hand_saw": "a saw", "helicopter": "a helicopter", "hen": "a hen",
    "insects": "an insect", "keyboard_typing": "a keyboard", "laughing": "a laughing face",
    "mouse_click": "a computer mouse", "pig": "a pig", "pouring_water": "a jug of water", "rain": "rain",
    "rooster": "a rooster", "sea_waves": "sea waves", "sheep": "a sheep", "siren": "a siren",
    "sneezing": "a person sneezing", "snoring": "a person snoring", "thunderstorm": "a thunderstorm",
    "toilet_flush": "a toilet", "train": "a train", "vacuum_cleaner": "a vacuum cleaner",
    "washing_machine": "a washing machine", "water_drops": "drops of water", "wind": "wind",
}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A picture or a sound: where it is, what it is of, and under which terms.

    Args:
        kind: "photo", "drawing", "digit" or "sound".
        source (`str`): path of the file; of a handwritten digit "FILE#ROW".
        group (`str`): recording or speaker of a sound.
        fold (`int`, *optional*): ESC-50's.
    """

    id: str
    kind: str
    label: str
    split: str
    source: str
    licence: str
    attribution: str
    style: str = ""
    group: str = ""
    fold: int | None = None

    @property
    def is_open(self) -> bool:
        return self.licence.startswith(OPEN)


@dataclass(frozen=True)
class SmallWorldData:
    """
    Args:
        folder: holds the packs `sounds_and_pictures` and `spoken_digits`.
        variant: "open" takes what has an open licence, "research" everything.
    """

    folder: str = ""
    variant: Variant = "open"


class SmallWorld:
    """The packs of a folder as one list of items.

    Args:
        settings: see `SmallWorldData`.
    """

    def __init__(self, settings: SmallWorldData):
        if not settings.folder:
            raise ConfigError(
                "where are the packs? --set data.folder=FOLDER, which holds sounds_and_pictures and spoken_digits"
            )
        self.root, self.variant = Path(settings.folder).expanduser(), settings.variant
        missing = [name for name in ("sounds_and_pictures", "spoken_digits") if not (self.root / name).is_dir()]
        if missing:
            raise ConfigError(f"{self.root} has no folder {' and no folder '.join(missing)}: data.folder holds both")
        found = [*self._sounds(), *self._pictures(), *self._spoken(), *self._written()]
        self.items = [one for one in found if self.variant == "research" or one.is_open]

    # ---- what there is

    def pictures(self, part: Part, kinds: Sequence[str] = KINDS) -> list[Item]:
        return [one for one in self.items if one.kind in kinds and part_of(one) == part]

    def sounds(self, split: str, labels: Sequence[str] | None = None) -> list[Item]:
        """Clips of the split "train" or "test"."""
        wanted = None if labels is None else set(labels)
        return [
            one
            for one in self.items
            if one.kind == "sound" and one.split == split and (wanted is None or one.label in wanted)
        ]

    @property
    def labels(self) -> tuple[str, ...]:
        """All classes that are seen or heard in training, digits last."""
        found = {one.label for one in self.learned} - set(DIGITS)
        return (*sorted(found), *DIGITS)

    @property
    def named(self) -> list[tuple[str, str]]:
        """(kind, label) of all pictures of the world part: what can be drawn."""
        return sorted({(one.kind, one.label) for one in self.pictures("world")})

    @property
    def learned(self) -> list[Item]:
        """What the embedded model is trained on: not what its judge sees, and not what is held out."""
        return [*self.sounds("train"), *self.pictures("world")]

    # ---- reading the packs

    def _sounds(self) -> list[Item]:
        folder = self.root / "sounds_and_pictures" / "audio"
        items = []
        for row in read_csv(str(folder / "metadata.csv"), ("file_name", "label", "split", "clip_licence", "esc10")):
            # ESC-50's other classes come in a set that is not open, whatever a clip's own licence is
            licence = row["clip_licence"] if row["esc10"] == "True" else row["set_licence"]
            items.append(
                Item(
                    id=f"audio/{row['file_name']}",
                    kind="sound",
                    label=row["label"],
                    split=row["split"],
                    source=str(folder / row["file_name"]),
                    licence=licence,
                    attribution=row["attribution"],
                    group=row["source_id"],
                    fold=int(row["fold"]),
                )  # fmt: skip
            )
        return items

    def _pictures(self) -> list[Item]:
        items = []
        for name, kind in (("photos", "photo"), ("pictograms", "drawing")):
            folder = self.root / "sounds_and_pictures" / name
            for row in read_csv(str(folder / "metadata.csv"), ("file_name", "label", "split", "licence")):
                items.append(
                    Item(
                        id=f"{name}/{row['file_name']}",
                        kind=kind,
                        label=row["label"],
                        split=row["split"],
                        source=str(folder / row["file_name"]),
                        licence=row["licence"],
                        attribution=row["attribution"],
                        style=row.get("style", ""),
                    )  # fmt: skip
                )
        return items

    def _spoken(self) -> list[Item]:
        folder = self.root / "spoken_digits" / "audio"
        return [
            Item(
                id=f"spoken/{row['file_name']}",
                kind="sound",
                label=row["word"],
                split=row["split"],
                source=str(folder / row["file_name"]),
                licence=row["licence"],
                attribution=row["attribution"],
                group=row["speaker"],
            )  # fmt: skip
            for row in read_csv(str(folder / "metadata.csv"), ("file_name", "word", "speaker", "split", "licence"))
        ]

    def _written(self) -> list[Item]:
        folder, items = self.root / "spoken_digits" / "digits", []
        for split in ("train", "test"):
            numbers = idx(folder / f"{split}-labels-idx1-ubyte.gz", 1)
            file = folder / f"{split}-images-idx3-ubyte.gz"
            items += [
                Item(
                    id=f"digits/{split}/{row}",
                    kind="digit",
                    label=DIGITS[number],
                    split=split,
                    source=f"{file}#{row}",
                    licence="CC-BY-SA-3.0 (MNIST, as commonly stated)",
                    attribution="MNIST, Y. LeCun and C. Cortes",
                )  # fmt: skip
                for row, number in enumerate(numbers.tolist())
            ]
        return items


def part_of(item: Item) -> Part:
    """Which part a picture belongs to: see above."""
    if item.split == "test":
        return "test"
    if item.kind == "drawing":
        return "world" if item.style == "noto" else "judge"
    return "judge" if share_of(item.id) < JUDGES_SHARE else "world"


def share_of(name: str) -> float:
    """A number from 0 to 1 that follows from a name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def idx(path: os.PathLike, dimensions: int) -> np.ndarray:
    """The bytes of an MNIST file, in its own shape."""
    with gzip.open(path) as file:
        content = file.read()
    head = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:head], ">i4") if len(content) >= head else np.zeros(dimensions, int)
    if content[:3] != b"\0\0\x08" or content[3] != dimensions or len(content) != head + int(np.prod(shape)):
        raise ConfigError(f"{path} is no MNIST file of {dimensions} dimensions: copy the pack again")
    return np.frombuffer(content[head:], np.uint8).reshape(shape)


def pixels_of(items: Sequence[Item], desc: str = "pictures") -> np.ndarray:
    """(N, 3, 64, 64) bytes. Handwritten digits are black on white, as on paper, and fill 56 x 56."""
    files: dict[str, np.ndarray] = {}
    pictures = []
    for one in tqdm(items, desc=desc, unit="file", disable=None):
        if one.kind == "digit":
            file, _, row = one.source.rpartition("#")
            if file not in files:
                files[file] = idx(Path(file), 3)
            ink = Image.fromarray(files[file][int(row)]).resize((56, 56), Image.Resampling.BICUBIC)
            paper: np.ndarray = np.full((SIDE, SIDE), 255, np.uint8)
            paper[4:60, 4:60] = 255 - np.asarray(ink)
            pictures.append(np.repeat(paper[None], 3, 0))
        else:
            picture = open_picture(one.source)
            if picture.size != (SIDE, SIDE):
                picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            pictures.append(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    return np.stack(pictures)


# ---- words

PHOTO = ("a photo of {}", "a photograph of {}", "a picture of {}", "a small photo of {}")
DRAWING = ("a drawing of {}", "a cartoon of {}", "an emoji of {}", "a pictogram of {}")
DIGIT = ("a handwritten {}", "the handwritten digit {}", "a handwritten number {}", "a drawing of the number {}")
SOUND = ("the sound of {}", "{}", "this sounds like {}", "{} can be heard")
SPOKEN = ("the spoken word {}", "{}", "somebody says {}", "the spoken digit {}")
TEMPLATES = {"photo": PHOTO, "drawing": DRAWING, "digit": DIGIT}


def noun(label: str) -> str:
    return NOUNS.get(label, in_words(label))


def prompt_of(kind: str, label: str) -> str:
    """The first and plainest text of a picture: what it is drawn from."""
    return TEMPLATES[kind][0].format(noun(label))


def texts_of(kind: str, label: str) -> list[str]:
    """All texts of a picture, or of a sound ("sound"); a label in words stands beside its noun."""
    if kind == "sound":
        templates: Sequence[str] = SPOKEN if label in DIGITS else SOUND
    else:
        templates = TEMPLATES[kind]
    names = dict.fromkeys([noun(label), *([] if label in DIGITS else [in_words(label)])])
    return [template.format(name) for name in names for template in templates]


def balanced(items: Sequence[Item], weights: dict[str, float], power: float) -> np.ndarray:
    """(N,), the chance of each item: kinds by their weights; within a kind a label with n items in proportion to n to
    the power of 1 - `power`."""
    return chances_by(items, lambda one: one.kind, lambda one: one.label, weights, power)


def chances_by(
    items: Sequence[Item],
    outer: Callable[[Item], str],
    inner: Callable[[Item], str],
    weights: dict[str, float],
    power: float,
) -> np.ndarray:
    counts: dict[tuple[str, str], int] = {}
    for one in items:
        counts[outer(one), inner(one)] = counts.get((outer(one), inner(one)), 0) + 1
    chances_N = np.array([counts[outer(one), inner(one)] ** -power for one in items], np.float64)
    of_kind = np.array([outer(one) for one in items])
    for kind in dict.fromkeys(of_kind.tolist()):
        rows = of_kind == kind
        chances_N[rows] *= weights.get(kind, 1.0) / chances_N[rows].sum()
    return chances_N / chances_N.sum()


# what is drawn for a sound whose class has no picture of either kind
STAND_INS = {"chainsaw": ("drawing", "hand_saw")}


def banks_of(world: SmallWorld) -> dict[str, dict[str, str]]:
    """Two banks, "photo" and "drawing": of every class that is heard what is read, and what is drawn for it."""
    can = set(world.named)
    banks: dict[str, dict[str, str]] = {"photo": {}, "drawing": {}}
    for label in dict.fromkeys(one.label for one in world.sounds("train")):
        for name, other in (("photo", "drawing"), ("drawing", "photo")):
            kinds = [kind for kind in (name, other, "digit") if (kind, label) in can]
            kind, drawn = (kinds[0], label) if kinds else STAND_INS.get(label, ("photo", label))
            banks[name][noun(label)] = prompt_of(kind, drawn)
    return banks
