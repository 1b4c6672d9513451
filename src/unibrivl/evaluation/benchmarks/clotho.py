"""Clotho: captions of the evaluation split's 1,045 sounds, each against five that people wrote.

By the conventions of COCO's captions. METEOR needs Java and pycocoevalcap; where they are missing there is no number
of that name. `meteor_exact_stem` is another number, about twice as high, and stands under a name of its own.
"""

from __future__ import annotations

import os

from unibrivl.data import Listing
from unibrivl.data import clotho as listed
from unibrivl.evaluation.benchmarks.pairs import split_of
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.running import Found, Settings
from unibrivl.metrics import bootstrap, caption_scores, meteor_is_available

TITLE, PROTOCOL = "Clotho", "clotho-v1"
NEEDS = ("captions",)
SPLIT = "evaluation"
METRICS = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider", "meteor_exact_stem")
SHOWN = 5  # captions beside the scores, to be looked at


def load(folder: str | os.PathLike) -> Listing:
    return split_of(listed.load(folder), SPLIT, TITLE)


def run(vectors: Vectors, listing: Listing, settings: Settings) -> list[Found]:
    if not len(listing):
        raise ValueError(f"none of the sounds of the {SPLIT} split is there: there is nothing to write captions of")
    said = vectors.written("captions", [one.audio for one in listing], [one.id for one in listing])
    wanted = (*METRICS, "meteor") if meteor_is_available() else METRICS
    scores = caption_scores(said, [one.texts for one in listing], wanted)
    told = {
        "tokenizer": scores.tokenizer,
        "references": scores.num_references,
        "captions": {one.id: text for one, text in list(zip(listing, said, strict=True))[:SHOWN]},
    }
    found = []
    for name, value in scores.corpus.items():
        low = high = None
        if not name.startswith("bleu") and name != "meteor":  # which are no means over items
            low, high = bootstrap(scores.per_item[name], seed=0).bounds
        found.append(Found(name, value, len(listing), PROTOCOL, low, high, None, None, told))
    return found
