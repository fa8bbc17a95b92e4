"""Masks that are images: files that were given in the place of masks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import MedfcnError

MANY_VALUES = 60
"""A mask with more values than this may be an image."""
NOT_WHOLE = "voxels"
"""The field of an error about voxels that are those of an image or a probability."""
_DIFFERING = 0.5


def is_image(array: NDArray[Any], values: int) -> bool:
    """True if an array of whole numbers changes from voxel to voxel, as images do and labels do not.

    Args:
        array: `(I, J, K)`.
        values: Number of values in it; no more than `MANY_VALUES` are labels.

    Example:
        >>> ramp = np.arange(1000, dtype=np.uint16).reshape(10, 10, 10)
        >>> is_image(ramp, 1000), is_image(np.repeat(ramp, 20, axis=2), 1000), is_image(ramp, 60)
        (True, False, False)
    """
    if values <= MANY_VALUES:
        return False
    inside = differing = 0
    for plane in np.moveaxis(array, int(np.argmax(array.strides)), 0):
        for first, second in ((plane[1:], plane[:-1]), (plane[:, 1:], plane[:, :-1])):
            both = (first != 0) & (second != 0)
            inside += int(np.count_nonzero(both))
            differing += int(np.count_nonzero(both & (first != second)))
    return differing > _DIFFERING * inside


def is_no_mask(error: MedfcnError | None) -> bool:
    """True if an error says that a file has the voxels of an image or a probability."""
    return error is not None and error.code == "LABEL_VALUES" and error.field == NOT_WHOLE
