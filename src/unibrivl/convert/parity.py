"""How far a converted model is from the original: differences of named tensors, and a table of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True)
class Difference:
    """The largest absolute difference of one tensor from the original's."""

    name: str
    shape: tuple[int, ...]
    max_abs: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.max_abs <= self.limit  # False for NaN

    def as_dict(self) -> dict:
        return {**asdict(self), "shape": list(self.shape), "passed": self.passed}


def compare(name: str, ours: torch.Tensor, original: torch.Tensor, limit: float) -> Difference:
    if ours.shape != original.shape:
        raise ValueError(f"{name}: ours has shape {tuple(ours.shape)}, the original {tuple(original.shape)}")
    if ours.dtype == torch.bool:
        distance = (ours != original.bool()).float()
    else:
        distance = (ours.double() - original.double()).abs()
    return Difference(name, tuple(ours.shape), float(distance.max()) if distance.numel() else 0.0, limit)


def table(differences: list[Difference]) -> str:
    width = max((len(row.name) for row in differences), default=4)
    lines = [f"{'tensor':{width}}  {'shape':>18}  {'max |d|':>9}  {'limit':>7}"]
    for row in differences:
        shape = " x ".join(map(str, row.shape))
        verdict = "" if row.passed else "  FAILED"
        lines.append(f"{row.name:{width}}  {shape:>18}  {row.max_abs:9.2e}  {row.limit:7.0e}{verdict}")
    worst = max((row.max_abs for row in differences), default=0.0)
    lines.append(f"{len(differences)} tensors, worst {worst:.2e}, failed {sum(not row.passed for row in differences)}")
    return "\n".join(lines)


def against_reference(
    named: Mapping[str, torch.Tensor],
    reference: Mapping[str, torch.Tensor],
    inputs: Collection[str],
    limit: float | Mapping[str, float],
) -> list[Difference]:
    """Compare our outputs with those that were saved from the original code.

    Args:
        named: our outputs, under the original's names.
        reference: the inputs they were computed from, and the original's outputs.
        inputs: the names of `reference` that are inputs.
        limit: the largest difference allowed; of every tensor, or by the last part of its name, "" for all others.
    """
    saved = [name for name in reference if name not in inputs]
    unknown = [name for name in saved if name not in named]
    if unknown or not saved:
        raise ValueError(f"the reference file holds {unknown or 'no outputs'}; known are {sorted(named)}")
    limits = limit if isinstance(limit, Mapping) else {"": limit}
    return [
        compare(name, named[name], reference[name], limits.get(name.rsplit(".", 1)[-1], limits[""])) for name in saved
    ]
