"""What each channel of a model made of a sound: the transcript, and scores channel by channel beside the whole's.

Shapes: N sounds, M things that they are compared with, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from unibrivl.audio import Waveform, load_audio
from unibrivl.embedder.embeddings import Embeddings


@dataclass(frozen=True)
class Explained:
    """One sound, compared with several things.

    Args:
        sound (`str`): its name.
        transcript (`str`, *optional*): what was said, as it was written down; None where no channel reads.
        ids (`tuple[str, ...]`): the things, best first.
        scores (`tuple[float, ...]`): cosines of the whole with each.
        channels (`dict`): channel -> its own cosines with each, such as "text" and "e2e".
    """

    sound: str
    transcript: str | None
    ids: tuple[str, ...]
    scores: tuple[float, ...]
    channels: dict[str, tuple[float, ...]]


def explain(
    matcher: Any,
    sources: Sequence[Any],
    names: Sequence[str],
    things: Embeddings,
    *,
    batch_size: int = 16,
    progress: bool | None = None,
    transcripts: Sequence[str] | None = None,
    **load_options,
) -> list[Explained]:
    """
    Args:
        matcher: a model of several channels: one with `hear`, as BrewCLIP has it.
        sources, names: sounds, whatever `load_audio` takes, and what they are called.
        things: pictures or texts, embedded by the same model.
        transcripts (*optional*): what is said in each sound, where that is known; else it is written down.
        load_options: for `load_audio`.
    """
    if not hasattr(matcher, "hear"):
        raise ValueError(
            f"{matcher.name} hears with one channel, so there is nothing to tell apart: leave explain=True out, or "
            "load a BrewCLIP"
        )
    if transcripts is not None and len(transcripts) != len(sources):
        raise ValueError(f"{len(sources)} sounds and {len(transcripts)} transcripts: pass one for each")
    things_ME = torch.from_numpy(things.vectors)
    found: list[Explained] = []
    hidden = None if progress is None and len(sources) > batch_size else not progress
    with tqdm(total=len(sources), unit=" sounds", disable=hidden) as bar:
        for start in range(0, len(sources), batch_size):
            some = sources[start : start + batch_size]
            clips = [
                one.samples
                if isinstance(one, Waveform) and one.rate_hz == matcher.sampling_rate
                else load_audio(one, rate_hz=matcher.sampling_rate, **load_options).samples
                for one in some
            ]
            with torch.inference_mode():
                known = None if transcripts is None else transcripts[start : start + batch_size]
                heard = matcher.hear(clips, known)
            whole_NM = (heard.fused.cpu() @ things_ME.T).numpy()
            channels = {name: (one.cpu() @ things_ME.T).numpy() for name, one in heard.channels.items()}
            for row in range(len(some)):
                order = np.argsort(-whole_NM[row], kind="stable")
                found.append(
                    Explained(
                        sound=names[start + row],
                        transcript=None if heard.transcripts is None else heard.transcripts[row],
                        ids=tuple(things.ids[column] for column in order),
                        scores=tuple(float(whole_NM[row, column]) for column in order),
                        channels={
                            name: tuple(float(one[row, column]) for column in order) for name, one in channels.items()
                        },
                    )
                )
                bar.update()
    return found
