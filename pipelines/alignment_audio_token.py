"""Which token of a source text each token of a target text takes its attention from.

    "a photo of a dog"      a  photo  of  a  dog
    "a photo of <audio>"    a  photo  of  <audio>          <audio> stands for "a dog": it takes its maps
    "a dog, with <audio>"                                  ", with <audio>" is new: it keeps its own

Texts are compared as ids, in which a sound is an opaque token, and not as words.

Shapes: L ids of a text, with those of its frame and padding.
"""

import difflib
from collections.abc import Sequence

import torch


def alignment(source: Sequence[int], target: Sequence[int], end: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Args:
        source, target: L ids each, padded.
        end: the id that ends a text.

    Returns:
        (L, L), which share of each source token's map (row) a target token (column) takes: what several tokens replace
        is spread evenly over them; and (L,), 1 on target tokens that take maps at all and 0 on new ones.
    """
    length = len(target)
    if len(source) != length:
        raise ValueError(f"texts are padded to one length, and these have {len(source)} and {length} ids")
    last_source, last_target = (ends_at(ids, end) for ids in (source, target))
    maps_LL, taken_L = torch.zeros(length, length), torch.zeros(length)
    matcher = difflib.SequenceMatcher(None, list(source[:last_source]), list(target[:last_target]), autojunk=False)
    for what, start, stop, first, behind in matcher.get_opcodes():
        if what == "equal":
            for old, new in zip(range(start, stop), range(first, behind), strict=True):
                maps_LL[old, new] = 1
        elif what == "replace":
            maps_LL[start:stop, first:behind] = 1 / (behind - first)
        if what in ("equal", "replace"):
            taken_L[first:behind] = 1
    for place in range(last_target, length):  # the end and the padding behind it, in order
        maps_LL[min(last_source + place - last_target, length - 1), place] = 1
    taken_L[last_target:] = 1
    return maps_LL, taken_L


def ends_at(ids: Sequence[int], end: int) -> int:
    """Where a text ends, behind the token that begins it."""
    return next((place for place, one in enumerate(ids) if one == end and place), len(ids))


def replaced(source: Sequence[int], target: Sequence[int], end: int) -> tuple[list[int], list[int]]:
    """Places of the source's tokens that are gone, and of the target's that came instead or are new."""
    last_source, last_target = (ends_at(ids, end) for ids in (source, target))
    matcher = difflib.SequenceMatcher(None, list(source[:last_source]), list(target[:last_target]), autojunk=False)
    gone: list[int] = []
    new: list[int] = []
    for what, start, stop, first, behind in matcher.get_opcodes():
        if what != "equal":
            gone, new = [*gone, *range(start, stop)], [*new, *range(first, behind)]
    return gone, new


__all__ = ["alignment", "replaced"]
