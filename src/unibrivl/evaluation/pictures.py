"""Pictures that an encoder draws of sounds, drawn once, and sheets of them to look at.

Benchmarks of pictures ask an encoder for `generate(paths, seeds)`, a Pillow picture for each path and its seed. The
same seed must draw with the same chance, whatever is drawn beside: what differs between two sounds of one seed is then
the sounds'.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from unibrivl.evaluation.encoders import Vectors

AT_ONCE = 8  # sounds whose pictures are kept together: what a kill may cost
COLUMNS = 12  # pictures of a sheet's row


class Pictures:
    """
    Args:
        vectors: of the encoder; pictures are kept beside them, if these are.
    """

    def __init__(self, vectors: Vectors):
        self.vectors, self.folder = vectors, vectors.beside("pictures")

    def of(self, paths: Sequence[str], ids: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """A picture for each sound by its seed, from the disk if it is there.

        Args:
            ids: unlike names of the sounds, the same on every disk.
        """
        found: dict[int, Image.Image] = {}
        missing = []
        for place, name in enumerate(ids):
            path = self.path(name, seeds[place])
            if path is not None and path.is_file():
                with Image.open(path) as kept:
                    found[place] = kept.convert("RGB")
            else:
                missing.append(place)
        hidden = None if self.vectors.progress is None else not self.vectors.progress
        with tqdm(total=len(missing), unit=" pictures", disable=hidden, leave=False) as bar:
            for start in range(0, len(missing), AT_ONCE):
                some = missing[start : start + AT_ONCE]
                drawn = list(self.vectors.encoder.generate([paths[at] for at in some], [seeds[at] for at in some]))
                if len(drawn) != len(some) or not all(isinstance(one, Image.Image) for one in drawn):
                    raise ValueError(f"{self.vectors.name}'s generate gives one Pillow picture for each of its paths")
                for place, picture in zip(some, drawn, strict=True):
                    found[place] = picture.convert("RGB")
                    self.keep(self.path(ids[place], seeds[place]), found[place])
                bar.update(len(some))
        return [found[place] for place in range(len(paths))]

    def path(self, name: str, seed: int) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-{seed}.png"

    def keep(self, path: Path | None, picture: Image.Image) -> None:
        """A file that is whole or not there."""
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.stem}.{os.getpid()}.png")
        picture.save(partial)
        partial.replace(path)

    def sheet(self, name: str, rows: Sequence[Sequence[Image.Image]]) -> str | None:
        """Writes rows of pictures as one picture; where, or None if nothing is kept."""
        rows = [row for row in rows if row]
        if self.folder is None or not rows:
            return None
        width, height = rows[0][0].size
        page = Image.new("RGB", (width * min(COLUMNS, max(map(len, rows))), height * len(rows)), "white")
        for line, row in enumerate(rows):
            for column, picture in enumerate(row[:COLUMNS]):
                page.paste(picture.resize((width, height)), (column * width, line * height))
        path = self.folder / f"{name}.png"
        self.keep(path, page)
        return str(path)


def judge_of(settings: Any, vectors: Vectors) -> Any:
    """The judge that was named; a model must not be its own, nor its matcher, by which it chooses among candidates."""
    judge = settings.judge
    if judge is None:
        raise ValueError("pictures are named by a judge: `--judge FOLDER` of a classifier of pictures, or of a CLIP")
    if judge.fingerprint and judge.fingerprint in vectors.fingerprint.split():
        raise ValueError(f"{vectors.name} cannot judge its own pictures: name another model with --judge")
    return judge
