"""Cases of which less than half is labelled: scribbles, or a few slices of many.

What is labelled there is not the organ, only strokes in it or parts of it. So nothing that speaks of the whole organ
(a distance, a volume, a number of components) is taken from such a reference.
"""

import numpy as np
from numpy.typing import NDArray

from medfcn.labels.codec import IGNORED
from medfcn.volumes.formats.stored import is_of_one_value

LEAST_LABELLED = 0.5
"""Share of a case's voxels that must be labelled before it says anything about a whole organ."""


def count_labelled(indices: NDArray[np.uint8]) -> int:
    """Voxels that somebody labelled, as a label or as background."""
    if is_of_one_value(indices):
        return 0 if indices.flat[0] == IGNORED else int(indices.size)
    return int(indices.size) - int(np.count_nonzero(indices == IGNORED))


def is_partly_labelled(labelled: int, voxels: int) -> bool:
    """True if less than half of the voxels are labelled.

    Example:
        >>> is_partly_labelled(49, 100), is_partly_labelled(50, 100)
        (True, False)
    """
    return labelled < LEAST_LABELLED * voxels


def share_text(labelled: int, voxels: int) -> str:
    """The voxels that are labelled, and their share, in words.

    Example:
        >>> share_text(8123, 1234567)
        '8,123 of 1,234,567 voxels (0.66 %)'
    """
    return f"{labelled:,} of {voxels:,} voxels ({100 * labelled / max(voxels, 1):.2g} %)"
