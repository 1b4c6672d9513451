"""How labels are put into words: templates and spellings are data with a version, and stand beside every score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from unibrivl.evaluation.encoders import Vectors


@dataclass(frozen=True)
class Prompts:
    """
    Args:
        version (`str`): changes with anything below.
        templates: each with "{label}" in it; of several the mean direction counts.
        names: spellings of labels; others are written with spaces.
    """

    version: str
    templates: tuple[str, ...] = ("{label}",)
    names: tuple[tuple[str, str], ...] = ()

    def named(self, label: str) -> str:
        return dict(self.names).get(label, label.replace("_", " "))

    def texts(self, labels: Sequence[str]) -> list[list[str]]:
        """Of each template those of all labels."""
        return [[one.format(label=self.named(label)) for label in labels] for one in self.templates]


PROMPTS = {
    "label": Prompts("label-v1"),
    "sound": Prompts("sound-v1", ("This is a sound of {label}.",)),  # LAION-CLAP's
    "photo": Prompts("photo-v1", ("A photo of {label}.",)),
    "all": Prompts("all-v1", ("{label}", "This is a sound of {label}.", "A photo of {label}.")),
}


def label_vectors(vectors: Vectors, prompts: Prompts, labels: Sequence[str]) -> np.ndarray:
    """(L, E), of length one: the mean direction over the templates."""
    return label_vectors_of(lambda texts: vectors.of("text", texts), prompts, labels)


def label_vectors_of(
    read: Callable[[Sequence[str]], np.ndarray], prompts: Prompts, labels: Sequence[str]
) -> np.ndarray:
    """(L, E), the same, of any function that gives texts vectors of length one."""
    rows_TLE = np.stack([read(texts) for texts in prompts.texts(labels)])
    mean_LE = rows_TLE.mean(0)
    return mean_LE / np.maximum(np.linalg.norm(mean_LE, axis=1, keepdims=True), 1e-12)
