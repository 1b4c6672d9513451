"""What makes a probability of a cosine: fitted to sounds whose labels are known, and kept beside the model.

    calibration, pairs = calibrate(embedder, {"dog.wav": "dog", ...})
    calibration.save(folder, embedder.fingerprint)           # `load(folder)` takes it from there

Shapes: N sounds, L labels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unibrivl.metrics import fit_calibration

FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """What makes a probability of a cosine.

    Args:
        scale (`float`): multiplies cosines before the softmax; the model's own temperature where nothing was fitted.
        none_logit (`float`, *optional*): the logit of "none of these"; without it every sound is one of the labels.
    """

    scale: float
    none_logit: float | None = None

    @property
    def threshold(self) -> float | None:
        """The cosine below which "none of these" is rather the answer."""
        return None if self.none_logit is None else self.none_logit / self.scale

    def save(self, folder: str | os.PathLike, fingerprint: str) -> Path:
        """Beside a model, for vectors of that fingerprint alone."""
        path = Path(folder) / FILE
        told = {"scale": self.scale, "none_logit": self.none_logit, "fingerprint": fingerprint}
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: str | os.PathLike, fingerprint: str) -> Calibration | None:
        """What lies beside a model, or None; one of other vectors is an error that says how to mend it."""
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            found, of = cls(float(told["scale"]), told["none_logit"]), str(told["fingerprint"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no calibration: remove it, or fit it anew with `unibrivl calibrate`"
            ) from error
        if of != fingerprint:
            raise ValueError(
                f"{path} was fitted to vectors of {of[:12]}, and these are of {fingerprint[:12]}: fit it anew with "
                "`unibrivl calibrate`, or remove it"
            )
        return found


class Pairs(NamedTuple):
    """Cosines of sounds with their own label, (N,), and with all others, (N (L - 1),)."""

    matched: np.ndarray
    unmatched: np.ndarray
    error: float


def calibrate(embedder: Any, sounds: Mapping[str, str], template: str = "{label}") -> tuple[Calibration, Pairs]:
    """Fit scale and threshold of an embedder to sounds whose labels are known.

    Args:
        embedder: what `load` gives.
        sounds: path -> label. They should not be those it was trained on.
        template (`str`): how a label is put into words, as `classify` will.
    """
    labels = sorted(set(sounds.values()))
    if len(labels) < 2:
        raise ValueError(f"sounds of {len(labels)} labels: what does not belong together takes a second one")
    audio = embedder.encode_audio(list(sounds))
    texts = embedder.encode_text([template.replace("{label}", label) for label in labels])
    cosines_NL = embedder.similarity(audio, texts)
    own_NL = np.array([[label == sounds[name] for label in labels] for name in audio.ids])
    matched, unmatched = cosines_NL[own_NL], cosines_NL[~own_NL]
    fitted = fit_calibration(matched, unmatched)
    return Calibration(fitted.scale, fitted.none_logit), Pairs(matched, unmatched, fitted.error)
