"""The records that lie beside a model: how it was trained, what it scored, what it was converted from.

Cards and `unibrivl info` take their numbers from these files and from nowhere else, so they are checked when they are
read. All three are optional, and JSON:

`training.json`, one object; every key may be absent:
    command, commit (`str`): what was run, of which state of the code.
    seed, steps, epochs (`int`), hours (`float`), machine (`str`).
    settings (`dict`): names and values that decided the run: learning_rate, batch_size, ...
    towers (`dict`): "audio", "image", "text", "language" -> what each tower started from: model (a name on the Hub, or
        words), revision, address, sha256, licence, state, and relation ("finetune", "adapter", "merge" or
        "quantized") if the model is a base model in the Hub's sense.
    data (`list`): data sets: name, id (on the Hub), address, licence, found and expected (numbers of clips).
    licences (`dict`): weights, data and code, where whoever trained the model decided them.

`results.json`, a list, or an object with the list under "results"; each row:
    task, dataset, metric (`str`), value (a number), command, commit (`str`): required, for a number that nobody can
        make again is none.
    dataset_id, split, unit (`str`), found, expected (`int`): optional.

`conversion.json`, as `unibrivl convert` writes it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

UNKNOWN = "unknown: ask the owner"
LICENCES = ("code", "weights", "data")
RELATIONS = ("adapter", "finetune", "merge", "quantized")
TOWERS = ("audio", "image", "text", "language", "video", "backbone", "model")

TRAINING: dict[str, tuple[type, ...]] = {
    "command": (str,), "commit": (str,), "machine": (str,), "seed": (int,), "steps": (int,), "epochs": (int,),
    "hours": (int, float), "settings": (dict,), "towers": (dict,), "data": (list,), "licences": (dict,),
}  # fmt: skip
ORIGIN = ("model", "revision", "address", "sha256", "licence", "state", "relation")
DATA: dict[str, tuple[type, ...]] = {
    "name": (str,), "id": (str,), "address": (str,), "licence": (str,), "found": (int,), "expected": (int,),
}  # fmt: skip
RESULT: dict[str, tuple[type, ...]] = {
    "task": (str,), "dataset": (str,), "metric": (str,), "value": (int, float), "command": (str,), "commit": (str,),
    "dataset_id": (str,), "split": (str,), "unit": (str,), "found": (int,), "expected": (int,),
}  # fmt: skip
REQUIRED = ("task", "dataset", "metric", "value", "command", "commit")


class RecordError(ValueError):
    """A file beside a model that is not what its name promises; says which field, and what belongs there."""


def read_json(path: Path, missing: Any = None, kinds: tuple[type, ...] = (dict,)) -> Any:
    """The object in a JSON file, or what else of `kinds`; `missing` if there is no file, where that is allowed."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(f"{path} is not JSON ({error}): write it anew, or copy it again") from error
    if not isinstance(found, kinds):
        raise RecordError(f"{path} holds a {type(found).__name__} where an object is expected: write it anew")
    return found


def read_training(folder: Path) -> dict[str, Any] | None:
    path = folder / "training.json"
    return check_training(read_json(path), str(path)) if path.is_file() else None


def read_results(folder: Path) -> list[dict[str, Any]]:
    path = folder / "results.json"
    return check_results(read_json(path, kinds=(dict, list)), str(path)) if path.is_file() else []


def read_conversion(folder: Path) -> dict[str, Any] | None:
    path = folder / "conversion.json"
    if not path.is_file():
        return None
    found = read_json(path)
    for key, kind in (("source", str), ("source_sha256", str), ("architecture", str), ("converted_keys", int)):
        if not isinstance(found.get(key), kind):
            raise RecordError(f"{path}: {key} is not a {kind.__name__}: convert the checkpoint again")
    return found


def check_training(found: Any, where: str) -> dict[str, Any]:
    """`found` itself, once it is known to be what `training.json` holds."""
    check_fields(found, TRAINING, where)
    for tower, origin in (found.get("towers") or {}).items():
        if tower not in TOWERS:
            raise RecordError(f"{where}: towers has {tower!r}: it takes {', '.join(TOWERS)}")
        check_fields(origin, dict.fromkeys(ORIGIN, (str,)), f"{where}: towers: {tower}")
        relation = origin.get("relation")
        if relation not in (None, *RELATIONS):
            raise RecordError(f"{where}: relation {relation!r} is unknown to the Hub: {', '.join(RELATIONS)}")
    for number, row in enumerate(found.get("data") or []):
        check_fields(row, DATA, f"{where}: data: {number}", ("name",))
    check_fields(found.get("licences") or {}, dict.fromkeys(LICENCES, (str,)), f"{where}: licences")
    return found


def check_results(found: Any, where: str) -> list[dict[str, Any]]:
    """The rows of `results.json`, once every one of them says how to get its number again."""
    rows = found.get("results") if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise RecordError(f"{where}: a list of results is expected, alone or under 'results'")
    for number, row in enumerate(rows):
        check_fields(row, RESULT, f"{where}: result {number}", REQUIRED)
        if not math.isfinite(row["value"]):
            raise RecordError(f"{where}: result {number}: value is {row['value']}: measure it again, or leave it out")
    return rows


def check_fields(found: Any, known: dict[str, tuple[type, ...]], where: str, required: tuple[str, ...] = ()) -> None:
    if not isinstance(found, dict):
        raise RecordError(f"{where}: an object is expected, and this is a {type(found).__name__}")
    for key in required:
        if key not in found:
            raise RecordError(f"{where}: {key} is missing: it needs {', '.join(required)}")
    for key, value in found.items():
        if key not in known:
            raise RecordError(f"{where}: {key!r} is no field of it: it takes {', '.join(known)}")
        if not isinstance(value, known[key]) or (isinstance(value, bool) and bool not in known[key]):
            kinds = " or ".join(kind.__name__ for kind in known[key])
            raise RecordError(f"{where}: {key} must be {kinds}, and it is {value!r:.60}")
