"""Which two pictures meet over a sound.

`by_class` is UniBriVL's trial: a picture made of this sound against one made of a sound of another class, both by the
same system, so that the quality of pictures says nothing. `by_system` lets two systems meet over one sound.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from unibrivl.evaluation.study.pairs import Pair

Group = TypeVar("Group", bound=Hashable)


@dataclass(frozen=True)
class Duel:
    """One sound, and two pictures of which the positive one is held to fit.

    Args:
        system (`str`): whose answers are counted together.
        opponent (`str`): what the other picture is: the class it was made for, or the system that made it.
        check (`bool`): asked to see whether somebody is looking; `negative` is then empty and stands for noise.
    """

    sound: str
    positive: str
    negative: str
    system: str
    test: str
    label: str
    opponent: str
    check: bool = False


def grouped(pairs: Iterable[Pair], key: Callable[[Pair], Group]) -> dict[Group, list[Pair]]:
    groups: dict[Group, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[key(pair)].append(pair)
    return groups


def by_class(pairs: list[Pair], rng: random.Random) -> list[Duel]:
    """Each row once as the picture that fits, against one of another class of the same system and test.

    Where no class has more than half of the rows each picture is also the other one exactly once: how often it is
    seen then says nothing about which of the two it is.
    """
    duels = []
    for (system, test), rows in grouped(pairs, lambda pair: (pair.system, pair.test)).items():
        classes = list(grouped(rows, lambda pair: pair.kind).values())
        if len(classes) < 2:
            raise ValueError(
                f"all rows of the system {system!r}{test and f' in the test {test!r}'} have the label "
                f"{rows[0].label!r}: the other picture must come from another class, so there must be two at least"
            )
        rng.shuffle(classes)
        for rows_of_class in classes:
            rng.shuffle(rows_of_class)
        ordered = list(itertools.chain.from_iterable(classes))
        most = max(map(len, classes))
        others = ordered[most:] + ordered[:most] if 2 * most <= len(ordered) else least_seen(ordered)
        duels += [
            Duel(one.sound, one.image, other.image, system, test, one.label, other.label)
            for one, other in zip(ordered, others, strict=True)
        ]
    return duels


def least_seen(ordered: list[Pair]) -> list[Pair]:
    """Others of another class, each as seldom as possible, where one class has most of the rows."""
    seen: Counter[int] = Counter()
    others = []
    for one in ordered:
        number = min((n for n, other in enumerate(ordered) if other.kind != one.kind), key=lambda n: seen[n])
        seen[number] += 1
        others.append(ordered[number])
    return others


def by_system(pairs: list[Pair], rng: random.Random) -> list[Duel]:
    """Every two systems over each sound both have a picture of; positive is the one the table names first."""
    place = {system: number for number, system in enumerate(dict.fromkeys(pair.system for pair in pairs))}
    if len(place) < 2:
        raise ValueError(f"the only system is {next(iter(place))!r}: this study lets systems meet, two at least")
    duels = []
    for rows in grouped(pairs, lambda pair: (pair.sound, pair.test)).values():
        rows.sort(key=lambda pair: place[pair.system])
        for one, other in itertools.combinations(rows, 2):
            if one.system == other.system:
                raise ValueError(f"{one.system!r} has two pictures of {one.sound}: name one of them")
            against = f"{one.system} against {other.system}"
            duels.append(Duel(one.sound, one.image, other.image, against, one.test, one.label, other.system))
    if not duels:
        raise ValueError("no sound has pictures of two systems: give both the same file under sound")
    rng.shuffle(duels)
    return duels
