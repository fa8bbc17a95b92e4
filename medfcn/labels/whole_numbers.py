"""Arrays whose voxels are whole numbers: masks, before anyone asks what their values mean."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import LabelError

LARGEST_LABEL = 65535

ROUNDING = 1e-3
"""How far a voxel may be from a whole number and still be that label."""
_PIECE = 1 << 20


def whole_numbers(array: NDArray[Any], *, name: str) -> tuple[NDArray[Any], float]:
    """A mask's voxels as the smallest unsigned integers, and by how much they had to be rounded at most.

    Raises:
        LabelError: A voxel is negative, above 65535, or more than 1e-3 from a whole number.

    Example:
        >>> whole_numbers(np.array([[[0.0, 0.9999]]]), name="case")[0].tolist()
        [[[0, 1]]]
    """
    off = 0.0
    if array.dtype.kind == "f":
        for (part,) in pieces(array):  # so that no second volume of floats is made
            here = float(np.abs(part - np.rint(part)).max()) if part.size else 0.0
            if not here <= ROUNDING:  # NaN too
                raise LabelError(
                    f"{name}: values that are no labels: {listed(_not_whole(array))}; "
                    "a mask holds whole numbers (was an image or a probability given?)"
                )
            off = max(off, here)
    elif array.dtype.kind not in "biu":
        raise LabelError(f"{name}: voxels of type {array.dtype} are no labels; give whole numbers")
    if array.dtype.kind == "b":
        return array.astype(np.uint8), 0.0
    least, most = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if least < -ROUNDING or most > LARGEST_LABEL + ROUNDING:
        outside = np.unique(array[(array < -ROUNDING) | (array > LARGEST_LABEL)])
        raise LabelError(
            f"{name}: label values {listed(outside.tolist())} are outside 0 to {LARGEST_LABEL}; "
            "re-export the mask, or give one that holds labels"
        )
    smallest = np.min_scalar_type(round(most))
    if array.dtype == smallest:
        return array, off
    whole = np.empty_like(array, dtype=smallest)
    for target, part in pieces(whole, array):
        target[...] = np.rint(part) if off else part
    return whole, off


def pieces(first: NDArray[Any], *others: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Views of arrays of one shape, some voxels at a time, in the order in which the first lies in memory.

    numpy widens what it uses as an index to 8 bytes a voxel, so whole volumes are not worked on at once.
    """
    turned = tuple(array.T if first.flags.f_contiguous else array for array in (first, *others))
    if first.ndim == 0 or first.size <= _PIECE:
        yield turned
        return
    length = turned[0].shape[0]
    step = max(1, _PIECE * length // first.size)
    for start in range(0, length, step):
        yield tuple(array[start : start + step] for array in turned)


def label_counts(array: NDArray[Any]) -> dict[int, int]:
    """How many voxels have each value, for unsigned integers up to 65535, in the order of the values.

    Example:
        >>> label_counts(np.array([[[0, 2, 2]]], dtype=np.uint8))
        {0: 1, 2: 2}
    """
    counts = np.zeros(int(array.max()) + 1 if array.size else 1, dtype=np.int64)
    for (part,) in pieces(array):
        counts += np.bincount(part.ravel(order="K"), minlength=len(counts))
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _not_whole(array: NDArray[Any]) -> list[float]:
    strange = array[~(np.abs(array - np.rint(array)) <= ROUNDING)]
    values: list[float] = np.unique(strange[:1_000_000]).tolist()
    return values


def listed(values: Sequence[float], *, limit: int = 8) -> str:
    """The first few of some values, for a message.

    Example:
        >>> listed([1, 2.5, 3], limit=2)
        '1, 2.5, ...'
    """
    text = ", ".join(f"{value:.6g}" for value in values[:limit])
    return text + (", ..." if len(values) > limit else "")
