"""Embedders that workers of Ray load by name: `unibrivl.load`, and ones during which a worker dies."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from unibrivl.embedder import Embedder, load

LOUD = 0.9  # of a sample: only the sound that kills is as loud


def plain(folder: str) -> Embedder:
    return load(folder, window_s=0.4, batch_size=4)


def waits_to_be_killed(folder: str, note: str) -> Embedder:
    """The first to come to its third batch writes its number into `note` and waits; all others embed."""
    embedder = plain(folder)
    encode, calls = embedder.matcher.encode_audio, []

    def slowly(clips):
        calls.append(1)
        if len(calls) == 3:
            try:
                with open(note, "x") as file:
                    file.write(str(os.getpid()))
                    file.flush()
                    time.sleep(300)
            except FileExistsError:
                calls.append(1)  # another is waiting already
        return encode(clips)

    embedder.matcher.encode_audio = slowly
    return embedder


def dies_of_a_loud_sound(folder: str, note: str) -> Embedder:
    """As for want of memory; each death is a line in `note`."""
    embedder = plain(folder)
    encode = embedder.matcher.encode_audio

    def dying(clips):
        if any(np.abs(np.asarray(clip)).max() > LOUD for clip in clips):
            with Path(note).open("a") as file:
                file.write("died\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(clips)

    embedder.matcher.encode_audio = dying
    return embedder
