"""The pack of sounds and pictures: pictures of test sounds, named by a judge, beside photographs of the same classes.

Classes are those that have test sounds and test photographs, and that a judge with labels of its own knows.
"""

from __future__ import annotations

import os

from unibrivl.data import Listing
from unibrivl.evaluation.benchmarks import pack_sounds
from unibrivl.evaluation.benchmarks.drawn import generation
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.judges import plain
from unibrivl.evaluation.pictures import judge_of
from unibrivl.evaluation.running import Found, Settings

TITLE, PROTOCOL = "Pictures of sounds", "pack_pictures-v1"
NEEDS = ("generate",)


def load(folder: str | os.PathLike) -> Listing:
    return pack_sounds.load(folder).filter(lambda one: one.split == "test", TITLE)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    known = getattr(judge_of(settings, vectors), "labels", None)
    seen = {str(one.label) for one in listing if one.image and (known is None or plain(str(one.label)) in known)}
    seen &= set(pack_sounds.ESC10)
    sounds = [one for one in listing if one.audio and one.label in seen]
    photos = [one for one in listing if one.image and one.label in {two.label for two in sounds}]
    return generation(vectors, sounds, photos, PROTOCOL, settings)
