"""What comes in, as numpy arrays: lists, arrays and tensors alike, and never with a NaN in it."""

from __future__ import annotations

from typing import Any

import numpy as np

ROWS_AT_ONCE = 4096  # rows looked at together where a pass over everything would make a second copy of it


def as_array(values: Any, name: str, ndim: int | None = None) -> np.ndarray:
    """A numpy array of `values`, which may also be a torch tensor on any device, of any precision.

    Args:
        values: numbers, labels, an array, or a tensor.
        name (`str`): how an error calls them.
        ndim (`int`, *optional*): the dimensions they must have.
    """
    array: np.ndarray
    if hasattr(values, "detach"):  # a tensor, recognised by what it can do: importing torch would cost a second
        tensor = values.detach().cpu()
        short = tensor.is_floating_point() and tensor.element_size() < 4  # bfloat16 has no like in numpy
        array = (tensor.float() if short else tensor).numpy()
    else:
        array = np.asarray(values)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension{'s' * (ndim > 1)} and have the shape {array.shape}")
    return array


def as_numbers(values: Any, name: str, ndim: int | None = None) -> np.ndarray:
    """Finite numbers in float64, at least one; a NaN or an infinity is refused with its place."""
    array: np.ndarray = as_array(values, name, ndim).astype(np.float64, copy=False)
    if array.size == 0:
        raise ValueError(f"{name} are empty: there is nothing to measure")
    refuse_non_finite(array, name)
    return array


def refuse_non_finite(array: np.ndarray, name: str, first_row: int = 0) -> None:
    """Raise if a NaN or an infinity is in `array`, whose first row is row `first_row` of what the user gave."""
    finite = np.isfinite(array)
    if not finite.all():
        place = np.argwhere(~finite)[0]
        place[0] += first_row
        raise ValueError(
            f"{name}{place.tolist()} is {array[tuple(np.argwhere(~finite)[0])]}: no rank or mean is true with it. "
            "Find out where it comes from, and leave the item out if it has no answer"
        )


def same_length(*pairs: tuple[str, np.ndarray]) -> int:
    """The number of items that all arrays have; raises if they differ."""
    lengths = {name: len(array) for name, array in pairs}
    if len(set(lengths.values())) > 1:
        raise ValueError("these belong together, item by item: " + ", ".join(f"{n} {k}" for k, n in lengths.items()))
    return next(iter(lengths.values()))
