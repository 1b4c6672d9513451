"""Three verbs that embed anything: `load(model)` gives an embedder with encode_audio, encode_image and encode_text."""

from unibrivl.embedder.embedder import NONE_OF_THESE, Calibration, Embedder
from unibrivl.embedder.embeddings import Embeddings, Failure, FingerprintMismatch
from unibrivl.embedder.loading import load

__all__ = ["NONE_OF_THESE", "Calibration", "Embedder", "Embeddings", "Failure", "FingerprintMismatch", "load"]
