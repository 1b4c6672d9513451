"""RAVDESS, speech: 24 actors say two sentences with eight emotions, 1,440 clips.

Layout: `Actor_01` to `Actor_24` with `03-01-EE-II-SS-RR-AA.wav`: emotion, intensity, statement, repetition, actor.
Songs (channel 02) and videos (modality 01 and 02) in the same folders are left out. CC BY-NC-SA 4.0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from unibrivl.data.layout import Stems, as_listing, locate
from unibrivl.data.records import Listing, Sample

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")
NUM_ACTORS = 24


def load(root: str | os.PathLike) -> Listing:
    """RAVDESS as a `Listing`; the group of a clip is its actor (odd ones are men), its text what is said.

    The names of all clips follow from the numbers, so `missing` names those that are not there.
    """
    inside = ("Audio_Speech_Actors_01-24", "ravdess")
    folder = locate(root, "RAVDESS (speech)", ("Actor_*",), inside)
    files = Stems([folder])
    samples = [
        Sample(
            id=stem,
            audio=files.get("audio", stem),
            texts=(STATEMENTS[int(stem.split("-")[4]) - 1],),
            labels=(EMOTIONS[int(stem.split("-")[2]) - 1],),
            group=stem.split("-")[6],
        )
        for stem in stems()
    ]
    looked_for = "Actor_*/03-01-*.wav"
    return as_listing("RAVDESS", folder, samples, official=len(samples), looked_for=looked_for)


def stems() -> Iterator[str]:
    """The names of all clips; a neutral voice has one intensity only."""
    for actor in range(1, NUM_ACTORS + 1):
        for emotion in range(1, len(EMOTIONS) + 1):
            for intensity in (1,) if emotion == 1 else (1, 2):
                for statement in (1, 2):
                    for repetition in (1, 2):
                        yield f"03-01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}"
