"""From each boundary point of one mask to the nearest of another, exactly, and by the cheapest way there is.

1. Points that lie on both boundaries are at distance 0.
2. Most others have their neighbour within a few voxels: the steps to lattice neighbours are tried in order of
   their length, so the first hit is the nearest.
3. The rest asks a KD-tree; where very many remain in a large box (noise, a filled volume), a Euclidean
   feature transform of the box is cheaper.

Every way ends in the same arithmetic: the length of a whole number of voxel steps.
"""

from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

from medfcn.evaluation.boundary import BoundaryPoints
from medfcn.evaluation.masks import edge_lengths

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]

# Steps of up to this many voxels along each axis are tried before a tree is built.
_REACH = 3
# A step costs much the same for few points as for many; below this a tree alone is faster.
_FEW_POINTS = 400
# The feature transform pays in boxes above the first number, when more than one in the second is still asked
# for.
_TRANSFORM_BOX, _TRANSFORM_SHARE = 200_000, 50


def nearest_mm(first: BoundaryPoints, second: BoundaryPoints, grid: Vector) -> tuple[Vector, Vector]:
    """Distances from each point of either set to the nearest of the other.

    Args:
        first: Points on a lattice.
        second: Points on the same lattice.
        grid: `(n, n)` matrix from lattice steps to millimetres.

    Returns:
        One distance for each point of `first`, and of `second`; all `inf` where the other set is empty.
    """
    if not (first.positions.size and second.positions.size):
        return np.full(first.positions.size, np.inf), np.full(second.positions.size, np.inf)
    first_alone, second_alone = _unshared(first.positions, second.positions)
    first_mm, second_mm = np.zeros(first.positions.size), np.zeros(second.positions.size)
    edges_mm = edge_lengths(grid)
    for points, alone, others, distances in (
        (first, first_alone, second, first_mm),
        (second, second_alone, first, second_mm),
    ):
        if alone.any():
            distances[alone] = _search(points.indices(alone), others.indices(), grid, edges_mm)
    return first_mm, second_mm


def _unshared(first: Indices, second: Indices) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the ascending positions are not in the other set."""
    place = np.searchsorted(second, first)
    place[place == second.size] = 0
    first_alone = second[place] != first
    second_alone = np.ones(second.size, dtype=bool)
    second_alone[place[~first_alone]] = False
    return first_alone, second_alone


def _search(points: Indices, others: Indices, grid: Vector, edges_mm: tuple[float, ...] | None) -> Vector:
    """Distance from each of `points` to the nearest of `others`."""
    if edges_mm is None:
        return _by_tree(points, others, grid)
    distances = np.empty(len(points))
    pending = np.arange(len(points))
    if len(points) > _FEW_POINTS:
        pending = _by_steps(points, others, edges_mm, distances)
    if pending.size:
        rest = points[pending]
        low, high = np.minimum(rest.min(0), others.min(0)), np.maximum(rest.max(0), others.max(0))
        box = int(np.prod(high - low + 1))
        if box > _TRANSFORM_BOX and pending.size * _TRANSFORM_SHARE > box:
            distances[pending] = _by_transform(rest - low, others - low, tuple(high - low + 1), edges_mm)
        else:
            distances[pending] = _by_tree(rest, others, np.diag(edges_mm))
    return distances


def _by_steps(points: Indices, others: Indices, edges_mm: tuple[float, ...], distances: Vector) -> Indices:
    """Fill in the distances within reach; the numbers of the points that have none come back."""
    low = np.minimum(points.min(0), others.min(0)) - _REACH
    shape = np.maximum(points.max(0), others.max(0)) + _REACH + 1 - low
    strides = np.append(np.cumprod(shape[:0:-1])[::-1], 1)
    is_other = np.zeros(int(np.prod(shape)), dtype=bool)
    is_other[(others - low) @ strides] = True
    places = (points - low) @ strides
    pending = np.arange(len(points))
    steps, lengths_mm = _neighbour_steps(edges_mm)
    for step, length_mm in zip((steps @ strides).tolist(), lengths_mm.tolist(), strict=True):
        hit = is_other.take(places + step)
        if hit.any():
            distances[pending[hit]] = length_mm
            np.logical_not(hit, out=hit)
            places, pending = places[hit], pending[hit]
            if places.size < _FEW_POINTS:
                break
    return pending


@lru_cache(maxsize=64)
def _neighbour_steps(edges_mm: tuple[float, ...]) -> tuple[Indices, Vector]:
    """Steps to lattice neighbours, shortest first, as far as no shorter step lies out of reach."""
    steps = np.array(list(product(range(-_REACH, _REACH + 1), repeat=len(edges_mm))))
    lengths_mm = _lengths(steps, np.diag(edges_mm))
    within = (lengths_mm > 0) & (lengths_mm < (_REACH + 1) * min(edges_mm))
    order = np.argsort(lengths_mm[within], kind="stable")
    return steps[within][order], lengths_mm[within][order]


def _by_tree(points: Indices, others: Indices, grid: Vector) -> Vector:
    tree = KDTree(others @ grid.T, balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(points @ grid.T)
    return _lengths(points - others[nearest], grid)


def _by_transform(points: Indices, others: Indices, shape: tuple[int, ...], edges_mm: tuple[float, ...]) -> Vector:
    elsewhere = np.ones(shape, dtype=bool)
    elsewhere[tuple(others.T)] = False
    features = distance_transform_edt(elsewhere, sampling=edges_mm, return_distances=False, return_indices=True)
    at = tuple(points.T)
    nearest = np.stack([axis[at] for axis in features], axis=1)
    return _lengths(points - nearest, np.diag(edges_mm))


def _lengths(steps: Indices, grid: Vector) -> Vector:
    """Lengths in mm of `(n, dimensions)` lattice steps."""
    moved = steps @ grid.T
    squares: Vector = np.einsum("ij,ij->i", moved, moved)
    return np.sqrt(squares)
