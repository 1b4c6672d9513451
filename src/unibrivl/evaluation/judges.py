"""Judges of pictures: what a picture shows by a model that drew none of them, and its features for FID and KID.

A judge is an object with `name`, `fingerprint`, `names(images, labels)`, which gives a score for each label, and
`features(images)`. Two are here: a classifier with labels of its own, and any encoder of pictures and texts, such as
CLIP. FID and the Inception score stand on the features of some network: which judge's is said beside them, and numbers
of two judges have nothing to do with each other.

Shapes: N pictures, L labels, D features, E numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unibrivl.evaluation.encoders import as_rows
from unibrivl.evaluation.prompts import Prompts, label_vectors_of
from unibrivl.metrics import fid_from_features, inception_score, kid

AT_ONCE = 64  # pictures of one forward pass
PHOTO = Prompts("photo-v1", ("a photo of {label}",))
FEWEST = 2  # pictures that have a covariance


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

    def names(self, images: Sequence[Any], labels: Sequence[str]) -> np.ndarray:
        """(N, L) logits; a label that it was not taught is an error."""
        unknown = [one for one in labels if plain(one) not in self.labels]
        if unknown:
            raise ValueError(f"{self.name} does not know {', '.join(unknown)}: it knows {', '.join(self.labels)}")
        logits_NC, _ = self.seen(images)
        return logits_NC[:, [self.labels.index(plain(one)) for one in labels]]

    def features(self, images: Sequence[Any]) -> np.ndarray:
        return self.seen(images)[1]

    def seen(self, images: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """(N, C) logits, and (N, D) what its last layer reads."""
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
        return torch.cat(logits).float().numpy(), torch.cat(read).float().numpy()


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

    def names(self, images: Sequence[Any], labels: Sequence[str]) -> np.ndarray:
        """(N, L)."""

        def read(texts: Sequence[str]) -> np.ndarray:
            return units(as_rows(self.encoder.encode_text(texts), len(texts), self.name))

        return self.scale * self.features(images) @ label_vectors_of(read, self.prompts, labels).T

    def features(self, images: Sequence[Any]) -> np.ndarray:
        """(N, E), of length one."""
        return units(as_rows(self.encoder.encode_image(list(images)), len(images), self.name))


def judged(
    judge: Any, images: Sequence[Any], right: Sequence[str], labels: Sequence[str], real: Sequence[Any] = ()
) -> dict[str, Any]:
    """What a judge says of pictures that should show `right`: how many do (`hits`), how far they are from real ones.

    Args:
        labels: that the judge chooses from.
        real (*optional*): pictures of the same labels; without two of them there is no distance.
    """
    logits_NL = judge.names(images, labels)
    right_N = np.array([list(labels).index(one) for one in right])
    hits = int((logits_NL.argmax(1) == right_N).sum())
    spread = inception_score(logits_NL, 1)
    found: dict[str, Any] = {
        "hits": hits,
        "IS": float(spread.mean),
    }
    if len(real) >= FEWEST and len(images) >= FEWEST:
        drawn_ND, real_MD = judge.features(images), judge.features(real)
        found |= {"FID": float(fid_from_features(real_MD, drawn_ND)), "KID": float(kid(real_MD, drawn_ND).mean)}
    return found


def units(rows_NE: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    return rows_NE / np.maximum(np.linalg.norm(rows_NE, axis=-1, keepdims=True), 1e-12)


def plain(label: str) -> str:
    return label.strip().lower().replace("_", " ")
