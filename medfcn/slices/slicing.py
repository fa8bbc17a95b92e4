"""Cut a volume's array into 2D slices along a view, and stack them again.

`slice_volume` and `stack_slices` are exact inverses for every shape and view.

Example:
    >>> array = np.arange(24.0).reshape(1, 2, 3, 4)
    >>> slice_volume(array, "axial").shape
    (4, 1, 2, 3)
    >>> bool((stack_slices(slice_volume(array, "coronal"), "coronal") == array).all())
    True
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.settings import View

VIEW_AXIS: dict[View, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The network-grid axis (R, A, S) that the slices of a view are stacked along."""


def in_plane_axes(view: View) -> tuple[int, int]:
    """The network-grid axes (0 is R, 1 is A, 2 is S) that run along H and W of a view's slices.

    Example:
        >>> in_plane_axes("coronal")
        (0, 2)
    """
    first, second = (axis for axis in range(3) if axis != VIEW_AXIS[view])
    return first, second


def slice_volume(array: NDArray[Any], view: View) -> NDArray[Any]:
    """Cut a volume into slices.

    Args:
        array: `(C, R, A, S)` on the network grid.
        view: The plane of the slices.

    Returns:
        `(N, C, H, W)`, contiguous: N slices along the view's axis; H and W are the other two, in R, A, S order.
    """
    return np.ascontiguousarray(np.moveaxis(array, 1 + VIEW_AXIS[view], 0))


def stack_slices(slices: NDArray[Any], view: View) -> NDArray[Any]:
    """Stack slices to a volume, the inverse of `slice_volume`.

    Args:
        slices: `(N, C, H, W)`.
        view: The plane they were cut along.

    Returns:
        `(C, R, A, S)`.
    """
    return np.moveaxis(slices, 0, 1 + VIEW_AXIS[view])


def neighbours(index: NDArray[np.intp], count: int, context: int) -> NDArray[np.intp]:
    """The numbers of the slices that a network sees for each slice: itself and those around it.

    At the ends of the volume the outermost slice is repeated.

    Args:
        index: `(B,)` slice numbers.
        count: Slices in the volume.
        context: Slices seen at once, odd.

    Returns:
        `(B, context)` slice numbers, in order.

    Example:
        >>> neighbours(np.array([0, 2, 4]), count=5, context=3).tolist()
        [[0, 0, 1], [1, 2, 3], [3, 4, 4]]
    """
    offsets = np.arange(context) - context // 2
    return np.asarray(np.clip(index[:, None] + offsets, 0, count - 1), dtype=np.intp)


def spread(count: int, apart: int) -> NDArray[np.intp]:
    """The numbers of some slices, spread evenly from the first to the last.

    Args:
        count: Slices in the volume, at least one.
        apart: The most slices from one of them to the next.

    Returns:
        `(N,)` slice numbers, in order; all of them for 1.

    Example:
        >>> spread(9, 1).tolist(), spread(9, 3).tolist(), spread(1, 3).tolist()
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 3, 5, 8], [0])
    """
    gaps = -(-(count - 1) // apart)
    return np.array([round(place * (count - 1) / max(gaps, 1)) for place in range(gaps + 1)], dtype=np.intp)


def margin_before(size: int, window: int) -> int:
    """Pixels of a window before a smaller slice in its middle, along one edge.

    Example:
        >>> margin_before(35, 40), margin_before(50, 40)
        (2, 0)
    """
    return max(window - size, 0) // 2
