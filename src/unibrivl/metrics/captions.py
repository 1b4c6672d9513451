"""Caption scores by the conventions of COCO: BLEU, ROUGE-L, CIDEr, and METEOR under the name that it deserves.

One hypothesis stands against several references. `caption_scores` cuts all of them with one tokenizer, whose name is
part of the result; the functions below it take tokens that are cut already, joined by spaces.

BLEU is of the corpus: counts are added up over all items before anything is divided. ROUGE-L, CIDEr and
`meteor_exact_stem` are means over items.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unibrivl.metrics import meteor

__all__ = ["CaptionScores", "bleu", "caption_scores", "cider", "rouge_l"]

MAX_N = 4  # BLEU-4; CIDEr too takes n-grams of one to four words
TINY, SMALL = 1e-15, 1e-9  # COCO's evaluation: added above and below every fraction of BLEU, so that none is 0 / 0
ROUGE_BETA = 1.2  # COCO's evaluation: recall counts more than precision
CIDER_SIGMA = 6.0  # CIDEr paper, CIDEr-D: how much longer or shorter a caption may be

METRICS = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "meteor_exact_stem", "meteor")
References = Sequence[Sequence[str]]
Ngram = tuple[str, ...]


@dataclass(frozen=True)
class CaptionScores:
    """Scores of a set of captions.

    Args:
        corpus (`dict[str, float]`): metric -> score of the set.
        per_item (`dict[str, list[float]]`): metric -> score of each item, in the order they came.
        tokenizer (`str`): what cut the captions: "ptb_python", "ptb_java" or "none".
        num_items (`int`): items.
        num_references (`int`): references of all items together.
    """

    corpus: dict[str, float]
    per_item: dict[str, list[float]]
    tokenizer: str
    num_items: int
    num_references: int

    def as_dict(self) -> dict[str, Any]:
        """The scores of the set, the tokenizer and the number of items, flat."""
        return {
            **self.corpus,
            "tokenizer": self.tokenizer,
            "n": self.num_items,
            "num_references": self.num_references,
        }


def caption_scores(
    hypotheses: Sequence[str] | Mapping[str, str],
    references: References | Mapping[str, Sequence[str]],
    metrics: Sequence[str] | None = None,
    tokenizer: str = "ptb_python",
) -> CaptionScores:
    """Compare captions with their references.

    Args:
        hypotheses (`Sequence[str]` or `Mapping[str, str]`): one caption for each item. An empty one scores 0.
        references (`Sequence[Sequence[str]]` or `Mapping`): the captions that are right, at least one for each item,
            in the same order or under the same keys.
        metrics (`Sequence[str]`, *optional*): names of `METRICS`. All that need no Java if None; `meteor` needs Java
            and `pip install "unibrivl[caption-java]"`, and is never replaced by `meteor_exact_stem`.
        tokenizer (`str`): "ptb_python"; "ptb_java", the original program, with the same needs as `meteor`; or "none"
            for captions that are tokens and spaces already.

    Returns:
        `CaptionScores`: `.corpus["cider"]`, `.per_item["cider"]`, `.tokenizer`.
    """
    wanted = METRICS[:-1] if metrics is None else tuple(metrics)
    if set(wanted) & {"spice", "spider"}:
        raise meteor.NotAvailable(
            "SPICE (and SPIDEr, which contains it) needs Stanford's parser and its downloads: compute it with "
            "pycocoevalcap's own scorer, which fetches them"
        )
    if unknown := [name for name in wanted if name not in METRICS]:
        raise ValueError(f"unknown metric {unknown[0]!r}: choose from {', '.join(METRICS)}")
    if tokenizer != "none" and tokenizer not in meteor.TOKENIZERS:
        raise ValueError(f"tokenizer must be one of {[*meteor.TOKENIZERS, 'none']}, got {tokenizer!r}")
    hypotheses, references = in_one_order(hypotheses, references)
    checked(hypotheses, references)
    if tokenizer != "none":
        hypotheses, references = tokenized(hypotheses, references, meteor.TOKENIZERS[tokenizer])
    corpus: dict[str, float] = {}
    per_item: dict[str, list[float]] = {}
    if any(name.startswith("bleu") for name in wanted):
        of_corpus, of_items = bleu(hypotheses, references)
        for n in range(MAX_N):
            corpus[f"bleu{n + 1}"], per_item[f"bleu{n + 1}"] = of_corpus[n], of_items[n]
    if "rouge_l" in wanted:
        corpus["rouge_l"], per_item["rouge_l"] = rouge_l(hypotheses, references)
    if "cider" in wanted:
        corpus["cider"], per_item["cider"] = cider(hypotheses, references)
    if "meteor_exact_stem" in wanted:
        scores = [meteor.meteor_exact_stem(h, r) for h, r in zip(hypotheses, references, strict=True)]
        corpus["meteor_exact_stem"], per_item["meteor_exact_stem"] = mean(scores), scores
    if "meteor" in wanted:
        corpus["meteor"], per_item["meteor"] = meteor.meteor_java(hypotheses, references)
    return CaptionScores(
        {name: corpus[name] for name in wanted},
        {name: per_item[name] for name in wanted},
        tokenizer,
        len(hypotheses),
        sum(len(of_item) for of_item in references),
    )


def bleu(hypotheses: Sequence[str], references: References) -> tuple[list[float], list[list[float]]]:
    """BLEU-1 to BLEU-4 of the corpus, and of each item: (4 scores, 4 lists).

    An n-gram counts at most as often as in the reference that has most of it. Captions shorter than the reference
    closest in length (of two equally close, the shorter) pay the brevity penalty.
    """
    checked(hypotheses, references)
    total = BleuCounts()
    of_items: list[list[float]] = [[] for _ in range(MAX_N)]
    for hypothesis, of_item in zip(hypotheses, references, strict=True):
        counts = BleuCounts.of(hypothesis.split(), [reference.split() for reference in of_item])
        total = total + counts
        for scores, score in zip(of_items, counts.scores(), strict=True):
            scores.append(score)
    return total.scores(), of_items


@dataclass(frozen=True)
class BleuCounts:
    """What BLEU adds up: lengths, and for each n the n-grams said and those that are right."""

    length: int = 0
    reference_length: int = 0
    said: tuple[int, ...] = (0,) * MAX_N
    right: tuple[int, ...] = (0,) * MAX_N

    @classmethod
    def of(cls, hypothesis: list[str], references: list[list[str]]) -> BleuCounts:
        most: dict[Ngram, int] = {}
        for reference in references:
            for ngram, count in ngram_counts(reference).items():
                most[ngram] = max(count, most.get(ngram, 0))
        right = [0] * MAX_N
        for ngram, count in ngram_counts(hypothesis).items():
            right[len(ngram) - 1] += min(count, most.get(ngram, 0))
        length = len(hypothesis)
        closest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
        return cls(length, closest, tuple(max(0, length - n) for n in range(MAX_N)), tuple(right))

    def __add__(self, other: BleuCounts) -> BleuCounts:
        return BleuCounts(
            self.length + other.length,
            self.reference_length + other.reference_length,
            tuple(a + b for a, b in zip(self.said, other.said, strict=True)),
            tuple(a + b for a, b in zip(self.right, other.right, strict=True)),
        )

    def scores(self) -> list[float]:
        ratio = (self.length + TINY) / (self.reference_length + SMALL)
        penalty = math.exp(1 - 1 / ratio) if ratio < 1 and self.length else float(self.length > 0)
        product, scores = 1.0, []
        for n in range(MAX_N):
            product *= (self.right[n] + TINY) / (self.said[n] + SMALL)
            scores.append(penalty * product ** (1 / (n + 1)))
        return scores


def ngram_counts(words: list[str]) -> Counter[Ngram]:
    """All n-grams of one to four words."""
    return Counter(tuple(words[at : at + n]) for n in range(1, MAX_N + 1) for at in range(len(words) - n + 1))


def rouge_l(hypotheses: Sequence[str], references: References) -> tuple[float, list[float]]:
    """ROUGE-L of the corpus (a mean) and of each item, from the longest common subsequence.

    COCO's reading: the best precision and the best recall are taken each from the reference that has it.
    """
    checked(hypotheses, references)
    scores = []
    for hypothesis, of_item in zip(hypotheses, references, strict=True):
        words = hypothesis.split()
        precision = recall = 0.0
        for reference in map(str.split, of_item):
            common = longest_common(words, reference)
            if common:
                precision, recall = max(precision, common / len(words)), max(recall, common / len(reference))
        weight = ROUGE_BETA**2
        scores.append((1 + weight) * precision * recall / (recall + weight * precision) if precision else 0.0)
    return mean(scores), scores


def longest_common(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence.

    A row of the usual table is one integer here: bit i is 0 where the row grows at word i of `first`.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & everywhere
    return len(first) - row.bit_count()


def cider(hypotheses: Sequence[str], references: References) -> tuple[float, list[float]]:
    """CIDEr of the corpus (a mean) and of each item, as COCO computes it (CIDEr-D), times 10.

    What an n-gram weighs follows from how many items have it among their references, so a score depends on the set it
    is computed in, and a set of one item scores 0. Lengths are compared by the number of bigrams, as COCO's code does.
    """
    checked(hypotheses, references)
    counts = [[ngram_counts(reference.split()) for reference in of_item] for of_item in references]
    num_items_with: Counter[Ngram] = Counter()
    for of_item_counts in counts:
        num_items_with.update(set().union(*of_item_counts))
    log_items = math.log(len(references))
    weight = {ngram: log_items - math.log(number) for ngram, number in num_items_with.items()}

    def vector(ngrams: Counter[Ngram]) -> tuple[dict[Ngram, float], list[float], int]:
        """Weighted counts, their norm for each n, and the number of bigrams."""
        values = {ngram: count * weight.get(ngram, log_items) for ngram, count in ngrams.items()}
        squares, num_bigrams = [0.0] * MAX_N, 0
        for ngram, value in values.items():
            squares[len(ngram) - 1] += value * value
            if len(ngram) == 2:
                num_bigrams += ngrams[ngram]
        return values, [math.sqrt(square) for square in squares], num_bigrams

    scores = []
    for hypothesis, of_item_counts in zip(hypotheses, counts, strict=True):
        said, said_norms, said_bigrams = vector(ngram_counts(hypothesis.split()))
        total = 0.0
        for ngrams in of_item_counts:
            true, true_norms, true_bigrams = vector(ngrams)
            products = [0.0] * MAX_N
            for ngram, value in said.items():
                if other := true.get(ngram):
                    products[len(ngram) - 1] += min(value, other) * other
            similarity = sum(
                product / (a * b) for product, a, b in zip(products, said_norms, true_norms, strict=True) if a and b
            )
            total += similarity * math.exp(-((said_bigrams - true_bigrams) ** 2) / (2 * CIDER_SIGMA**2))
        scores.append(10 * total / (MAX_N * len(of_item_counts)))
    return mean(scores), scores


def mean(scores: Sequence[float]) -> float:
    return math.fsum(scores) / len(scores)


def in_one_order(
    hypotheses: Sequence[str] | Mapping[str, str], references: References | Mapping[str, Sequence[str]]
) -> tuple[Sequence[str], References]:
    """Two lists, from two lists or from two dictionaries with the same keys."""
    if isinstance(hypotheses, Mapping) and isinstance(references, Mapping):
        if different := sorted(set(hypotheses) ^ set(references), key=str):
            raise ValueError(
                f"{len(different)} items are only on one side, such as {different[0]!r}: every item needs one "
                "hypothesis and its references"
            )
        return list(hypotheses.values()), [references[key] for key in hypotheses]
    if isinstance(hypotheses, Mapping) or isinstance(references, Mapping):
        raise ValueError("hypotheses and references must both be lists or both be dictionaries")
    return hypotheses, references


def checked(hypotheses: Sequence[str], references: References) -> None:
    """Raise unless there is one caption and a list of captions for each item, and at least one item."""
    if isinstance(hypotheses, str) or not all(isinstance(text, str) for text in hypotheses):
        raise ValueError("hypotheses must be a list of strings, one for each item")
    if len(hypotheses) != len(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} lists of references: each item needs both. "
            "Give an empty string where the system said nothing"
        )
    if len(hypotheses) == 0:
        raise ValueError("there are no captions to score: give at least one item")
    for number, of_item in enumerate(references):
        if isinstance(of_item, str) or len(of_item) == 0 or not all(isinstance(text, str) for text in of_item):
            raise ValueError(f"references[{number}] must be a list with at least one string, got {of_item!r:.80}")


def tokenized(
    hypotheses: Sequence[str], references: References, cut: Callable[[Sequence[str]], list[str]]
) -> tuple[list[str], list[list[str]]]:
    """All captions through the tokenizer in one go: starting Java once costs enough."""
    texts = cut([*hypotheses, *(text for of_item in references for text in of_item)])
    rest = iter(texts[len(hypotheses) :])
    return texts[: len(hypotheses)], [[next(rest) for _ in of_item] for of_item in references]
