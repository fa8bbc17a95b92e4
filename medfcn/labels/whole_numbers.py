"""Arrays of whole numbers: the voxels of masks, before their meaning is known."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import LabelError
from medfcn.labels.image_like import NOT_WHOLE
from medfcn.scratch import release
from medfcn.text import listed
from medfcn.volumes.formats.stored import is_of_one_value, of_one_value

LARGEST_LABEL = 2**32 - 1
"""Atlases of the mouse brain number their regions up to 614,454,277."""
LARGEST_TABLE = 65535
"""Up to this value a table has an entry for each value; above it, one for each value that occurs."""

ROUNDING = 1e-3
"""The farthest that a voxel may be from a whole number and still be that label."""
CHUNK_VOXELS = 1 << 19
"""Voxels of one step of a pass over a volume: small enough to stay in a second-level cache."""


def whole_numbers(array: NDArray[Any], *, name: str, rounding: float = ROUNDING) -> tuple[NDArray[Any], float]:
    """The voxels of a mask as the smallest unsigned integers, and the largest rounding that this needed.

    Args:
        array: The voxels, any shape.
        name: The case or file, for messages.
        rounding: The farthest that a voxel may be from a whole number; below 0.5.

    Raises:
        LabelError: A voxel is negative, above 2^32 - 1, or more than `rounding` from a whole number.

    Example:
        >>> whole_numbers(np.array([[[0.0, 0.9999]]]), name="case")[0].tolist()
        [[[0, 1]]]
    """
    if is_of_one_value(array):
        one, off = whole_numbers(array[(slice(1),) * array.ndim], name=name, rounding=rounding)
        return of_one_value(one.flat[0], array.shape), off
    off = 0.0
    if array.dtype.kind == "f":
        for (part,) in chunks(array):  # so that no second volume of floats is made
            here = float(np.abs(part - np.rint(part)).max())
            if not here <= rounding:  # NaN too
                raise LabelError(
                    f"{name}: values that are no labels: {numbers_text(_not_whole(array, rounding))}; "
                    "give a mask of whole numbers (is this an image or a probability?)",
                    field=NOT_WHOLE,
                )
            off = max(off, here)
    elif array.dtype.kind not in "biu":
        raise LabelError(f"{name}: voxels of type {array.dtype} are no labels; give whole numbers")
    if array.dtype.kind == "b":
        return array.astype(np.uint8), 0.0
    least, most = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if least < -rounding or most > LARGEST_LABEL + rounding:
        outside = np.unique(array[(array < -rounding) | (array > LARGEST_LABEL)])
        raise LabelError(
            f"{name}: label values {numbers_text(outside)} are outside 0 to {LARGEST_LABEL}; "
            "re-export the mask, or give one that contains labels"
        )
    smallest = np.min_scalar_type(round(most))
    if array.dtype == smallest:
        return array, off
    whole = np.empty_like(array, dtype=smallest)
    for target, part in chunks(whole, array):
        target[...] = np.rint(part) if off else part
    return whole, off


def chunks(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Arrays of one shape, some voxels of each at a time: `(V,)`, in the order in which the first lies in memory.

    Numpy widens an index to 8 bytes a voxel; in chunks these copies stay small. If the first was made by
    `np.empty_like`, its chunks are views, which can be written to.
    """
    slowest_first = sorted(range(arrays[0].ndim), key=lambda axis: -abs(arrays[0].strides[axis]))
    flat = [array.transpose(slowest_first).ravel() for array in arrays]
    for start in range(0, flat[0].size, CHUNK_VOXELS):
        yield tuple(one[start : start + CHUNK_VOXELS] for one in flat)
        for array in arrays:
            release(array)


def label_counts(array: NDArray[Any]) -> dict[int, int]:
    """The number of voxels of each value, for unsigned integers, in the order of the values.

    Example:
        >>> label_counts(np.array([[[0, 2, 2]]], dtype=np.uint8))
        {0: 1, 2: 2}
    """
    if is_of_one_value(array):
        return {int(array.flat[0]): array.size}
    largest = int(array.max(initial=0))
    if largest > LARGEST_TABLE:
        found: Counter[int] = Counter()
        for (part,) in chunks(array):
            values, each = np.unique(part, return_counts=True)
            found.update(dict(zip(values.tolist(), each.tolist(), strict=True)))
        return dict(sorted(found.items()))
    counts = value_counts(array, largest + 1)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def value_counts(array: NDArray[Any], count: int) -> NDArray[np.int64]:
    """`(count,)` numbers of voxels with the values 0 … count - 1; larger values are not counted.

    A part at a time, because `np.bincount` copies its input to 8 bytes a voxel.

    Args:
        array: Whole numbers from 0, of any shape.
        count: Number of values.
    """
    counts = np.zeros(count, dtype=np.int64)
    for (part,) in chunks(array):
        counts += np.bincount(part, minlength=count)[:count]
    return counts


def values_in(array: NDArray[Any]) -> set[int]:
    """The values above 0 that a mask of unsigned integers contains.

    Example:
        >>> values_in(np.array([0, 7, 2, 7], dtype=np.uint8))
        {2, 7}
    """
    return set(label_counts(array)) - {0}


def numbers_text(values: Iterable[float]) -> str:
    """The first few of some numbers, for a message.

    Example:
        >>> numbers_text([1, 2.5, 614454277])
        '1, 2.5, 614454277'
    """
    return listed(
        f"{value:.10g}" if -1e10 < value < 1e10 and value == int(value) else f"{value:.6g}" for value in values
    )


def _not_whole(array: NDArray[Any], rounding: float) -> NDArray[Any]:
    strange = array[~(np.abs(array - np.rint(array)) <= rounding)]
    return np.unique(strange[:1_000_000])
