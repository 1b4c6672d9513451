"""Prompts for a sound without one: the labels of a bank whose text embeddings are nearest to it.

Candidates are shared among a few labels as the matcher is sure of each: of a sound that it knows well nearly all are
drawn for one label, and where it hesitates several readings compete.

Shapes: Q sounds, L labels, E numbers of an embedding.
"""

import csv
import hashlib
import itertools
import json
import math
import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .fingerprint_unibrivl import mark_of
from .label_bank_unibrivl import LABELS
from .shares_unibrivl import shares

TEMPLATE = "a photo of {}"
COLUMNS = ("label", "display_name")
FILES = (".txt", ".csv", ".tsv", ".json")
TEXTS_AT_ONCE = 64
BANKS_KEPT = 4  # of each matcher, in memory

_read: "weakref.WeakKeyDictionary[Any, dict[str, torch.Tensor]]" = weakref.WeakKeyDictionary()


def nearest_prompts(
    matcher: Any, queries_QE: torch.Tensor, count: int, readings: int, bank: Any = None, template: str = TEMPLATE
) -> list[list[str]]:
    """For each sound the prompts of `count` candidates, those of the nearest label first.

    Lists are as short as they can be: a prompt that stands in them once is for `count` over their length candidates.

    Args:
        matcher: what reads the labels.
        queries_QE (`torch.Tensor`): of length one.
        readings (`int`): so many labels of a sound share its candidates at most, see `shares`.
        bank (*optional*): labels, with prompts or without, or a file of them, see `read_bank`; the project's own by
            default. A list of lists holds finished prompts, one list for each sound, and nothing is searched.
        template (`str`): the prompt of a label that has none of its own.
    """
    if is_finished(bank):
        return folded(finished_prompts(bank, len(queries_QE), count))
    prompts_of = read_bank(bank, template)
    prompts = list(prompts_of.values())
    embeds_LE = embeds_of(matcher, list(prompts_of))
    cosines_QL = queries_QE.float() @ embeds_LE.to(queries_QE.device, torch.float32).T
    nearest = cosines_QL.sort(dim=-1, descending=True, stable=True)
    found = []
    for order, cosines in zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True):
        seats = shares([matcher.logit_scale * cosine for cosine in cosines[:readings]], count)
        found.append([prompts[label] for label, share in zip(order, seats, strict=False) for _ in range(share)])
    return folded(found)


def folded(prompts: list[list[str]]) -> list[list[str]]:
    """Without the repetitions that all runs of equal prompts have in common."""
    runs = [len(list(run)) for one in prompts for _, run in itertools.groupby(one)]
    return [one[:: math.gcd(*runs)] for one in prompts]


def is_finished(bank: Any) -> bool:
    return isinstance(bank, (list, tuple)) and bool(bank) and all(isinstance(one, (list, tuple)) for one in bank)


def finished_prompts(bank: Sequence[Sequence[str]], num_sounds: int, count: int) -> list[list[str]]:
    """For each sound the given prompts, equal ones side by side and each about equally often, for `count` candidates.

    Of more prompts than candidates the last are left out.
    """
    if len(bank) != num_sounds or not all(len(one) == len(bank[0]) for one in bank):
        raise ValueError(
            f"label_bank= has {len(bank)} lists of prompts for {num_sounds} sounds: one of equal length each"
        )
    if not bank[0] or not all(isinstance(prompt, str) for one in bank for prompt in one):
        raise ValueError("label_bank= holds lists of prompts: strings, and at least one for each sound")
    taken = min(len(bank[0]), count)
    return [[one[place * taken // count] for place in range(count)] for one in bank]


def embeds_of(matcher: Any, labels: Sequence[str]) -> torch.Tensor:
    """(L, E), kept in memory for this matcher as long as its weights stay what they are."""
    name = getattr(matcher, "name", type(matcher).__name__)
    if "text" not in getattr(matcher, "kinds", ()):
        raise ValueError(f"{name} cannot read, so it finds no prompt for a sound: pass prompt=")
    model = getattr(matcher, "model", None)
    weights = str(mark_of(model)) if isinstance(model, torch.nn.Module) else ""
    key = hashlib.sha256("\n".join([weights, *labels]).encode()).hexdigest()
    kept = _read.setdefault(matcher, {})
    if key not in kept:
        pieces = []
        try:
            for start in range(0, len(labels), TEXTS_AT_ONCE):
                pieces.append(matcher.encode_text(list(labels[start : start + TEXTS_AT_ONCE]), against="audio"))
        except ValueError as error:
            raise ValueError(f"{name} cannot read the label bank: {error}. Or pass prompt=") from error
        while len(kept) >= BANKS_KEPT:
            kept.pop(next(iter(kept)))
        kept[key] = torch.nn.functional.normalize(torch.cat(pieces).detach().float(), dim=-1).cpu()
    return kept[key]


# ---- banks


def read_bank(bank: Any = None, template: str = TEMPLATE) -> dict[str, str]:
    """The labels of a bank, each once, and what is drawn for each.

    Args:
        bank (*optional*): None for the project's own; a list of labels; `{label: prompt}`; or a file: `.txt` with one
            label in a line, `.json` with either, `.csv` or `.tsv` with a column `label` or `display_name`, or else the
            column of words that tells the rows apart: of AudioSet's and VGGSound's class lists the names.
        template (`str`): the prompt of a label that has none of its own.
    """
    if template.count("{}") != 1:
        raise ValueError(f"a template has one {{}} for the label, and this is {template!r}")
    where = "label_bank="
    if bank is None:
        bank = list(LABELS)
    if isinstance(bank, (str, os.PathLike)):
        where = os.path.basename(os.fspath(bank))
        bank = read_file(os.fspath(bank), where)
    if isinstance(bank, Mapping):
        pairs = list(bank.items())
    elif isinstance(bank, (list, tuple)):
        pairs = [(label, template) for label in bank]
    else:
        pairs = [(None, None)]
    if not all(isinstance(one, str) for pair in pairs for one in pair):
        raise ValueError(
            f"{where} holds labels: a list of strings, {{label: prompt}}, or a {', '.join(FILES)} file of them"
        )
    prompts: dict[str, str] = {}
    for label, prompt in pairs:
        if name := " ".join(label.split()):
            prompts.setdefault(name, prompt if isinstance(bank, Mapping) else prompt.replace("{}", name))
    if not prompts:
        raise ValueError(f"{where} has no label in it: give at least one")
    return prompts


def bank_named(bank: Any, banks: Mapping[str, Mapping[str, str]]) -> Any:
    """What the `label_bank` of a call stands for in a pipeline with banks of its own: the first if nothing is said."""
    if bank is None:
        return next(iter(banks.values()), None)
    if isinstance(bank, str) and bank in banks:
        return banks[bank]
    if isinstance(bank, str) and not is_path(bank):
        own = f"it has {', '.join(banks)}" if banks else "it has none of its own"
        raise ValueError(
            f"label_bank={bank!r} is no bank of this pipeline: {own}. A file of labels ends in {', '.join(FILES)}"
        )
    return bank


def is_path(bank: str) -> bool:
    """Whether a text means a file, and no name of a bank."""
    return bool(os.path.splitext(bank)[1]) or os.path.basename(bank) != bank


def checked_banks(banks: Any) -> dict[str, dict[str, str]] | None:
    """Banks that a pipeline may carry: name -> {label: prompt}."""
    if banks is None:
        return None
    if not isinstance(banks, Mapping) or not all(isinstance(one, Mapping) for one in banks.values()):
        raise ValueError("label_banks are {name: {label: prompt}}, such as {'photo': {'a dog': 'a photo of a dog'}}")
    for name in banks:
        if not isinstance(name, str) or not name or is_path(name):
            raise ValueError(f"a label bank is called {name!r}: take a plain word, which nobody mistakes for a file")
    return {name: read_bank(dict(bank)) for name, bank in banks.items()}


def read_file(path: str, where: str) -> Any:
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in FILES:
        raise ValueError(f"{where} is no file of labels: they end in .txt, .csv, .tsv or .json")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if suffix == ".txt":
                return [line for line in file.read().splitlines() if not line.startswith("#")]
            if suffix == ".json":
                return json.load(file)
            return column_of_labels(list(csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",")), where)
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise ValueError(f"{where} cannot be read as {suffix[1:]} in UTF-8: {error}") from error


def column_of_labels(rows: list[list[str]], where: str) -> list[str]:
    rows = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return []
    names = [cell.lower() for cell in rows[0]]
    for name in COLUMNS:
        if name in names:
            place = names.index(name)
            return [row[place] for row in rows[1:] if place < len(row)]
    columns = list(zip(*[row for row in rows if len(row) == len(rows[0])], strict=True))
    numbers = [place for place, column in enumerate(columns) if all(map(is_number, column[1:] or column))]
    words = [place for place in range(len(columns)) if place not in numbers]
    if not words:
        raise ValueError(f"{where} has no column of words: name the one with the labels 'label'")
    has_names = any(not is_number(columns[place][0]) for place in numbers)
    best = max(words, key=lambda place: (len(set(columns[place])), place))
    return list(columns[best][1 if has_names else 0 :])


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


__all__ = ["TEMPLATE", "bank_named", "checked_banks", "is_path", "nearest_prompts", "read_bank"]
