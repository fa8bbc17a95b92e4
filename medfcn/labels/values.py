"""Stored mask values and label indices: the way from one to the other and back."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.labels.label_map import LabelMap
from medfcn.volumes import Volume

Bytes = NDArray[np.uint8]

# What one step of a pass over a volume works on: small enough to stay in a second-level cache.
CHUNK_VOXELS = 1 << 19


def values_of(mask: NDArray[Any]) -> set[int]:
    """The values above 0 that a mask of unsigned whole numbers holds.

    Example:
        >>> values_of(np.array([0, 7, 2, 7], dtype=np.uint8))
        {2, 7}
    """
    flat = mask.ravel(order="K")
    counts = np.zeros(int(flat.max(initial=0)) + 1, dtype=np.int64)
    # numpy counts 64-bit copies; in chunks they stay small.
    for start in range(0, flat.size, CHUNK_VOXELS):
        counts += np.bincount(flat[start : start + CHUNK_VOXELS], minlength=counts.size)
    return {int(value) for value in np.flatnonzero(counts) if value != 0}


def places_of(mask: NDArray[Any], places: Mapping[int, int]) -> Bytes:
    """A mask's values replaced by labels' places; values that have none become 0.

    Args:
        mask: Unsigned whole numbers.
        places: From value to place, 1 to 255.

    Returns:
        `uint8` of the same shape, in the same memory order.

    Example:
        >>> places_of(np.array([0, 7, 2], dtype=np.uint8), {2: 1, 7: 2})
        array([0, 2, 1], dtype=uint8)
    """
    table = np.zeros(max(int(mask.max(initial=0)), *places, 0) + 1, dtype=np.uint8)
    for value, place in places.items():
        table[value] = place
    result = np.empty_like(mask, dtype=np.uint8)
    source, target = mask.ravel(order="K"), result.ravel(order="K")
    for start in range(0, source.size, CHUNK_VOXELS):
        target[start : start + CHUNK_VOXELS] = table[source[start : start + CHUNK_VOXELS]]
    return result


def is_any_of(mask: NDArray[Any], values: Iterable[int]) -> NDArray[np.bool_]:
    """Where a mask of unsigned whole numbers has one of some values, in the same memory order.

    Example:
        >>> is_any_of(np.array([0, 7, 2], dtype=np.uint8), [2, 3])
        array([False, False,  True])
    """
    return places_of(mask, dict.fromkeys(values, 1)).view(np.bool_)


def parts_of_labels(labels: LabelMap) -> list[list[int]]:
    """The places in `labels.parts` of each label's parts."""
    return [
        [place for place, part in enumerate(labels.parts, start=1) if label in part.labels]
        for label in range(1, len(labels.entries) + 1)
    ]


def written_values(labels: LabelMap) -> dict[int, int]:
    """What the values of a mask that medfcn wrote stand for: places in `labels.parts`, from 1."""
    return {part.written: place for place, part in enumerate(labels.parts, start=1)}


def original_values(labels: LabelMap) -> dict[int, int]:
    """What the values of a reference stand for: places in `labels.parts`, from 1."""
    return {value: place for place, part in enumerate(labels.parts, start=1) for value in part.values}


def positions_of(mask: Volume, labels: LabelMap) -> NDArray[np.uint8]:
    """A mask of written values as positions of the labels, or parts."""
    positions = np.zeros(mask.shape, dtype=np.uint8)
    for position, part in enumerate(labels.parts, start=1):
        positions[mask.array == part.written] = position
    return positions
