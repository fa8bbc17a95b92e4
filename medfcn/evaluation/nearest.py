"""Distance from each boundary point of one mask to the nearest of another: exact, by the cheapest of several ways.

1. Points on both boundaries are at distance 0.
2. Most other points have their neighbour within a few voxels: the steps to lattice neighbours are tried in order of
   their length, so that the first hit is the nearest.
3. The rest is looked up in a KD-tree. Where very many points remain in a large box (noise, a filled volume), a
   Euclidean feature transform of the box is cheaper.

All ways end in the same arithmetic, the length of a whole number of voxel steps, so they give the same number.
scipy is imported where a tree or a transform is needed.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfcn.evaluation.boundary import BoundaryPoints
from medfcn.evaluation.mask_pairs import edge_lengths

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Vector = NDArray[np.float64]
Numbers = NDArray[np.int64]
Points = list[Numbers]
"""Lattice points: their `(n,)` indices along each axis."""

# Steps of up to this many voxels along each axis are tried before a tree is built. They stop when they have taken as
# long as the tree would have, so that the time is at most doubled.
_REACH = 3
# Cost of each way in microseconds, measured on one core; only the ratios matter.
_STEP_COST, _STEP_POINT_COST = 3.0, 0.006
_TREE_COST, _TREE_POINT_COST, _QUERY_COST = 40.0, 0.1, 0.6
_TRANSFORM_VOXEL_COST = 0.09
# A query of the tree takes longer if many points are nearly as near as the nearest (inside a sphere). A sample of
# queries estimates how many there are, if there are enough points for the sample to pay.
_CROWD_COST, _CROWD_REACH = 0.002, 1.5
_SAMPLED, _TOO_FEW_TO_SAMPLE = 32, 1000


def nearest_mm(first: BoundaryPoints, second: BoundaryPoints, grid: Vector) -> tuple[Vector, Vector]:
    """Distances from each point of either set to the nearest of the other.

    Args:
        first: Points on a lattice.
        second: Points on the same lattice.
        grid: `(n, n)` matrix from lattice steps to millimetres.

    Returns:
        `(n,)` and `(m,)` distances of the points of `first`, and of `second`; all `inf` if the other set is empty.
    """
    if not (first.positions.size and second.positions.size):
        return np.full(first.positions.size, np.inf), np.full(second.positions.size, np.inf)
    first_alone, second_alone = _unshared(first.positions, second.positions)
    first_mm, second_mm = np.zeros(first.positions.size), np.zeros(second.positions.size)
    first_points, second_points = first.indices(), second.indices()
    edges_mm = edge_lengths(grid)
    for points, alone, others, distances in (
        (first_points, first_alone, second_points, first_mm),
        (second_points, second_alone, first_points, second_mm),
    ):
        if alone.any():
            distances[alone] = _search([axis[alone] for axis in points], others, grid, edges_mm)
    return first_mm, second_mm


def _unshared(first: Numbers, second: Numbers) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """`(n,)` and `(m,)`: True for ascending positions that are not in the other set."""
    # The place where each position of `first` would be in `second`: it is there if the position there is the same.
    place = np.searchsorted(second, first)
    place[place == second.size] = 0
    first_alone = second[place] != first
    second_alone = np.ones(second.size, dtype=bool)
    second_alone[place[~first_alone]] = False
    return first_alone, second_alone


def _search(points: Points, others: Points, grid: Vector, edges_mm: tuple[float, ...] | None) -> Vector:
    """Distance from each of `points` to the nearest of `others`; on a sheared grid always by a tree."""
    if edges_mm is None:
        return _by_tree(_tree(others, grid), points, others, grid)
    distances = np.empty(points[0].size)
    pending = _by_steps(points, others, edges_mm, distances)
    if pending.size:
        distances[pending] = _search_far([axis[pending] for axis in points], others, edges_mm)
    return distances


def _search_far(points: Points, others: Points, edges_mm: tuple[float, ...]) -> Vector:
    """Distances by a tree or by a transform of the box, whichever is estimated to be cheaper."""
    grid = np.diag(edges_mm)
    low, shape = _box(points, others, margin=0)
    transform_cost = _TRANSFORM_VOXEL_COST * math.prod(shape)
    if transform_cost < _QUERY_COST * points[0].size:
        return _by_transform(points, others, low, shape, edges_mm)
    tree = _tree(others, grid)
    if points[0].size > _TOO_FEW_TO_SAMPLE and transform_cost < _tree_cost(tree, points, grid):
        return _by_transform(points, others, low, shape, edges_mm)
    return _by_tree(tree, points, others, grid)


def _tree_cost(tree: "cKDTree", points: Points, grid: Vector) -> float:
    """Estimated cost of looking up all points in the tree, from a sample of them."""
    step = points[0].size // _SAMPLED
    sample = np.stack([axis[::step] for axis in points], axis=1) @ grid.T
    distances, _ = tree.query(sample)
    crowd = tree.query_ball_point(sample, _CROWD_REACH * distances, return_length=True)
    return points[0].size * (_QUERY_COST + _CROWD_COST * float(np.mean(crowd)))


def _box(points: Points, others: Points, *, margin: int) -> tuple[list[int], list[int]]:
    """Start and shape of the box around all points."""
    lows = [int(min(a.min(), b.min())) - margin for a, b in zip(points, others, strict=True)]
    highs = [int(max(a.max(), b.max())) + margin for a, b in zip(points, others, strict=True)]
    return lows, [high - low + 1 for low, high in zip(lows, highs, strict=True)]


def _places(points: Points, low: Sequence[int], strides: Sequence[int]) -> Numbers:
    """`(n,)` positions of the points in a box that is flattened in C order."""
    places = points[-1] - low[-1]
    for axis, start, stride in zip(points[:-1], low[:-1], strides[:-1], strict=True):
        places += (axis - start) * stride
    return places


def _by_steps(points: Points, others: Points, edges_mm: tuple[float, ...], distances: Vector) -> Numbers:
    """Fill in the distances within reach, and return the numbers of the points without one.

    The box is flat and has a margin of `_REACH` voxels: a step to a neighbour is one addition to the positions of all
    pending points, and never leaves the box.
    """
    low, shape = _box(points, others, margin=_REACH)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    is_other = np.zeros(math.prod(shape), dtype=bool)
    is_other[_places(others, low, strides)] = True
    places = _places(points, low, strides)
    pending = np.arange(places.size)
    tree_cost = _TREE_COST + _TREE_POINT_COST * others[0].size
    spent = 0.0
    steps, lengths_mm = _neighbour_steps(edges_mm)
    for step, length_mm in zip((steps @ strides).tolist(), lengths_mm.tolist(), strict=True):
        spent += _STEP_COST + _STEP_POINT_COST * places.size
        if spent > tree_cost + _QUERY_COST * places.size:
            break
        hit = is_other.take(places + step)
        if hit.any():
            distances[pending[hit]] = length_mm
            np.logical_not(hit, out=hit)
            places, pending = places[hit], pending[hit]
            if not places.size:
                break
    return pending


@lru_cache(maxsize=64)
def _neighbour_steps(edges_mm: tuple[float, ...]) -> tuple[Numbers, Vector]:
    """`(s, axes)` steps to lattice neighbours and their `(s,)` lengths, shortest first.

    Steps at least as long as the shortest one out of reach are left out, so that the first hit is the nearest.
    """
    steps = np.array(list(product(range(-_REACH, _REACH + 1), repeat=len(edges_mm))))
    lengths_mm = _lengths(list(steps.T), np.diag(edges_mm))
    within = (lengths_mm > 0) & (lengths_mm < (_REACH + 1) * min(edges_mm))
    order = np.argsort(lengths_mm[within], kind="stable")
    return steps[within][order], lengths_mm[within][order]


def _tree(others: Points, grid: Vector) -> "cKDTree":
    from scipy.spatial import cKDTree

    # Large leaves are quick to build, and quick to search from far away.
    return cKDTree(np.stack(others, axis=1) @ grid.T, leafsize=32, balanced_tree=False, compact_nodes=False)


def _by_tree(tree: "cKDTree", points: Points, others: Points, grid: Vector) -> Vector:
    _, nearest = tree.query(np.stack(points, axis=1) @ grid.T)
    return _lengths([axis - other[nearest] for axis, other in zip(points, others, strict=True)], grid)


def _by_transform(
    points: Points, others: Points, low: list[int], shape: list[int], edges_mm: tuple[float, ...]
) -> Vector:
    """Distances by a feature transform: for each voxel of the box, the indices of the nearest of `others`."""
    from scipy.ndimage import distance_transform_edt

    is_elsewhere = np.ones(shape, dtype=bool)
    is_elsewhere[tuple(axis - start for axis, start in zip(others, low, strict=True))] = False
    features = distance_transform_edt(is_elsewhere, sampling=edges_mm, return_distances=False, return_indices=True)
    at = tuple(axis - start for axis, start in zip(points, low, strict=True))
    return _lengths([here - axis[at] for here, axis in zip(at, features, strict=True)], np.diag(edges_mm))


def _lengths(steps: Points, grid: Vector) -> Vector:
    """`(n,)` lengths in mm of lattice steps."""
    if np.count_nonzero(grid) == len(grid):
        moved = [axis * edge for axis, edge in zip(steps, grid.diagonal(), strict=True)]
    else:
        moved = list(grid @ np.stack(steps))
    squares: Vector = moved[0] ** 2
    for axis in moved[1:]:
        squares += axis**2
    return np.sqrt(squares)
