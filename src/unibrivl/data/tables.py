"""Tables of a dataset as dictionaries, column by column checked: CSV, TSV, JSON lines and parquet.

A table without the column that was asked for is refused with the columns it has and the nearest of them.
"""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from unibrivl.data.records import DatasetError
from unibrivl.utils import require

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
NEAR = 0.85  # of difflib: "labels" and "adio" are near "label" and "audio", "folder" is not near "fold"


class _Tabs(csv.excel_tab):
    quoting = csv.QUOTE_NONE


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that `name` is most likely a slip of, or None."""
    plain = {choice.lower().strip(): choice for choice in choices}
    lowered = name.lower().strip()
    for choice in plain:
        if sorted(choice) == sorted(lowered):  # letters swapped, or only the case
            return plain[choice]
    near = difflib.get_close_matches(lowered, plain, 1, NEAR)
    return plain[near[0]] if near else None


def read_csv(path: str, required: Sequence[str] = (), encoding: str = "utf-8-sig") -> Iterator[dict[str, str]]:
    """Rows of a CSV with a header; tabs part the columns of a .tsv, and nothing is quoted there."""
    tabs = path.lower().endswith(".tsv")
    with open(path, newline="", encoding=encoding) as file:
        reader = csv.DictReader(file, dialect=_Tabs if tabs else csv.excel, strict=not tabs)
        try:
            check_columns(path, reader.fieldnames or (), required)
            for row in reader:
                if None in row:
                    raise DatasetError(
                        f"{path}, line {reader.line_num}: {len(row[None])} more values than the header has columns. "
                        "Quote values that hold the separator"
                    )
                # what is cut off at a line's end is empty, as in a line that ends in separators
                yield {name: value or "" for name, value in row.items()}
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path} is not {encoding}: {error.reason}. Save it as UTF-8") from error
        except csv.Error as error:
            raise DatasetError(
                f"{path}, line {reader.line_num}: {error}. Save it as plain CSV with a header"
            ) from error


def read_rows(path: str, required: Sequence[str] = ()) -> Iterator[Mapping[str, Any]]:
    """Rows of a CSV, TSV, JSON-lines or parquet file, by its suffix."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in (".csv", ".tsv"):
        yield from read_csv(path, required)
    elif suffix == ".jsonl":
        yield from read_jsonl(path, required)
    elif suffix == ".parquet":
        yield from _read_parquet(path, required)
    else:
        raise DatasetError(f"{path} is no table: a table ends in {', '.join(SUFFIXES)}")


def columns_of(path: str) -> list[str]:
    """The header of a table; the keys of all rows of JSON lines."""
    if path.lower().endswith(".parquet"):
        with _parquet(path) as file:
            return list(file.schema_arrow.names)
    if path.lower().endswith((".csv", ".tsv")):
        with open(path, newline="", encoding="utf-8-sig") as file:
            try:
                return next(csv.reader(file, dialect=_Tabs if path.lower().endswith(".tsv") else csv.excel), [])
            except UnicodeDecodeError as error:
                raise DatasetError(f"{path} is not UTF-8: {error.reason}. Save it as UTF-8") from error
    names: dict[str, None] = {}
    for row in read_rows(path):
        names.update(dict.fromkeys(row))
    return list(names)


def read_jsonl(path: str, required: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DatasetError(f"{path}, line {number}: {error}. Each line must be one JSON object") from error
            if not isinstance(row, dict):
                raise DatasetError(f"{path}, line {number} is no JSON object. Each line must be one")
            check_columns(f"{path}, line {number},", row, required)
            yield row


def read_json(path: str, key: str) -> Any:
    """What a JSON file holds under a key."""
    with open(path, encoding="utf-8-sig") as file:
        try:
            held = json.load(file)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}: {error}. Is it whole?") from error
    if not isinstance(held, dict) or key not in held:
        has = f"it has {', '.join(list(held)[:6])}" if isinstance(held, dict) else "it is a list"
        raise DatasetError(f"{path} has no {key!r} at its top: {has}. Is it the dataset's own file?")
    return held[key]


def _parquet(path: str) -> Any:
    arrow = require("pyarrow", "parquet", f"reading {os.path.basename(path)}")
    pq = require("pyarrow.parquet", "parquet", f"reading {os.path.basename(path)}")
    try:
        return pq.ParquetFile(path)
    except arrow.ArrowInvalid as error:
        raise DatasetError(f"{path} is not a parquet file, or not a whole one: {error}. Write it again") from error


def _read_parquet(path: str, required: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    with _parquet(path) as file:
        check_columns(path, file.schema_arrow.names, required)
        for batch in file.iter_batches():
            yield from batch.to_pylist()


def check_columns(where: str, columns: Iterable[str], required: Iterable[str]) -> None:
    columns = list(columns)
    for name in required:
        if name not in columns:
            near = nearest(name, columns)
            raise DatasetError(
                f"{where} has no column {name!r}: it has {', '.join(map(str, columns)) or 'none'}"
                + (f". Rename {near!r} to {name!r}" if near else ". Is it the dataset's own file?")
            )


def is_empty(value: Any) -> bool:
    """None, an empty cell, or the NaN that stands for one in a column of floats."""
    return value is None or value == "" or (isinstance(value, float) and value != value)


def number(where: str, column: str, value: Any, kind: type = float) -> Any:
    """A cell as a number; an error names the cell. 3.0 is an integer too: columns with gaps are often floats."""
    try:
        given = float(value)
        if kind(given) != given:
            raise ValueError
        return kind(given)
    except (TypeError, ValueError, OverflowError):
        raise DatasetError(f"{where}: {column} is {value!r} and must be a number") from None
