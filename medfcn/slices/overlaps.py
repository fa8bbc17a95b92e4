"""Labels that overlap, on the way between grids: from each label's own share or probability to the best overlap.

An overlap is a combination of labels that can hold together; `members`, `(A + 1, L)` bool, says which labels those
are in the background (row 0, none) and in overlaps 1 to A.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medfcn.labels import IGNORED
from medfcn.slices.grid import GridMap, to_native_grid, to_network_grid


def best_overlap(evidence: NDArray[np.float32], members: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The overlap with the largest sum of its labels' evidence; that of the background is 0, ties go to the earlier.

    If the labels with evidence above 0 make an overlap, it is that one.

    Args:
        evidence: `(L, ...)`, positive for a label and negative against it.
        members: `(A + 1, L)`.

    Returns:
        `(...)`, 0 for the background, `k` for the k-th overlap.

    Example:
        For a tumour (first) and its core, a core without a tumour around it is no overlap:

        >>> members = np.array([[False, False], [True, False], [True, True]])
        >>> best_overlap(np.array([[3, 3, -1, -4], [-2, 1, 2, 2]], dtype=np.float32), members).tolist()
        [1, 2, 2, 0]
    """
    best = np.zeros(evidence.shape[1:], dtype=np.float32)
    indices = np.zeros(evidence.shape[1:], dtype=np.uint8)
    for index, labels in enumerate(members[1:], start=1):
        first, *others = np.flatnonzero(labels)
        total = evidence[first].copy()
        for label in others:
            total += evidence[label]
        better = total > best
        best[better] = total[better]
        indices[better] = index
    return indices


def overlaps_to_network(overlaps: NDArray[np.uint8], grid: GridMap, members: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bring overlaps to the network grid: labels by their linearly interpolated shares, then the best overlap.

    If overlaps were interpolated one by one, a thin rim of a label around another would be lost to the background.

    Args:
        overlaps: `(I, J, K)`: 0 for background, `k` for the k-th overlap, `IGNORED`.
        grid: That of the volume.
        members: `(A + 1, L)`.

    Returns:
        `(R, A, S)`, the same; `IGNORED` where more than half of a voxel is.
    """
    shares, known = _shares(overlaps, members, lambda mask: to_network_grid(mask, grid))
    moved = best_overlap(2 * shares - 1, members)
    moved[known < 0.5] = IGNORED
    return moved


def overlaps_to_native(overlaps: NDArray[np.uint8], grid: GridMap, members: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The way back, for a network that predicts exactly these overlaps; ignored voxels are unknown.

    Args:
        overlaps: `(R, A, S)`, as from `overlaps_to_network`.
        grid: That of the volume.
        members: `(A + 1, L)`.

    Returns:
        `(I, J, K)`, without `IGNORED`.
    """
    shares, _ = _shares(overlaps, members, lambda mask: to_native_grid(mask, grid))
    return best_overlap(2 * shares - 1, members)


def _shares(
    overlaps: NDArray[np.uint8],
    members: NDArray[np.bool_],
    resampled: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`(L, ...)` shares of the labels in the known part of each voxel, and `(...)` the share that is known."""
    known = resampled((overlaps != IGNORED).astype(np.float32))
    shares = np.empty((members.shape[1], *known.shape), dtype=np.float32)
    for label, share in enumerate(shares):
        share[...] = resampled(np.isin(overlaps, np.flatnonzero(members[:, label])).astype(np.float32))
    shares /= np.maximum(known, np.finfo(np.float32).eps)
    return shares, known
