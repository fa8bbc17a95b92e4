"""Arithmetic of grids: spacing, orientation and position of voxels, from an affine.

An affine is a `(4, 4)` matrix that takes voxel indices `(i, j, k, 1)` to RAS+ millimetres. Nothing here
opens a file.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from medfcn.errors import GeometryError

Affine = NDArray[np.float64]
Spacing = tuple[float, float, float]
Shape = tuple[int, int, int]

SAME_GRID_VOXELS = 0.05
"""Below this displacement of any corner, an image and a label are on the same grid."""
NEAR_GRID_VOXELS = 0.5
"""Below this they are accepted and the displacement is recorded; from here on they are refused."""

ASSUMED_DIRECTIONS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""To RAS+ from the directions that are assumed where a file states none: left, back, head (LPS).

nibabel takes LAS for such a NIfTI file, ITK takes LPS for every format: both let i run to the left.
"""

FARTHEST_MM, SHORTEST_MM = 1e8, 1e-9
"""No volume is larger or farther away than this (100 km), and none has shorter voxel edges."""

_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


def checked_affine(affine: object, *, field: str = "affine") -> Affine:
    """A `(4, 4)` float64 copy of `affine`, if it can be a grid's.

    Args:
        affine: Anything that numpy can turn into a matrix.
        field: Its name in a message, such as the header field it was read from.

    Raises:
        GeometryError: Its shape is not `(4, 4)`, it is not finite, its last row is not `0 0 0 1`, or its
            voxels have no volume.
    """
    try:
        matrix = np.array(affine, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GeometryError(f"{field} is not a matrix of numbers; give a (4, 4) array", field=field) from error
    if matrix.shape != (4, 4):
        found = f"has shape {matrix.shape}; expected (4, 4)"
    elif not np.isfinite(matrix).all():
        found = "contains NaN or infinity; re-export the volume"
    elif np.abs(matrix).max() > FARTHEST_MM:
        found = f"contains {np.abs(matrix).max():.3g}, more than {FARTHEST_MM:g}; re-export the volume"
    elif not np.array_equal(matrix[3], [0.0, 0.0, 0.0, 1.0]):
        found = f"has the last row {matrix[3].tolist()}; expected [0, 0, 0, 1]"
    elif min(edges := spacing_mm(matrix)) < SHORTEST_MM or abs(np.linalg.det(matrix[:3, :3] / edges)) <= 1e-4:
        # The determinant of the three directions is the volume of a voxel with edges of length 1: 0 for a flat one.
        lengths = ", ".join(f"{edge:.4g}" for edge in edges)
        found = f"has axes of lengths ({lengths}) mm that span no volume; re-export the volume"
    else:
        return matrix
    raise GeometryError(f"{field} {found}", field=field)


def spacing_mm(affine: Affine) -> Spacing:
    """Voxel edge lengths along `i`, `j`, `k`, in millimetres.

    Example:
        >>> spacing_mm(np.diag([-1.0, 1.0, 2.5, 1.0]))
        (1.0, 1.0, 2.5)
    """
    lengths = np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))
    return float(lengths[0]), float(lengths[1]), float(lengths[2])


def orientation_of(affine: Affine) -> str:
    """Where the axes `i`, `j`, `k` mostly point, as three letters of R/L, A/P, S/I.

    Each axis gets another letter pair: the assignment with the largest sum of squared direction cosines,
    which stays the same when the axes are re-ordered, however oblique they are.

    Example:
        >>> orientation_of(np.diag([-1.0, 1.0, 2.5, 1.0]))
        'LAS'
    """
    world_axes, signs = axis_assignment(affine)
    return "".join(_LETTERS[world][sign > 0] for world, sign in zip(world_axes, signs, strict=True))


def directions_text(affine: Affine) -> str:
    """In words, where the axes `i`, `j`, `k` mostly point in the patient.

    Example:
        >>> directions_text(np.diag([-1.0, 1.0, 2.5, 1.0]))
        'i runs to the left, j to the front, k to the head'
    """
    names = dict(zip("LRPAIS", ("left", "right", "back", "front", "feet", "head"), strict=True))
    i, j, k = (names[letter] for letter in orientation_of(affine))
    return f"i runs to the {i}, j to the {j}, k to the {k}"


def axis_assignment(affine: Affine) -> tuple[Shape, Shape]:
    """For each voxel axis the world axis it mostly runs along (0, 1, 2: x, y, z), and its sign (1 or -1).

    Example:
        >>> axis_assignment(np.array([[0, 0, 2.0, 0], [-1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]]))
        ((1, 2, 0), (-1, 1, 1))
    """
    cosines = _cosines(affine)
    best: tuple[float, Shape] = (-1.0, (0, 1, 2))
    for world in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        # Rounded, so that an exact tie (45 degrees) is not decided by the last bit.
        fit = round(float(sum(cosines[world[axis], axis] ** 2 for axis in range(3))), 9)
        if fit > best[0]:
            best = fit, world
    signs = [1 if cosines[best[1][axis], axis] >= 0 else -1 for axis in range(3)]
    return best[1], (signs[0], signs[1], signs[2])


def axis_order(grid: Affine, affine: Affine) -> tuple[Shape, Shape]:
    """For each voxel axis of `grid` the axis of `affine` that runs along it, and its sign (1 or -1).

    Example:
        >>> axis_order(np.eye(4), np.array([[0, 0, 2.0, 0], [-1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]]))
        ((2, 0, 1), (1, -1, 1))
    """
    # Seen from the grid, the columns of `affine` are along the axes i, j, k, as those of an affine along x, y, z.
    seen = np.eye(4)
    seen[:3, :3] = np.linalg.solve(np.asarray(grid, dtype=np.float64)[:3, :3], np.asarray(affine)[:3, :3])
    along, signs = axis_assignment(seen)
    order = (along.index(0), along.index(1), along.index(2))
    return order, (signs[order[0]], signs[order[1]], signs[order[2]])


def _cosines(affine: Affine) -> NDArray[np.float64]:
    """Direction cosines, `(3, 3)`: one column of length 1 for each voxel axis."""
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    cosines: NDArray[np.float64] = matrix / np.sqrt((matrix**2).sum(axis=0))
    return cosines


def is_oblique(affine: Affine, *, tolerance: float = 1e-4) -> bool:
    """True if any voxel axis leaves its world axis by more than `tolerance` (a sine; 1e-4 is 0.006 degrees).

    Example:
        >>> is_oblique(np.diag([-1.0, 1.0, 2.5, 1.0]))
        False
    """
    cosines = np.abs(_cosines(affine))
    world, _ = axis_assignment(affine)
    for axis in range(3):
        cosines[world[axis], axis] = 0.0
    return bool(cosines.max() > tolerance)


def is_sheared(affine: Affine, *, tolerance: float = 1e-4) -> bool:
    """True if two voxel axes are not at right angles, by more than `tolerance` (a cosine).

    Example:
        >>> sheared = np.eye(4)
        >>> sheared[0, 1] = 0.2
        >>> is_sheared(sheared), is_sheared(np.eye(4))
        (True, False)
    """
    cosines = _cosines(affine)
    return bool(np.abs(cosines.T @ cosines - np.eye(3)).max() > tolerance)


def corner_displacement_mm(affine_a: Affine, affine_b: Affine, shape: tuple[int, ...]) -> float:
    """Largest distance between the positions of a corner voxel under two affines, in millimetres.

    The map between two affines is affine, so no voxel inside moves farther than the farthest corner.

    Example:
        >>> moved = np.eye(4)
        >>> moved[:3, 3] = 3.0, 4.0, 0.0
        >>> corner_displacement_mm(np.eye(4), moved, (10, 10, 10))
        5.0
    """
    return float(np.linalg.norm(_corner_shift(affine_a, affine_b, shape), axis=0).max())


def corner_displacement_voxels(affine_a: Affine, affine_b: Affine, shape: tuple[int, ...]) -> float:
    """The same in voxels of `affine_a`: the length of the displacement along its axes, in voxel edges.

    Example:
        >>> moved = np.eye(4)
        >>> moved[2, 3] = 1.0
        >>> corner_displacement_voxels(np.diag([1.0, 1.0, 4.0, 1.0]), np.diag([1.0, 1.0, 4.0, 1.0]) + moved
        ...     - np.eye(4), (10, 10, 10))
        0.25
    """
    shift = _corner_shift(affine_a, affine_b, shape)
    edges = np.linalg.solve(np.asarray(affine_a, dtype=np.float64)[:3, :3], shift)
    return float(np.linalg.norm(edges, axis=0).max())


def _corner_shift(affine_a: Affine, affine_b: Affine, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Displacements of the eight corner voxels between two affines, `(3, 8)`, in millimetres."""
    corners = np.array([[*corner, 1.0] for corner in product(*((0.0, max(size - 1.0, 0.0)) for size in shape))]).T
    difference = np.asarray(affine_b, dtype=np.float64) - np.asarray(affine_a, dtype=np.float64)
    shift: NDArray[np.float64] = (difference @ corners)[:3]
    return shift
