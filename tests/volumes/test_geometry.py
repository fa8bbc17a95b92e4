"""Laws of grids."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfcn.errors import GeometryError, GeometryMismatchError
from medfcn.volumes import Volume, orientation_of, require_same_grid, spacing_mm
from medfcn.volumes.formats.nifti_transforms import quaternion_of, rotation_of
from medfcn.volumes.geometry import (
    axis_assignment,
    checked_affine,
    corner_displacement_mm,
    corner_displacement_voxels,
    is_oblique,
    is_sheared,
)

ORIENTATIONS = [
    np.array(
        [[sign * (axis == row) for axis, sign in zip(order, signs, strict=True)] for row in range(3)], dtype=float
    )
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]

angles = st.floats(-np.pi, np.pi)
edges = st.tuples(*[st.floats(0.2, 8.0)] * 3)
offsets = st.tuples(*[st.floats(-500.0, 500.0)] * 3)
shapes = st.tuples(*[st.integers(1, 40)] * 3)


def rotation(a: float, b: float, c: float) -> NDArray[np.float64]:
    def turn(angle: float, i: int, j: int) -> NDArray[np.float64]:
        matrix = np.eye(3)
        matrix[i, i] = matrix[j, j] = np.cos(angle)
        matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
        return matrix

    return turn(a, 0, 1) @ turn(b, 1, 2) @ turn(c, 0, 2)


@st.composite
def affines(draw: st.DrawFn) -> NDArray[np.float64]:
    """Any grid without shear: turned, mirrored, anisotropic."""
    affine = np.eye(4)
    signed = ORIENTATIONS[draw(st.integers(0, 47))]
    affine[:3, :3] = rotation(draw(angles), draw(angles), draw(angles)) @ signed * np.array(draw(edges))
    affine[:3, 3] = draw(offsets)
    return affine


def grid(affine: NDArray[np.float64], shape: tuple[int, int, int], name: str = "case") -> Volume:
    return Volume(np.zeros(shape, dtype=np.uint8), affine, name=name)


@pytest.mark.parametrize("matrix", ORIENTATIONS, ids=lambda matrix: orientation_of(np.pad(matrix, (0, 1)) + 0.0))
def test_each_of_the_48_orientations_has_its_own_letters(matrix: NDArray[np.float64]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = matrix * [1.0, 2.0, 3.0]
    letters = "".join(nibabel.aff2axcodes(affine))
    assert orientation_of(affine) == letters
    assert not is_oblique(affine)
    assert not is_sheared(affine)
    world, signs = axis_assignment(affine)
    for axis in range(3):
        column = np.zeros(3)
        column[world[axis]] = signs[axis]
        np.testing.assert_array_equal(matrix[:, axis], column)


def test_the_48_orientations_are_48() -> None:
    names = {orientation_of(np.pad(matrix, (0, 1)) + np.diag([0, 0, 0, 1.0])) for matrix in ORIENTATIONS}
    assert len(names) == 48


@given(affines(), shapes)
def test_spacing_is_the_length_of_a_step(affine: NDArray[np.float64], shape: tuple[int, int, int]) -> None:
    volume = grid(affine, shape)
    for axis in range(3):
        step = np.linalg.norm(affine[:3, axis])
        assert volume.spacing_mm[axis] == pytest.approx(step)
    assert volume.voxel_ml == pytest.approx(np.prod(volume.spacing_mm) / 1000)
    np.testing.assert_allclose(spacing_mm(affine), nibabel.affines.voxel_sizes(affine))


@given(affines(), st.integers(0, 5), st.tuples(*[st.booleans()] * 3))
def test_letters_follow_the_axes_when_they_are_reordered_and_flipped(
    affine: NDArray[np.float64], order: int, flips: tuple[bool, bool, bool]
) -> None:
    axes = list(permutations(range(3)))[order]
    signs = [-1.0 if flip else 1.0 for flip in flips]
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for new, old in enumerate(axes):
        matrix[old, new] = signs[new]
    opposite = dict(zip("RLAPSI", "LRPAIS", strict=True))
    letters = orientation_of(affine)
    moved = orientation_of(affine @ matrix)
    world = np.abs(affine[:3, :3] / np.array(spacing_mm(affine)))
    if np.sort((world**2).ravel())[-1] - 0.5 < 1e-6:  # a tie between two axes may go either way
        return
    fits = sorted(sum(world[w, a] ** 2 for a, w in enumerate(p)) for p in permutations(range(3)))
    if fits[-1] - fits[-2] < 1e-6:
        return
    expected = "".join(
        letters[old] if sign > 0 else opposite[letters[old]] for old, sign in zip(axes, signs, strict=True)
    )
    assert moved == expected


@given(affines())
def test_quaternion_and_rotation_are_inverses(affine: NDArray[np.float64]) -> None:
    matrix = affine[:3, :3] / np.array(spacing_mm(affine))
    matrix = matrix * [1.0, 1.0, np.sign(np.linalg.det(matrix))]
    found = quaternion_of(matrix)
    np.testing.assert_allclose(rotation_of(found), matrix, atol=1e-7)
    reference = nibabel.quaternions.mat2quat(matrix)
    np.testing.assert_allclose(nibabel.quaternions.quat2mat(reference), rotation_of(found), atol=1e-7)


@given(affines(), st.floats(0.01, 0.6))
def test_a_leaning_axis_is_shear_and_a_turned_grid_is_not(affine: NDArray[np.float64], lean: float) -> None:
    assert not is_sheared(affine)
    sheared = affine.copy()
    sheared[:3, 1] += lean * affine[:3, 0] / np.linalg.norm(affine[:3, 0]) * np.linalg.norm(affine[:3, 1])
    assert is_sheared(sheared)
    assert is_oblique(sheared)


@given(affines(), affines(), shapes)
def test_displacement_is_that_of_the_farthest_voxel(
    first: NDArray[np.float64], second: NDArray[np.float64], shape: tuple[int, int, int]
) -> None:
    """Brute force over every voxel of the surface agrees with the eight corners."""
    small = tuple(min(size, 6) for size in shape)
    voxels = np.array([[*index, 1.0] for index in np.ndindex(small)]).T
    distance = np.linalg.norm(((second - first) @ voxels)[:3], axis=0).max()
    assert corner_displacement_mm(first, second, small) == pytest.approx(distance, rel=1e-9, abs=1e-9)
    steps = np.linalg.inv(first[:3, :3]) @ ((second - first) @ voxels)[:3]
    farthest = np.linalg.norm(steps, axis=0).max()
    assert corner_displacement_voxels(first, second, small) == pytest.approx(farthest, rel=1e-6, abs=1e-9)


@settings(max_examples=500, deadline=None)
@given(affines(), shapes, st.tuples(*[st.floats(-1.0, 1.0)] * 3), st.floats(0.0, 1.2))
def test_500_displacements_are_decided_as_the_tolerances_say(
    affine: NDArray[np.float64], shape: tuple[int, int, int], direction: tuple[float, float, float], size: float
) -> None:
    """A label moved by a known number of voxels along a known direction."""
    length = np.linalg.norm(direction)
    if length < 0.1 or min(abs(size - 0.05), abs(size - 0.5)) < 1e-6:
        return
    step = np.array(direction) / length * size
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ step
    image, label = grid(affine, shape), grid(moved, shape)
    if size < 0.5:
        voxels = require_same_grid(image, label)
        assert voxels == pytest.approx(size, abs=1e-6)
        assert (voxels < 0.05) == (size < 0.05)
        return
    with pytest.raises(GeometryMismatchError) as caught:
        require_same_grid(image, label)
    millimetres = np.linalg.norm(affine[:3, :3] @ step)
    assert f"{millimetres:.3g} mm" in str(caught.value)
    assert str(caught.value).startswith("case: ")


@settings(max_examples=100)
@given(affines(), shapes, st.sampled_from(ORIENTATIONS))
def test_another_orientation_of_the_same_place_is_refused(
    affine: NDArray[np.float64], shape: tuple[int, int, int], matrix: NDArray[np.float64]
) -> None:
    """A label stored along other axes is not on the image's grid, even where the shapes agree."""
    cube = (max(shape),) * 3
    other = affine.copy()
    other[:3, :3] = affine[:3, :3] @ matrix
    if np.array_equal(matrix, np.eye(3)) or cube[0] < 3:
        return
    with pytest.raises(GeometryMismatchError):
        require_same_grid(grid(affine, cube), grid(other, cube))


@given(
    affines(),
    st.tuples(*[st.integers(2, 6)] * 3),
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.floats(-0.2, 0.2)] * 3),
)
def test_the_same_place_in_another_order_is_reordered(
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    matrix: NDArray[np.float64],
    shift: tuple[float, float, float],
) -> None:
    """Any of the 48 orders, up to half a voxel away: each voxel goes to the place that it has in the patient."""
    voxels = np.arange(np.prod(shape)).reshape(shape)
    to_image = np.eye(4)
    to_image[:3, :3] = matrix
    to_image[:3, 3] = [(size - 1) * (row.sum() < 0) for size, row in zip(shape, matrix, strict=True)]
    stored_shape = tuple(int(size) for size in np.abs(matrix.T) @ shape)
    stored = np.zeros(stored_shape, dtype=np.int64)
    for index in np.ndindex(stored_shape):
        stored[index] = voxels[tuple((to_image @ [*index, 1.0])[:3].astype(int))]
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ shift
    image, label = Volume(voxels, affine), Volume(stored, moved @ to_image, name="label", sha256="1")
    found = label.reordered_to(image)
    np.testing.assert_array_equal(found.array, voxels)
    np.testing.assert_allclose(found.affine, moved, atol=1e-9)
    assert (found is label) == np.array_equal(matrix, np.eye(3))
    assert found is label or "re-ordered" in found.notes[-1]
    assert found.sha256 == "1"
    assert require_same_grid(image, found) == pytest.approx(np.linalg.norm(shift), abs=1e-6)
    moved[:3, 3] += affine[:3, 1]
    away = Volume(stored, moved @ to_image)
    assert away.reordered_to(image) is away


def test_shapes_that_differ_are_refused_with_both() -> None:
    with pytest.raises(GeometryMismatchError, match=r"\(3, 3, 2\) differs from image shape \(3, 3, 3\)"):
        require_same_grid(grid(np.eye(4), (3, 3, 3)), grid(np.eye(4), (3, 3, 2)))


@pytest.mark.parametrize(
    "affine",
    [
        np.zeros((4, 4)),
        np.eye(3),
        np.full((4, 4), np.nan),
        np.diag([1.0, 1.0, 0.0, 1.0]),
        np.diag([1.0, 1.0, np.inf, 1.0]),
        np.diag([1.0, 1.0, 1.0, 2.0]),
        np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        "identity",
        None,
    ],
    ids=str,
)
def test_what_is_no_affine_is_refused(affine: object) -> None:
    with pytest.raises(GeometryError):
        checked_affine(affine)
