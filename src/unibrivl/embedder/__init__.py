"""Three verbs that embed anything: `load(model)` gives an embedder with encode_audio, encode_image and encode_text."""

from unibrivl.embedder.bulk import BulkReport, embed_files
from unibrivl.embedder.calibration import Calibration, calibrate
from unibrivl.embedder.embedder import NONE_OF_THESE, Embedder
from unibrivl.embedder.embeddings import Embeddings, Failure, FingerprintMismatch
from unibrivl.embedder.evidence import Evidence, explain
from unibrivl.embedder.explained import Explained
from unibrivl.embedder.loading import load
from unibrivl.embedder.transcribe import TranscribeReport, transcribe_files
from unibrivl.embedder.vector_file import read_vectors

__all__ = [
    "NONE_OF_THESE",
    "BulkReport",
    "Calibration",
    "Embedder",
    "Embeddings",
    "Evidence",
    "Explained",
    "Failure",
    "FingerprintMismatch",
    "TranscribeReport",
    "calibrate",
    "embed_files",
    "explain",
    "load",
    "read_vectors",
    "transcribe_files",
]
