"""The connected components of a mask."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def largest_share(mask: NDArray[np.bool_]) -> float:
    """The share of a mask's voxels that is in its largest component; nan for an empty mask.

    Example:
        >>> mask = np.zeros((1, 1, 6), dtype=bool)
        >>> mask[..., :3] = mask[..., 5] = True
        >>> largest_share(mask)
        0.75
    """
    if not mask.any():
        return float("nan")
    _, _, sizes = _components(mask)
    return float(sizes.max() / sizes.sum())


def keep_largest(indices: NDArray[np.uint8], labels: tuple[int, ...]) -> NDArray[np.uint8]:
    """Remove all but the largest component of some labels.

    Components of equal size are all kept: which of them comes first would depend on how the file orders its axes.

    Args:
        indices: `(I, J, K)`: 0 for background, k for the k-th label.
        labels: The indices of these labels.

    Returns:
        `(I, J, K)`, a copy.
    """
    kept = indices.copy()
    for index in labels:
        mask = indices == index
        if mask.any():
            box, numbers, sizes = _components(mask)
            smaller = np.flatnonzero(sizes < sizes.max()) + 1
            kept[box][np.isin(numbers, smaller)] = 0
    return kept


def _components(mask: NDArray[np.bool_]) -> tuple[tuple[slice, ...], NDArray[Any], NDArray[np.intp]]:
    """Number the components of a mask that is not empty; voxels that share a face are connected.

    Returns:
        The box around the mask; in it the component number of each voxel, from 1, and 0 outside of the mask; and the
        voxels of each component, those of component k at k - 1.
    """
    from skimage.measure import label

    box = tuple(slice(int(index.min()), int(index.max()) + 1) for index in np.nonzero(mask))
    numbers = label(mask[box], connectivity=1)  # type: ignore[no-untyped-call]
    return box, numbers, np.bincount(numbers.reshape(-1))[1:]
