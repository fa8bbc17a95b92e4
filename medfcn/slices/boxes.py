"""The boxes around the labels of a mask."""

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]

_FEW_VALUES = 1 << 21
"""Voxels times labels that are looked through without a library, whose import takes 0.17 s of CPU time."""


def boxes_of(indices: NDArray[np.uint8], most: int = 255) -> dict[int, Box]:
    """The box around the voxels of each index from 1 that a mask has any of.

    Args:
        indices: Of any shape.
        most: Larger ones are left out.

    Example:
        >>> boxes_of(np.array([[0, 2, 2], [0, 0, 2]], dtype=np.uint8))
        {2: (slice(0, 2, None), slice(1, 3, None))}
    """
    counts = np.zeros(1, dtype=np.intp)
    if indices.size <= _FEW_VALUES:
        counts = np.bincount(indices.reshape(-1), minlength=1)[: most + 1]
    present = (np.flatnonzero(counts[1:]) + 1).tolist()
    if indices.size * max(1, len(present)) <= _FEW_VALUES:
        return {index: _box_of(indices == index) for index in present}
    from scipy.ndimage import find_objects

    found = enumerate(find_objects(indices, max_label=most), start=1)
    return {index: box for index, box in found if box is not None}


def _box_of(mask: NDArray[np.bool_]) -> Box:
    """The box around the voxels of a mask, which has some."""
    axes = range(mask.ndim)
    along = [np.flatnonzero(mask.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    return tuple(slice(int(places[0]), int(places[-1]) + 1) for places in along)
