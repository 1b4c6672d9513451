"""The one row type of every dataset, and the list of rows a loader hands over: what is there, and what is not.

A score means little without the number of clips it was made on: a `Listing` holds what was found, what its lists name
and the disk does not hold, and how many there are officially. Nothing here opens a sound or a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from unibrivl.metrics.events import Event
from unibrivl.utils import require

__all__ = ["DatasetError", "Listing", "Sample"]


class DatasetError(ValueError):
    """A folder or a table that is not what it was taken for; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing to hear, see or read; what it has not is None or empty.

    Args:
        id (`str`): unique within its dataset, the same on every disk.
        audio (`str`, *optional*): path of the sound; of the video where only that is there.
        image (`str`, *optional*): path of the picture.
        video (`str`, *optional*): path of the video a picture can be taken from.
        texts (`tuple[str, ...]`): captions, or what is said.
        labels (`tuple[str, ...]`): its classes, spelled as the dataset spells them.
        events (`tuple[Event, ...]`): labels with onset and offset in seconds, where the dataset has them.
        split, fold (`str`, `int`, *optional*): where the dataset puts it.
        start_s, end_s (`float`, *optional*): the part of the file that is meant; None is all of it.
        group (`str`, *optional*): speaker or recording; rows of one group are no independent evidence.
    """

    id: str
    audio: str | None = None
    image: str | None = None
    video: str | None = None
    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    split: str | None = None
    fold: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    group: str | None = None

    @property
    def label(self) -> str | None:
        """The class of a sample that has one; of several none can be chosen."""
        if len(self.labels) > 1:
            raise ValueError(f"{self.id} has the labels {', '.join(self.labels)}: use .labels")
        return self.labels[0] if self.labels else None


@dataclass(frozen=True)
class Listing:
    """A dataset as it was found on a disk.

    Args:
        name (`str`): the dataset's name, for tables.
        samples (`tuple[Sample, ...]`): what is there, in the order of the dataset's own list.
        missing (`tuple[Sample, ...]`): what the list names and the disk does not hold; paths are None.
        official (`int`, *optional*): how many there are officially; what the lists name if None.
        parts (`Mapping`): official numbers of the splits (`str`) and folds (`int`), where they are known.
    """

    name: str
    samples: tuple[Sample, ...]
    missing: tuple[Sample, ...] = ()
    official: int | None = None
    parts: Mapping[str | int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    @property
    def found(self) -> int:
        return len(self.samples)

    @property
    def expected(self) -> int:
        return len(self.samples) + len(self.missing) if self.official is None else self.official

    @property
    def labels(self) -> tuple[str, ...]:
        """All classes, sorted; those of missing samples too, so that a class keeps its number on every disk."""
        return tuple(sorted({label for sample in (*self.samples, *self.missing) for label in sample.labels}))

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(sorted({one.split for one in (*self.samples, *self.missing) if one.split is not None}))

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(sorted({one.fold for one in (*self.samples, *self.missing) if one.fold is not None}))

    def summary(self) -> str:
        """The line that belongs beside every score: "ESC-50: found 1998 of 2000"."""
        return f"{self.name}: found {self.found} of {self.expected}"

    def filter(self, keep: Callable[[Sample], bool], name: str | None = None, official: int | None = None) -> Listing:
        """The samples, found and missing, for which `keep` holds."""
        return replace(
            self,
            name=name or self.name,
            samples=tuple(filter(keep, self.samples)),
            missing=tuple(filter(keep, self.missing)),
            official=official,
            parts={},
        )

    def split(self, name: str) -> Listing:
        if name not in self.splits:
            raise ValueError(f"{self.name} has no split {name!r}: it has {_listed(self.splits) or 'none'}")
        return self.filter(lambda sample: sample.split == name, f"{self.name} {name}", self.parts.get(name))

    def fold(self, number: int) -> Listing:
        if number not in self.folds:
            raise ValueError(f"{self.name} has no fold {number!r}: it has {_listed(self.folds) or 'none'}")
        return self.filter(lambda sample: sample.fold == number, f"{self.name} fold {number}", self.parts.get(number))

    def to_dataset(self) -> Any:
        """A `datasets.Dataset` of what was found, one row a sample; nothing is opened.

        `audio` and `image` are `Audio(decode=False)` and `Image(decode=False)`: a row holds a path, which `load_audio`
        reads. So torchcodec is not needed, and the columns become decoding ones by one `cast_column`.
        """
        datasets = require("datasets", "train", "a datasets.Dataset")
        text = datasets.Value("string")
        number = datasets.Value("float64")
        # a plain struct first: encoding an Audio feature needs torchcodec, casting to one does not
        file = {"bytes": datasets.Value("binary"), "path": text}
        features = {
            **{"id": text, "audio": file, "image": file, "video": text},
            **{"texts": datasets.List(text), "labels": datasets.List(text)},
            "events": datasets.List({"onset": number, "offset": number, "label": text}),
            **{"split": text, "fold": datasets.Value("int32"), "start_s": number, "end_s": number, "group": text},
        }
        columns = {name: [_plain(name, getattr(sample, name)) for sample in self.samples] for name in features}
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        table = table.cast_column("audio", datasets.Audio(decode=False))
        return table.cast_column("image", datasets.Image(decode=False))

    def to_rows(self) -> list[dict[str, Any]]:
        """What was found as plain dictionaries, ready for JSON."""
        return [
            {**asdict(sample), "events": [list(event) for event in sample.events]}
            | {"texts": list(sample.texts), "labels": list(sample.labels)}
            for sample in self.samples
        ]


def _plain(name: str, value: Any) -> Any:
    if name in ("audio", "image"):
        return None if value is None else {"bytes": None, "path": value}
    if name == "events":
        return [dict(zip(("onset", "offset", "label"), event, strict=True)) for event in value]
    return list(value) if isinstance(value, tuple) else value


def _listed(names: tuple) -> str:
    return ", ".join(map(str, names))
