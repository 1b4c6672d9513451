"""Reading other people's checkpoint files: weights only, nothing in them is executed.

fairseq checkpoints hold pickled `Dictionary` objects. They are read into an inert stand-in that only keeps the
symbols; any other class in the file is refused by name.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch


class ConversionError(ValueError):
    """A checkpoint that cannot be converted, with the reason and what to do about it."""


class FairseqDictionary:
    """Inert stand-in for fairseq's Dictionary: after loading it has `symbols`, the tokens in id order."""

    symbols: list[str]


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a torch checkpoint file, as plain containers and tensors on the CPU."""
    path = Path(path)
    if path.stat().st_size == 0:
        raise ConversionError(f"{path} is empty: the download was probably cut off")
    allowed = [(FairseqDictionary, "fairseq.data.dictionary.Dictionary")]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConversionError(
            f"{path} was refused: it holds something other than tensors, numbers and text, which could run code when "
            f"loaded. {_first_line(error)}"
        ) from error
    except OSError:
        raise
    except Exception as error:  # torch's reader fails in many ways on broken files
        raise ConversionError(f"{path} is not a readable torch checkpoint: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise ConversionError(f"{path} holds a {type(content).__name__}, not the dictionary of a checkpoint")
    return content


def sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_dictionaries(content: Any) -> list[list[str]]:
    """The symbols of every fairseq dictionary anywhere in a checkpoint."""
    if isinstance(content, FairseqDictionary):
        symbols = getattr(content, "symbols", None)
        well_formed = isinstance(symbols, list) and all(isinstance(symbol, str) for symbol in symbols)
        return [symbols] if symbols and well_formed else []
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        return [symbols for item in content for symbols in find_dictionaries(item)]
    return []


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    for line in text.splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.strip()
    return text.splitlines()[0] if text else type(error).__name__
