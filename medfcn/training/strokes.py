"""Strokes of partly labelled references, and whether they lie in one component of a mask.

Nobody says there what is no organ, so no Dice tells of an island that it is wrong. Strokes tell: if those that a mask
finds lie in one of its components, the others are where nobody labelled anything. Of an organ of several components
(two kidneys) one would have only some of them.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from medfcn.labels import IGNORED
from medfcn.training.one_component import ONE_COMPONENT_CASES

_STROKES_SHARE = 0.95
"""Strokes lie in one component of a mask if it has this share of those that the mask finds."""


def share_held(
    reference: NDArray[np.uint8], indices: NDArray[np.uint8], kept: NDArray[np.uint8], label: int | None = None
) -> float:
    """The share of the rightly labelled voxels that are still so in what is kept of a mask; nan without any.

    Args:
        reference: Indices of labels, and `IGNORED`.
        indices: The mask.
        kept: What is kept of it.
        label: The index of a label; None for all of them.

    Example:
        >>> drawn, mask, kept = (np.array(row, np.uint8) for row in ([1, 1, 2, 255], [1, 1, 2, 2], [1, 0, 2, 0]))
        >>> share_held(drawn, mask, kept, 1), round(share_held(drawn, mask, kept), 3)
        (0.5, 0.667)
    """
    is_label = (reference > 0) & (reference != IGNORED) if label is None else reference == label
    right = is_label & (indices == reference)
    count = int(np.count_nonzero(right))
    return int(np.count_nonzero(right & (kept == reference))) / count if count else math.nan


def are_strokes_held(shares: Iterable[float]) -> bool:
    """True if the strokes that masks find lie in one component of each, in nearly all cases.

    Args:
        shares: Of each case, as `share_held`.
    """
    known = [share for share in shares if not math.isnan(share)]
    held = sum(share >= _STROKES_SHARE for share in known)
    return bool(known) and held >= ONE_COMPONENT_CASES * len(known)
