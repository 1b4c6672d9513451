"""The studies of the papers as far as they are known, by name.

Of UniBriVL's study the trial, the three answers and the averaging over three tests are published; how many people
answered how many trials is not. Of AAI's no protocol and no figures are known to us: the preset lets two systems meet
over one sound, which is ours.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from unibrivl.evaluation.study.pairing import Duel, by_class, by_system
from unibrivl.evaluation.study.pairs import Pair

CHECKS = 3  # ours: of those who press at random 1 in 3 passes one check, and 4 in 100 pass three


@dataclass(frozen=True)
class Preset:
    """
    Args:
        question (`str`): what participants are asked.
        pairing: rows -> which pictures meet.
        labels (`bool`): whether that needs the class of each sound.
        reported (`bool`): whether a paper gives figures for it.
        about (`str`): what is known of the original.
    """

    question: str
    pairing: Callable[[list[Pair], random.Random], list[Duel]]
    labels: bool
    reported: bool
    about: str


PRESETS = {
    "unibrivl": Preset(
        "Which picture fits the sound?",
        by_class,
        labels=True,
        reported=True,
        about="a picture made of this sound against one made of a sound of another class (UniBriVL, section 5.1; the "
        "paper does not say how many people answered)",
    ),
    "aai": Preset(
        "Which picture fits the sound better?",
        by_system,
        labels=False,
        reported=False,
        about="two systems' pictures of one sound (AAI's own protocol and figures are not known to us: this one is "
        "ours)",
    ),
}


def preset_named(name: str) -> Preset:
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}: there are {', '.join(PRESETS)}")
    return PRESETS[name]
