"""The connected parts of a mask."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def component_sizes(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Number the connected parts of a mask; voxels that share a face are connected.

    Args:
        mask: `(I, J, K)`.

    Returns:
        `(I, J, K)` part numbers from 1, 0 outside; and the voxels of each part, that of part k at k - 1.
    """
    from skimage.measure import label

    numbers = label(mask, connectivity=1)  # type: ignore[no-untyped-call]
    return numbers, np.bincount(numbers.reshape(-1))[1:]


def largest_share(mask: NDArray[np.bool_]) -> float:
    """The share of a mask's voxels that lie in its largest part; nan for an empty mask.

    Example:
        >>> mask = np.zeros((1, 1, 6), dtype=bool)
        >>> mask[..., :3] = mask[..., 5] = True
        >>> largest_share(mask)
        0.75
    """
    held = np.nonzero(mask)
    if not len(held[0]):
        return float("nan")
    box = tuple(slice(int(index.min()), int(index.max()) + 1) for index in held)
    _, sizes = component_sizes(mask[box])
    return float(sizes.max() / sizes.sum())


def keep_largest(indices: NDArray[np.uint8], labels: tuple[int, ...]) -> NDArray[np.uint8]:
    """Take away all but the largest part of some labels.

    Parts of equal size are all kept: which of them comes first would depend on how the file orders its axes.

    Args:
        indices: `(I, J, K)`: 0 for background, k for the k-th label.
        labels: Which labels, as in `indices`.

    Returns:
        `(I, J, K)`, a copy.
    """
    kept = indices.copy()
    for value in labels:
        held = np.nonzero(indices == value)
        if not len(held[0]):
            continue
        box = tuple(slice(int(index.min()), int(index.max()) + 1) for index in held)
        numbers, sizes = component_sizes(indices[box] == value)
        smaller = np.flatnonzero(sizes < sizes.max()) + 1
        kept[box][np.isin(numbers, smaller)] = 0
    return kept
