"""What the model hears: one or two sounds as one query, and how near each label it knows is to it.

Shapes: E numbers of an embedding, L labels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unibrivl.audio import Waveform
from unibrivl.pipelines.prompts_unibrivl import embeds_of, read_bank

LABELS_FILE = "labels.json"  # beside model_index.json: all that a pipeline was taught, also what it cannot draw


@dataclass(frozen=True)
class Heard:
    """
    Args:
        embeds_1E (`torch.Tensor`): of length one.
        labels (`list[tuple[str, float]]`): with their probabilities, which sum to one, the likeliest first.
    """

    embeds_1E: torch.Tensor
    labels: list[tuple[str, float]]


class Ear:
    """
    Args:
        pipe: a pipeline with a matcher.
        labels: what may be heard; without any, what `known_labels` finds.
    """

    def __init__(self, pipe: Any, labels: Sequence[str] | None = None) -> None:
        self.pipe = pipe
        self.labels = list(dict.fromkeys(labels if labels is not None else known_labels(pipe)))

    @property
    def rate_hz(self) -> int | None:
        return self.pipe.listener.sampling_rate

    def listen(
        self, first: Waveform, second: Waveform | None = None, *, gain_db: float = 0.0, share: float = 0.5
    ) -> Heard:
        """
        Args:
            second (*optional*): mixed with the first.
            gain_db (`float`): by which the first is turned up before it is heard.
            share (`float`): of the second in the mix, 0 to 1.
        """
        query = self.pipe.encode_query(first, volume=[gain_db] if gain_db else None)
        if second is not None:
            both = torch.cat([query.embeds, self.pipe.encode_query(second).embeds])
            query = self.pipe.encode_query(None, both, mix=[1 - share, share])
        return Heard(query.embeds, self.name(query.embeds))

    def name(self, embeds_1E: torch.Tensor) -> list[tuple[str, float]]:
        """The labels by their probabilities, at the temperature the matcher was trained with."""
        listener = self.pipe.listener
        if not self.labels or "text" not in listener.kinds:
            return []
        embeds_LE = embeds_of(listener, self.labels)
        cosines_L = (embeds_1E.float().cpu() @ embeds_LE.float().cpu().T)[0]
        chances_L = (cosines_L.double() * listener.logit_scale).softmax(-1)
        order_L = chances_L.argsort(descending=True, stable=True).tolist()
        return [(self.labels[place], float(chances_L[place])) for place in order_L]


def known_labels(pipe: Any, folder: str | os.PathLike | None = None) -> list[str]:
    """The labels of all banks of a pipeline, and of what its folder says it was taught to hear; or the project's."""
    banks = pipe.label_banks
    labels = [label for bank in banks.values() for label in bank]
    if folder is not None and (path := Path(folder) / LABELS_FILE).is_file():
        taught = json.loads(path.read_text(encoding="utf-8"))
        labels += [one["noun"] for one in taught.values() if one.get("sound")]
    return list(dict.fromkeys(labels)) or list(read_bank(None))


__all__ = ["Ear", "Heard", "known_labels"]
