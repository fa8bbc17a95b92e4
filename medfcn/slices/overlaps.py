"""Labels that overlap, on the way between grids: from each label's own share or probability to the best part.

A part is a combination of labels that can hold together; `members`, `(A + 1, L)` bool, says which labels those are in
the background (row 0, none) and in parts 1 to A.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medfcn.labels import IGNORED
from medfcn.slices.grid import GridMap, to_native_grid, to_network_grid


def best_part(evidence: NDArray[np.float32], members: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The part whose labels' evidence adds up to most; the background's is 0, and ties go to the earlier.

    Where labels decided one by one (evidence above 0) make a combination that is a part, it is that part.

    Args:
        evidence: `(L, ...)`, positive for a label and negative against it.
        members: `(A + 1, L)`.

    Returns:
        `(...)`, 0 for the background, `k` for the k-th part.

    Example:
        Of a tumour (first) and its core, a core without a tumour around it is no part:

        >>> members = np.array([[False, False], [True, False], [True, True]])
        >>> best_part(np.array([[3, 3, -1, -4], [-2, 1, 2, 2]], dtype=np.float32), members).tolist()
        [1, 2, 2, 0]
    """
    best = np.zeros(evidence.shape[1:], dtype=np.float32)
    positions = np.zeros(evidence.shape[1:], dtype=np.uint8)
    for place, labels in enumerate(members[1:], start=1):
        held = np.flatnonzero(labels)
        total = evidence[held[0]].copy()
        for label in held[1:]:
            total += evidence[label]
        better = total > best
        best[better] = total[better]
        positions[better] = place
    return positions


def parts_to_network(parts: NDArray[np.uint8], grid: GridMap, members: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bring parts to the network grid: labels by their linearly interpolated shares, then the part that fits best.

    Interpolated part by part, a thin rim of a label around another would be lost to the background beside it.

    Args:
        parts: `(I, J, K)`: 0 for background, `k` for the k-th part, `IGNORED`.
        grid: Of the volume.
        members: `(A + 1, L)`.

    Returns:
        `(R, A, S)`, the same; `IGNORED` where more than half of a voxel is.
    """
    shares, known = _shares(parts, members, lambda mask: to_network_grid(mask, grid))
    moved = best_part(2 * shares - 1, members)
    moved[known < 0.5] = IGNORED
    return moved


def parts_to_native(parts: NDArray[np.uint8], grid: GridMap, members: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The way back of a network that finds exactly these parts; what is ignored on the network grid says nothing.

    Args:
        parts: `(R, A, S)`, as from `parts_to_network`.
        grid: Of the volume.
        members: `(A + 1, L)`.

    Returns:
        `(I, J, K)`, without `IGNORED`.
    """
    shares, _ = _shares(parts, members, lambda mask: to_native_grid(mask, grid))
    return best_part(2 * shares - 1, members)


def _shares(
    parts: NDArray[np.uint8],
    members: NDArray[np.bool_],
    resampled: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`(L, ...)` shares of the labels in what is known of each voxel, and the share that is known."""
    known = resampled((parts != IGNORED).astype(np.float32))
    shares = np.empty((members.shape[1], *known.shape), dtype=np.float32)
    for label, share in enumerate(shares):
        share[...] = resampled(np.isin(parts, np.flatnonzero(members[:, label])).astype(np.float32))
    shares /= np.maximum(known, np.finfo(np.float32).eps)
    return shares, known
