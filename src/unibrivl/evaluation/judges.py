"""Judges of pictures: what a picture shows by a model that drew none of them, and its features for FID and KID.

A judge is an object with `name`, `fingerprint`, `look(images)`, which gives what it `Seen`, and `names(seen, labels)`,
a score for each label. Two are here: a classifier with labels of its own, and any encoder of pictures and texts, such
as CLIP. FID and the Inception score stand on the features of some network: which judge's is said beside them, and
numbers of two judges have nothing to do with each other.

Shapes: N pictures, L labels, C labels that a classifier knows, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unibrivl.evaluation.encoders import as_rows
from unibrivl.evaluation.prompts import Prompts, label_vectors_of
from unibrivl.metrics import fid_from_features, inception_score, kid

AT_ONCE = 64  # pictures of one forward pass
PHOTO = Prompts("photo-v1", ("a photo of {label}",))
FEWEST = 2  # pictures that have a covariance


@dataclass(frozen=True)
class Seen:
    """Pictures as a judge sees them, each looked at once.

    Args:
        features_ND: that distances are measured on.
        logits_NC (*optional*): of a classifier.
    """

    features_ND: np.ndarray
    logits_NC: np.ndarray | None = None


class ClassJudge:
    """A classifier of pictures in transformers' classes.

    Args:
        folder: of the model and its image processor.
    """

    def __init__(self, folder: str | Path):
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        from unibrivl.hub.fingerprint import fingerprint

        self.model = AutoModelForImageClassification.from_pretrained(folder).eval()
        self.processor = AutoImageProcessor.from_pretrained(folder)
        self.name = f"{type(self.model).__name__} ({Path(folder).name if Path(folder).exists() else folder})"
        self.fingerprint = fingerprint(self.model, {}, {})
        told = self.model.config.id2label
        self.labels = [plain(told[number]) for number in range(self.model.config.num_labels)]

    def names(self, seen: Seen, labels: Sequence[str]) -> np.ndarray:
        """(N, L) logits; a label that it was not taught is an error."""
        unknown = [one for one in labels if plain(one) not in self.labels]
        if unknown:
            raise ValueError(f"{self.name} does not know {', '.join(unknown)}: it knows {', '.join(self.labels)}")
        return np.asarray(seen.logits_NC)[:, [self.labels.index(plain(one)) for one in labels]]

    def look(self, images: Sequence[Any]) -> Seen:
        """Its features are what its last layer reads."""
        import torch

        layers = [one for one in self.model.modules() if isinstance(one, torch.nn.Linear)]
        read: list[Any] = []
        hook = layers[-1].register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].flatten(1)))
        logits = []
        try:
            for start in range(0, len(images), AT_ONCE):
                some = [one.convert("RGB") for one in images[start : start + AT_ONCE]]
                with torch.no_grad():
                    logits.append(self.model(**self.processor(images=some, return_tensors="pt")).logits)
        finally:
            hook.remove()
        return Seen(torch.cat(read).float().numpy(), torch.cat(logits).float().numpy())


class TextJudge:
    """An encoder of pictures and texts, such as `unibrivl.load("openai/clip-vit-base-patch32")`.

    Args:
        encoder: with `encode_image` and `encode_text`.
        prompts (*optional*): how labels are read; CLIP's "a photo of" by default.
        scale (`float`, *optional*): of cosines to logits, for the Inception score; the encoder's, or CLIP's 100.
    """

    def __init__(self, encoder: Any, prompts: Prompts = PHOTO, scale: float | None = None):
        self.encoder, self.prompts = encoder, prompts
        self.name = str(getattr(encoder, "name", "") or type(encoder).__name__)
        self.fingerprint = str(getattr(encoder, "fingerprint", "") or "")
        calibration = getattr(encoder, "calibration", None)
        self.scale = scale or float(getattr(calibration, "scale", 100.0))

    def names(self, seen: Seen, labels: Sequence[str]) -> np.ndarray:
        """(N, L)."""

        def read(texts: Sequence[str]) -> np.ndarray:
            return units(as_rows(self.encoder.encode_text(texts), len(texts), self.name))

        return self.scale * seen.features_ND @ label_vectors_of(read, self.prompts, labels).T

    def look(self, images: Sequence[Any]) -> Seen:
        """Its features are vectors of length one."""
        return Seen(units(as_rows(self.encoder.encode_image(list(images)), len(images), self.name)))


def hits_of(judge: Any, seen: Seen, right: Sequence[str], labels: Sequence[str]) -> int:
    """How many pictures the judge gives the label that they should show, of these."""
    right_N = np.array([list(labels).index(one) for one in right])
    return int((judge.names(seen, labels).argmax(1) == right_N).sum())


def distances(judge: Any, seen: Seen, labels: Sequence[str], real: Seen | None) -> dict[str, float]:
    """The Inception score, and FID and KID where there are two pictures and two real ones at least."""
    found = {"IS": float(inception_score(judge.names(seen, labels), 1).mean)}
    if real is not None and min(len(real.features_ND), len(seen.features_ND)) >= FEWEST:
        found["FID"] = float(fid_from_features(real.features_ND, seen.features_ND))
        found["KID"] = float(kid(real.features_ND, seen.features_ND).mean)
    return found


def units(rows_NE: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    return rows_NE / np.maximum(np.linalg.norm(rows_NE, axis=-1, keepdims=True), 1e-12)


def plain(label: str) -> str:
    return label.strip().lower().replace("_", " ")
