"""Spoken captions with their transcripts and pictures: what the loop asks by `Draw`, and how they become a batch.

Transcripts are there before training begins; nothing here writes down what is said. The states of a frozen audio
encoder may be kept as well, the mean of every few frames as one, and then neither sounds nor encoder are needed.

Shapes: T frames, W numbers of a frame.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from unibrivl.audio import load_part
from unibrivl.data import DatasetError, Listing, Sample
from unibrivl.data.transcripts import Transcript
from unibrivl.hub.fingerprint import fingerprint
from unibrivl.training.pairs import Collate, Pairs
from unibrivl.training.parts import Batch
from unibrivl.training.sampler import Draw
from unibrivl.training.target_cache import FORMAT, Excerpt, Tower, usual_device
from unibrivl.training.target_sounds import KINDS

MOST_NAMED = 5  # sounds without a transcript, in one message


class SpokenPairs(Pairs):
    """Pairs whose sounds come with what is said in them: `text`, "" where nothing is.

    Args:
        texts: sample id -> transcript.
        Others: see `Pairs`; `frames` are those of `states_tower`.
    """

    def __init__(self, listing: Listing, texts: Mapping[str, str], *args: Any, **kwargs: Any):
        super().__init__(listing, *args, **kwargs)
        self.texts = texts

    def heard(self, one: Sample, draw: Draw) -> dict[str, Any]:
        return {**super().heard(one, draw), "text": self.texts[one.id]}


class SpokenCollate(Collate):
    """As `Collate`, with transcripts as `input_ids` and kept states as `audio_states`.

    Args:
        processor: a `BrewCLIPProcessor`.
    """

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        batch = super().__call__(examples)
        if "audio_frames" in batch:
            batch["audio_states"] = batch.pop("audio_frames")
        batch["input_ids"] = self.processor(text=[one["text"] for one in examples])["input_ids"]
        return batch


def said_in(listing: Listing, folder: str, transcripts: Mapping[str, Transcript] | None) -> dict[str, str]:
    """Sample id -> what is said in its sound; of a sample without a transcript an error that says how to make them.

    Args:
        folder: what the names in `transcripts` are relative to.
        transcripts: see `unibrivl.data.transcripts`; None takes the texts of the samples, their captions.
    """
    if transcripts is None:
        without = [one.id for one in listing if one.audio and not one.texts]
        if without:
            raise DatasetError(f"{named(without)} have no text of their own: set data.transcripts=written")
        return {one.id: one.texts[0] for one in listing if one.audio}
    found = {
        one.id: transcripts[key].text
        for one in listing
        if one.audio and (key := key_of(one.audio, folder)) in transcripts
    }
    without = [one.id for one in listing if one.audio and one.id not in found]
    if without:
        raise DatasetError(
            f"{named(without)} have no transcript: `unibrivl transcribe {folder} --model ...` goes on where it was"
        )
    return found


def key_of(path: str, folder: str) -> str:
    return os.path.relpath(path, folder).replace(os.sep, "/")


def named(ids: list[str]) -> str:
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return f"the sounds of {', '.join(ids[:MOST_NAMED])}{more}"


def states_tower(
    model: Any,
    processor: Any,
    kept_in: Literal["float32", "float16"] = "float16",
    device: torch.device | str | None = None,
) -> Tower:
    """The frozen audio encoder of a `BrewCLIPModel`, as it is now: Excerpt -> (T, W), of real frames only.

    Args:
        model: its `frame_pool` says how many frames are kept as one: of Whisper base 51 kB a second, or 13 kB with 4.
        kept_in: "float16" halves what is kept, and moves it by up to 1 / 2048 of itself.
    """
    rate_hz = processor.feature_extractor.sampling_rate
    width = int(model.config.audio_width) * (1 if model.layer_mix is None else len(model.layer_mix.logits))
    place = torch.device(device) if device is not None else usual_device()
    settings = {"kind": "states", "format": FORMAT, "width": width, "pool": model.config.frame_pool,
                "numbers": kept_in, "rate": rate_hz}  # fmt: skip

    def read(excerpt: Excerpt) -> np.ndarray:
        return load_part(excerpt.path, excerpt.first / rate_hz, excerpt.stop / rate_hz, rate_hz=rate_hz).samples

    @torch.no_grad()
    def embed(sounds: list[np.ndarray], seeds: list[int] | None) -> list[np.ndarray]:
        model.audio_model.eval().to(place)
        return [states_of(model, processor, samples_S, place) for samples_S in sounds]

    parts = {"feature_extractor": processor.feature_extractor}
    return Tower(fingerprint(model.audio_model, parts, settings), width, read, embed, kind=KINDS[kept_in])


def states_of(model: Any, processor: Any, samples_S: np.ndarray, place: torch.device) -> np.ndarray:
    """(T, W): the real frames of one sound; of a long one those of all its windows."""
    rate_hz = processor.feature_extractor.sampling_rate
    batch = processor(audio=[samples_S], sampling_rate=rate_hz, return_tensors="pt")
    batch.pop("audio_rows", None)
    states_NTW, mask_NT = model.audio_states(**{name: value.to(place) for name, value in batch.items()})
    if mask_NT is not None:
        states_TW = states_NTW[mask_NT.bool()]
        return (states_TW if len(states_TW) else states_NTW[0, :1]).float().cpu().numpy()
    return states_NTW.flatten(0, 1).float().cpu().numpy()


__all__ = ["SpokenCollate", "SpokenPairs", "key_of", "said_in", "states_tower"]
