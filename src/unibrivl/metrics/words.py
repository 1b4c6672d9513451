"""Word and character error rate: how far a transcript is from what was said.

Errors are substitutions, deletions and insertions of the shortest way from the reference to the hypothesis; among ways
of equal length the one with the fewest substitutions is counted, so the three numbers are unique. The rate of a corpus
is all errors over all words of the references, not the mean of the rates of its items.

A rate means something only together with what was done to the text before: every result carries the normaliser's name.

Shapes: P pairs looked at together, H hypothesis tokens + 1.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["ErrorRates", "character_error_rate", "normalize_words", "whisper_english", "word_error_rate"]

CELLS_AT_ONCE = 2**18  # of the tables of edit distances that are filled together


@dataclass(frozen=True, eq=False)
class ErrorRates:
    """Errors of each item, and their rate over all of them.

    Args:
        substitutions, deletions, insertions (`np.ndarray`): one count for each item.
        lengths (`np.ndarray`): tokens of each reference, after normalisation.
        unit (`str`): "word" or "character".
        normalizer (`str`): what was done to both sides first.
    """

    substitutions: np.ndarray
    deletions: np.ndarray
    insertions: np.ndarray
    lengths: np.ndarray
    unit: str
    normalizer: str

    @property
    def errors(self) -> np.ndarray:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Of the corpus. It exceeds 1 where more was written than was said."""
        return float(self.errors.sum() / self.lengths.sum())

    @property
    def rates(self) -> np.ndarray:
        """Of each item; NaN where the reference is empty."""
        return np.divide(self.errors, self.lengths, out=np.full(len(self.lengths), np.nan), where=self.lengths > 0)

    def as_dict(self) -> dict[str, float | int | str]:
        return {
            f"{'wer' if self.unit == 'word' else 'cer'}": self.rate,
            "substitutions": int(self.substitutions.sum()),
            "deletions": int(self.deletions.sum()),
            "insertions": int(self.insertions.sum()),
            "reference_length": int(self.lengths.sum()),
            "normalizer": self.normalizer,
            "n": len(self.lengths),
        }


Normalizer = Callable[[str], str]


def word_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], normalizer: str | Normalizer = "lower"
) -> ErrorRates:
    """Errors in words.

    Args:
        references (`Sequence[str]`): what was said.
        hypotheses (`Sequence[str]`): what was recognised, in the same order. May be empty strings.
        normalizer (`str` or callable): "none" cuts at white space and changes nothing; "lower" is `normalize_words`;
            or a function from text to text, such as `whisper_english(...)`.
    """
    return error_rates(references, hypotheses, normalizer, "word")


def character_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], normalizer: str | Normalizer = "lower"
) -> ErrorRates:
    """Errors in characters, the single spaces between words included; otherwise as `word_error_rate`."""
    return error_rates(references, hypotheses, normalizer, "character")


def normalize_words(text: str) -> str:
    """The normaliser "lower": lower case, compatibility characters unified (NFKC), no punctuation.

    Apostrophes vanish ("it's" is "its"); every other punctuation mark or sign becomes a space ("well-known" is two
    words). Numbers stay as they are written.
    """
    text = re.sub("['\u2018\u2019\u02bc`]", "", unicodedata.normalize("NFKC", text).lower())
    kept = (" " if unicodedata.category(char)[0] in "PS" else char for char in text)
    return " ".join("".join(kept).split())


def whisper_english(spelling: Mapping[str, str] | None = None) -> Normalizer:
    """The English normaliser of the Whisper paper, as transformers has it: numbers, contractions, spelling.

    Args:
        spelling (`Mapping[str, str]`, *optional*): British -> American words. Whisper's own table is the file
            `normalizer.json` beside its tokenizer, which has to be downloaded; without it the result says so in its
            name.
    """
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalize = EnglishTextNormalizer(dict(spelling or {}))

    def whisper_normalizer(text: str) -> str:
        return str(normalize(text))

    whisper_normalizer.__name__ = "whisper_english" if spelling else "whisper_english_without_spelling"
    return whisper_normalizer


NORMALIZERS: Mapping[str, Normalizer] = {"none": str, "lower": normalize_words}


def error_rates(
    references: Sequence[str], hypotheses: Sequence[str], normalizer: str | Normalizer, unit: str
) -> ErrorRates:
    for texts, what in ((references, "references"), (hypotheses, "hypotheses")):
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{what} must be a list of strings: write [text] for one")
    if len(references) != len(hypotheses):
        raise ValueError(
            f"{len(references)} references and {len(hypotheses)} hypotheses: they are compared one by one. "
            "Give an empty string where nothing was recognised"
        )
    if isinstance(normalizer, str):
        if normalizer not in NORMALIZERS:
            raise ValueError(f"normalizer must be one of {sorted(NORMALIZERS)} or a function, got {normalizer!r}")
        name, normalize = normalizer, NORMALIZERS[normalizer]
    else:
        name, normalize = getattr(normalizer, "__name__", type(normalizer).__name__), normalizer
    said, heard = ([normalize(text).split() for text in texts] for texts in (references, hypotheses))
    if unit == "character":
        said, heard = ([list(" ".join(words)) for words in texts] for texts in (said, heard))
    lengths = np.array([len(tokens) for tokens in said], int)
    if lengths.sum() == 0:
        raise ValueError(
            f"no reference has a {unit} in it after the normaliser {name!r}: the rate is undefined. "
            "Give at least one reference with words"
        )
    counts_P3 = edit_counts(said, heard)
    substitutions, deletions, insertions = counts_P3.T
    return ErrorRates(substitutions, deletions, insertions, lengths, unit, name)


def edit_counts(said: Sequence[list[str]], heard: Sequence[list[str]]) -> np.ndarray:
    """(P, 3) substitutions, deletions and insertions of each pair of token lists."""
    number = {token: index for index, token in enumerate({t for side in (said, heard) for ts in side for t in ts})}
    counts_P3: np.ndarray = np.zeros((len(said), 3), int)
    by_size = sorted(range(len(said)), key=lambda item: (len(said[item]), len(heard[item])))
    start = 0
    while start < len(by_size):  # pairs of similar size fill their tables together
        end, widest = start, 1
        while end < len(by_size):
            widest = max(widest, len(heard[by_size[end]]) + 1)
            if end > start and (end + 1 - start) * widest > CELLS_AT_ONCE:
                break
            end += 1
        items = by_size[start:end]
        ids = [[[number[token] for token in side[item]] for item in items] for side in (said, heard)]
        counts_P3[items] = counts_of_batch(*ids)
        start = end
    return counts_P3


def counts_of_batch(said: Sequence[list[int]], heard: Sequence[list[int]]) -> np.ndarray:
    """(P, 3) for one batch: the classic table, row by row, for all pairs at once.

    One cost holds both wishes: an error costs `unit` and a substitution one more, and no pair has `unit` errors. The
    total then is errors * unit + substitutions, and the difference of the lengths gives the other two.
    """
    said_lengths_P, heard_lengths_P = (np.array([len(tokens) for tokens in side]) for side in (said, heard))
    unit = int(said_lengths_P.max() + heard_lengths_P.max()) + 1
    said_P_, heard_P_ = (padded(side, filler) for side, filler in ((said, -1), (heard, -2)))
    insertions_H: np.ndarray = np.arange(heard_P_.shape[1] + 1) * unit
    row_PH = np.tile(insertions_H, (len(said), 1))
    total_P = row_PH[np.arange(len(said)), heard_lengths_P]
    for number in range(said_P_.shape[1]):
        best_PH = row_PH + unit  # a deletion
        replaced_P_ = row_PH[:, :-1] + np.where(said_P_[:, number, None] == heard_P_, 0, unit + 1)
        np.minimum(best_PH[:, 1:], replaced_P_, out=best_PH[:, 1:])
        # An insertion continues a row from the left; without its own price it is a running minimum.
        row_PH = np.minimum.accumulate(best_PH - insertions_H, axis=1) + insertions_H
        ends_P = np.flatnonzero(said_lengths_P == number + 1)
        total_P[ends_P] = row_PH[ends_P, heard_lengths_P[ends_P]]
    errors_P, substitutions_P = total_P // unit, total_P % unit
    surplus_P = heard_lengths_P - said_lengths_P  # insertions - deletions
    insertions_P = (errors_P - substitutions_P + surplus_P) // 2
    return np.stack([substitutions_P, insertions_P - surplus_P, insertions_P], 1)


def padded(side: Sequence[list[int]], filler: int) -> np.ndarray:
    width = max((len(tokens) for tokens in side), default=0)
    table: np.ndarray = np.full((len(side), width), filler, np.int64)
    for row, tokens in zip(table, side, strict=True):
        row[: len(tokens)] = tokens
    return table
