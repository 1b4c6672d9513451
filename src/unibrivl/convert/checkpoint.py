"""Other people's checkpoint files, from reading to writing: nothing in them is executed, all of it is accounted for.

fairseq checkpoints hold pickled `Dictionary` objects. They are read into an inert stand-in that only keeps the
symbols; any other class in the file is refused by name. What a conversion writes appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.initialization import no_init_weights

from unibrivl.convert.parity import Difference

# what conversions write, and remove of an earlier one in the same folder
WRITTEN = (
    "model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors", "config.json",
    "preprocessor_config.json", "conversion.json", "vocab.json", "lexicon.txt", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class ConversionError(ValueError):
    """A checkpoint that cannot be converted, with the reason and what to do about it."""


@dataclass
class ConversionReport:
    """What was read, what became of every key, and how far the result is from the original where that is known."""

    source: str
    source_sha256: str
    architecture: str
    converted_keys: int = 0
    dropped_keys: dict[str, str] = field(default_factory=dict)
    tokenizer: str = ""
    differences: list[Difference] = field(default_factory=list)

    def as_dict(self) -> dict:
        return {**self.__dict__, "differences": [row.as_dict() for row in self.differences]}

    def save(self, folder: Path) -> None:
        (folder / "conversion.json").write_text(json.dumps(self.as_dict(), indent=2) + "\n")


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


def count_matches(keys: Iterable[str], pattern: str) -> int:
    """How many different things the first group of `pattern` finds at the start of the keys: layers, say."""
    return len({match.group(1) for key in keys if (match := re.match(pattern, key))})


def listing(keys: list[str], most: int = 12) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return (", ".join(keys[:most]) or "nothing") + more


def check_tensors(state: Mapping[str, Any], origin: str, integers: tuple[str, ...] = ()) -> None:
    """Plain tensors of real, finite numbers, each as large as its storage says.

    Args:
        origin: what to call `state` in an error.
        integers (*optional*): endings of the keys that may hold whole numbers, such as counters.
    """
    wrong = [
        str(key)
        for key, value in state.items()
        if not isinstance(value, torch.Tensor)
        or value.layout != torch.strided
        or value.device.type != "cpu"
        or value.dtype not in ((torch.int64, torch.int32) if str(key).endswith(integers) else FLOATS)
        or value.untyped_storage().nbytes() < value.numel() * value.element_size()
    ]
    if wrong:
        raise ConversionError(f"{origin}: these entries are not tensors of numbers: {listing(wrong)}")
    broken = [key for key, value in state.items() if not value.isfinite().all()]
    if broken:
        raise ConversionError(f"{origin}: NaN or infinite weights in {listing(broken)}")


def load_into(architecture, config, converted: dict[str, torch.Tensor]):
    """A model of the class `architecture` that holds exactly the tensors of `converted`, ready to run."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in architecture(config).state_dict().items()}
    missing, leftover = sorted(expected.keys() - converted.keys()), sorted(converted.keys() - expected.keys())
    if missing or leftover:
        raise ConversionError(
            f"the file does not fit {architecture.__name__}: missing {listing(missing)}; left over {listing(leftover)}"
        )
    wrong = [name for name, tensor in converted.items() if tensor.shape != expected[name]]
    if wrong:
        raise ConversionError(f"these tensors have another shape than the model: {listing(wrong)}")
    with no_init_weights():  # real this time: buffers that are in no file need their values
        model = architecture(config)
    model.load_state_dict(converted, assign=True)
    return model.eval()


def read_reference(path: str | Path) -> dict[str, torch.Tensor]:
    """Inputs and outputs of the original code, saved as safetensors."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ConversionError(f"{path} is not a safetensors file: {error}") from error


@contextlib.contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A folder to write to. If the block ends well its files move to `out` and those of an earlier conversion go;
    if it fails nothing of it stays."""
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=out) as name:
            yield Path(name)
            for pattern in WRITTEN:
                for old in out.glob(pattern):
                    old.unlink()
            for path in Path(name).iterdir():
                path.replace(out / path.name)
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    for line in text.splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.strip()
    return text.splitlines()[0] if text else type(error).__name__
