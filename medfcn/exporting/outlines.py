"""The outlines of a mask's slice as contours that readers of RTSTRUCT fill to the same voxels.

Readers differ in what they do on an edge: plastimatch fills what is inside, rt-utils and others also what is touched,
and some fill a hole that is a contour of its own. Outlines 0.49 voxels outside the centres of the outer voxels, with
each hole joined to its outer outline, are filled alike by all of them.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

OUTSIDE = 0.49
"""Distance of an outline from the centres of the voxels at it, in voxels."""
_Point = tuple[float, float]
_Corner = tuple[int, int]
_LEFT = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}
_BRIDGE = 0.25


def outlines(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """One closed outline for each component of a mask, its holes joined to it.

    Args:
        mask: `(I, J)`; components touch at edges.

    Yields:
        `(points, 2)` coordinates in voxels; the centre of the first voxel is (0, 0).

    Example:
        >>> square = np.zeros((4, 4), dtype=bool)
        >>> square[1:3, 1:3] = True
        >>> [outline.tolist() for outline in outlines(square)]
        [[[0.51, 0.51], [2.49, 0.51], [2.49, 2.49], [0.51, 2.49]]]
    """
    numbered, count = ndimage.label(mask)
    for number, box in enumerate(ndimage.find_objects(numbered, count), start=1):
        loops = list(_loops(numbered[box] == number))
        outer = max(loops, key=_area)
        holes = sorted((loop for loop in loops if loop is not outer), key=lambda loop: min(loop))
        for hole in holes:
            outer = _joined(outer, hole)
        yield np.array(outer) + [part.start for part in box]


def _loops(mask: NDArray[np.bool_]) -> Iterator[list[_Point]]:
    """The loops around the voxels of one component: the outer one to the left, holes to the right."""
    steps = _edges(mask)
    while steps:
        here = next(iter(steps))
        direction = next(iter(steps[here]))
        corners: list[tuple[_Corner, _Corner]] = []
        while direction in steps.get(here, ()):
            steps[here].remove(direction)
            if not steps[here]:
                del steps[here]
            corners.append((here, direction))
            here = here[0] + direction[0], here[1] + direction[1]
            choices = steps.get(here, set())
            # To the left at a corner where two voxels touch: on around the same voxel.
            left = _LEFT[direction]
            direction = left if left in choices or not choices else next(iter(choices))
        yield _moved_in(corners)


def _edges(mask: NDArray[np.bool_]) -> dict[_Corner, set[_Corner]]:
    """From each corner of voxels, the steps along the edge of the mask that have it on their left."""
    padded = np.pad(mask, 1)
    core = padded[1:-1, 1:-1]
    sides = (
        (padded[1:-1, :-2], (0, 0), (1, 0)),
        (padded[2:, 1:-1], (1, 0), (0, 1)),
        (padded[1:-1, 2:], (1, 1), (-1, 0)),
        (padded[:-2, 1:-1], (0, 1), (0, -1)),
    )
    steps: dict[_Corner, set[_Corner]] = {}
    for neighbour, corner, direction in sides:
        for i, j in np.argwhere(core & ~neighbour):
            steps.setdefault((int(i) + corner[0], int(j) + corner[1]), set()).add(direction)
    return steps


def _moved_in(corners: list[tuple[_Corner, _Corner]]) -> list[_Point]:
    """The corners at which a loop turns, moved towards the voxels on its left."""
    inset = 0.5 - OUTSIDE
    points = []
    for (corner, direction), (_, before) in zip(corners, [corners[-1], *corners[:-1]], strict=True):
        if direction != before:
            aside = [_LEFT[direction][axis] + _LEFT[before][axis] for axis in (0, 1)]
            points.append(tuple(round(corner[axis] - 0.5 + inset * aside[axis], 6) for axis in (0, 1)))
    return [(float(x), float(y)) for x, y in points]


def _area(loop: list[_Point]) -> float:
    """Twice the area of a loop; negative if it runs to the right."""
    points = np.array(loop)
    following = np.roll(points, -1, axis=0)
    return float((points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]).sum())


def _joined(outer: list[_Point], hole: list[_Point]) -> list[_Point]:
    """An outline with a hole joined to it by a line there and back, which passes no voxel's centre.

    The line goes from the left edge of the hole against the first axis to the nearest edge.
    """
    edges = list(zip(hole, [*hole[1:], hole[0]], strict=True))
    leftmost = min(edge[0][0] for edge in edges)
    at = next(place for place, (a, b) in enumerate(edges) if a[0] == b[0] == leftmost)
    low = min(edges[at][0][1], edges[at][1][1])
    level = round(low + _BRIDGE, 6)
    there = (leftmost, level)
    best, place = -np.inf, 0
    for index, (a, b) in enumerate(zip(outer, [*outer[1:], outer[0]], strict=True)):
        if a[0] == b[0] and best < a[0] < leftmost and min(a[1], b[1]) < level < max(a[1], b[1]):
            best, place = a[0], index
    here = (float(best), level)
    around = [there, *hole[at + 1 :], *hole[: at + 1], there]
    return [*outer[: place + 1], here, *around, here, *outer[place + 1 :]]
