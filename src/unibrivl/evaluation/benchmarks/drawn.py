"""What benchmarks of pictures share: a picture for each sound and seed, and what a judge says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unibrivl.data import Sample
from unibrivl.data.pictures import open_picture
from unibrivl.evaluation.encoders import Vectors
from unibrivl.evaluation.judges import distances, hits_of
from unibrivl.evaluation.pictures import Pictures, judge_of
from unibrivl.evaluation.running import Found, Settings

A_SEED = 100_003  # so far lie the seeds of two repeats apart: more than there are sounds


def heard_and_drawn(
    vectors: Vectors, samples: Sequence[Sample], settings: Settings, alike: bool = False
) -> dict[int, list[Any]]:
    """seed -> a picture for each sound.

    Args:
        alike (`bool`): all sounds of a seed are drawn with the same chance, not each with its own.
    """
    pictures = Pictures(vectors)
    paths, ids = [str(one.audio) for one in samples], [one.id for one in samples]
    places = [0] * len(ids) if alike else range(len(ids))
    return {seed: pictures.of(paths, ids, [A_SEED * seed + place for place in places]) for seed in settings.seeds}


def generation(
    vectors: Vectors, samples: Sequence[Sample], real: Sequence[Sample], protocol: str, settings: Settings
) -> list[Found]:
    """R@1, the Inception score, and FID and KID where there are real pictures, on the judge's features.

    Args:
        samples: with a sound and one label each.
        real: with pictures, of the same labels.
    """
    judge = judge_of(settings, vectors)
    labels = sorted({str(one.label) for one in samples})
    if len(labels) < 2:
        raise ValueError(f"there are sounds of {len(labels)} labels: a judge chooses between two at least")
    drawn = heard_and_drawn(vectors, samples, settings)
    images = [one for some in drawn.values() for one in some]
    right = [str(one.label) for one in samples] * len(drawn)
    seen = judge.look(images)
    shown = judge.look([open_picture(one.image) for one in real]) if real else None
    told = {
        "judge": judge.name, "judge_fingerprint": judge.fingerprint, "labels": labels, "seeds": list(drawn),
        "sheet": Pictures(vectors).sheet("sheet", by_label(samples, drawn[settings.seed])), "real": len(real),
    }  # fmt: skip
    if shown is not None:
        told["judge_on_real"] = hits_of(judge, shown, [str(one.label) for one in real], labels) / len(real)
    number, hits = len(images), hits_of(judge, seen, right, labels)
    found = [
        Found.share(
            "R@1", hits, number, protocol, chance=1 / len(labels), seed=settings.seed, extra=told, expected=number
        )
    ]
    found += [
        Found(name, value, number, protocol, seed=settings.seed, extra=told, expected=number)
        for name, value in distances(judge, seen, labels, shown).items()
    ]
    return found


def by_label(samples: Sequence[Sample], pictures: Sequence[Any]) -> list[list[Any]]:
    """A row of pictures for each label."""
    rows: dict[str, list[Any]] = {}
    for one, picture in zip(samples, pictures, strict=True):
        rows.setdefault(str(one.label), []).append(picture)
    return [rows[label] for label in sorted(rows)]
