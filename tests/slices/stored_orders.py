"""One volume as files may store it: 6 orders of its axes times 8 directions, always the same voxels in the world."""

from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Order = tuple[tuple[int, ...], tuple[bool, ...]]

ORDERS: list[Order] = [
    (permutation, flips) for permutation in permutations(range(3)) for flips in product((False, True), repeat=3)
]


def stored_in(array: NDArray[Any], affine: NDArray[np.float64], order: Order) -> tuple[NDArray[Any], NDArray[Any]]:
    """Array `(..., I, J, K)` and affine of the same volume with its axes in another order and direction."""
    permutation, flips = order
    leading = array.ndim - 3
    moved = np.transpose(array, (*range(leading), *(leading + axis for axis in permutation)))
    back = np.zeros((4, 4))  # from a voxel of the new order to that of the old
    back[3, 3] = 1
    for new, old in enumerate(permutation):
        back[old, new] = -1 if flips[new] else 1
        back[old, 3] = array.shape[leading + old] - 1 if flips[new] else 0
    moved = np.flip(moved, [leading + axis for axis in range(3) if flips[axis]])
    return np.asfortranarray(moved), affine @ back


def restored(array: NDArray[Any], order: Order) -> NDArray[Any]:
    """The inverse of `stored_in` for an array `(I, J, K)`."""
    permutation, flips = order
    return np.transpose(np.flip(array, [axis for axis in range(3) if flips[axis]]), np.argsort(permutation))


def oblique_affine(seed: int, spacing: tuple[float, float, float], *, most_degrees: float = 180.0) -> NDArray[Any]:
    """Voxels of that size, turned about a random axis by up to an angle, somewhere in the world."""
    random = np.random.default_rng(seed)
    axis = random.normal(size=3)
    turn = np.deg2rad(random.uniform(0, most_degrees)) * axis / np.linalg.norm(axis)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(turn).as_matrix() * spacing
    affine[:3, 3] = random.uniform(-90, 90, 3)
    return affine


def positions(shape: tuple[int, ...], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(3, *shape)`: where a matrix takes each voxel of a grid."""
    voxels = np.stack([*np.indices(shape), np.ones(shape)])
    return np.einsum("ij,jabc->iabc", matrix, voxels)[:3]
