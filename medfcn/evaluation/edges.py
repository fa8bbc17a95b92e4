"""The ends of the volume: how much of a mask's surface lies there.

A mask that the field of view cuts off ends where the volume ends, and so does every prediction of it: there, they
agree whatever the prediction is worth. So the share of such surface is known, and reported where it is large.
"""

import numpy as np
from numpy.typing import NDArray

from medfcn.labels.codec import Bytes

NOTABLE_SHARE = 0.05
"""A larger share of the surface at the end of the volume is reported."""


def voxels_at_ends(mask: Bytes, values: int) -> NDArray[np.int64]:
    """Voxels of each value, 0 to `values`, that lie at an end of the volume; axes of length 1 have no ends.

    Example:
        >>> voxels_at_ends(np.array([[1, 0, 2], [1, 0, 0], [1, 1, 1]], dtype=np.uint8), 2).tolist()
        [2, 5, 1]
    """
    counts = np.zeros(values + 1, dtype=np.int64)
    part = mask
    for axis, length in enumerate(mask.shape):
        if length < 2:
            continue
        before = (slice(None),) * axis
        for end in (0, length - 1):
            counts += np.bincount(part[(*before, end)].reshape(-1), minlength=values + 1)
        # Voxels on an edge of the volume count once.
        part = part[(*before, slice(1, -1))]
    return counts
