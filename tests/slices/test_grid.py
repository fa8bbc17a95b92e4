"""A volume comes to the network grid and back: the same from every stored order, at the right place in the world."""

import json
from itertools import product
from typing import Any

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medfcn.errors import GeometryError
from medfcn.slices import grid as grid_module
from medfcn.slices.grid import (
    GridMap,
    map_to_network,
    native_slabs,
    to_native_grid,
    to_network_grid,
    to_stored_order,
)
from medfcn.volumes import orientation_of, spacing_mm
from tests.slices.stored_orders import ORDERS, oblique_affine, positions, stored_in

Lengths = tuple[float, float, float]
Wanted = tuple[float | None, float | None, float | None]
SHAPES = st.tuples(*[st.integers(1, 8)] * 3)
SPACINGS = st.tuples(*[st.sampled_from([0.4, 0.9, 1.0, 1.7, 3.0])] * 3)
WANTED = st.tuples(*[st.sampled_from([None, 0.6, 1.0, 1.3, 2.2])] * 3)
SEEDS = st.integers(0, 10_000)
KEEP: Wanted = (None, None, None)


def _map(shape: tuple[int, ...], affine: NDArray[np.float64], wanted: Wanted = KEEP) -> GridMap:
    return map_to_network((shape[-3], shape[-2], shape[-1]), orientation_of(affine), spacing_mm(affine), wanted)


@given(SHAPES, SPACINGS, WANTED, SEEDS)
@settings(max_examples=25, deadline=None)
def test_all_48_stored_orders_come_to_the_same_network_grid(
    shape: tuple[int, ...], spacing: Lengths, wanted: Wanted, seed: int
) -> None:
    random = np.random.default_rng(seed)
    image, labels = random.normal(size=shape).astype(np.float32), random.integers(0, 4, shape).astype(np.uint8)
    affine = oblique_affine(seed, spacing)
    base = _map(shape, affine, wanted)
    expected_image, expected_labels = to_network_grid(image, base), to_network_grid(labels, base)
    world = affine @ base.native_voxel
    for order in ORDERS:
        stored, stored_affine = stored_in(image, affine, order)
        grid = _map(stored.shape, stored_affine, wanted)
        found = to_network_grid(stored, grid)
        assert found.shape == expected_image.shape == grid.shape
        assert found.tobytes() == expected_image.tobytes()
        assert np.array_equal(to_network_grid(stored_in(labels, affine, order)[0], grid), expected_labels)
        np.testing.assert_allclose(stored_affine @ grid.native_voxel, world, atol=1e-9)


@given(SHAPES, SPACINGS, SEEDS, st.sampled_from(ORDERS), st.integers(1, 2))
@settings(max_examples=100, deadline=None)
def test_a_volume_of_kept_spacing_returns_exactly(
    shape: tuple[int, ...], spacing: Lengths, seed: int, order: Any, channels: int
) -> None:
    random = np.random.default_rng(seed)
    affine = oblique_affine(seed, spacing)
    for array in (
        random.normal(size=(channels, *shape)).astype(np.float32),
        random.integers(0, 9, (channels, *shape)).astype(np.uint8),
    ):
        stored, stored_affine = stored_in(array, affine, order)
        grid = _map(stored.shape, stored_affine)
        there = to_network_grid(stored, grid)
        assert np.array_equal(
            np.bincount(there.astype(int).ravel() + 99), np.bincount(array.astype(int).ravel() + 99)
        )
        back = to_native_grid(there, grid)
        assert back.dtype == array.dtype
        assert np.array_equal(back, stored)


@pytest.mark.slow
def test_a_volume_of_kept_spacing_returns_exactly_from_2000_random_grids() -> None:
    random = np.random.default_rng(0)
    for number in range(2000):
        shape = tuple(random.integers(1, 20, 3).tolist())
        array = random.normal(size=shape).astype(np.float32)
        spacing = tuple(random.uniform(0.2, 6, 3).tolist())
        stored, affine = stored_in(array, oblique_affine(number, spacing), ORDERS[number % 48])
        grid = _map(stored.shape, affine)
        assert np.array_equal(to_native_grid(to_network_grid(stored, grid), grid), stored)


def test_network_axes_run_to_right_anterior_superior() -> None:
    for order in ORDERS:
        array, affine = stored_in(np.arange(24.0).reshape(2, 3, 4), np.diag([1.0, 1.1, 1.2, 1.0]), order)
        grid = _map(array.shape, affine)
        matrix = (affine @ grid.native_voxel)[:3, :3]
        assert grid.spacing_mm == pytest.approx((1.0, 1.1, 1.2))
        np.testing.assert_allclose(matrix, np.diag([1.0, 1.1, 1.2]), atol=1e-12)
        assert (to_network_grid(array, grid) == np.arange(24.0).reshape(2, 3, 4)).all()


@given(SHAPES, SPACINGS, WANTED, SEEDS, st.sampled_from(ORDERS))
@settings(max_examples=100, deadline=None)
def test_native_voxel_tells_where_the_network_grid_is_sampled(
    shape: tuple[int, ...], spacing: Lengths, wanted: Wanted, seed: int, order: Any
) -> None:
    stored, affine = stored_in(np.zeros(shape), oblique_affine(seed, spacing), order)
    grid = _map(stored.shape, affine, wanted)
    # A volume of its own voxel indices: what is read off it is where it was read.
    read = to_network_grid(np.indices(stored.shape).astype(np.float32), grid)
    told = positions(grid.shape, grid.native_voxel)
    ends = np.array(stored.shape).reshape(3, 1, 1, 1) - 1
    np.testing.assert_allclose(read, np.clip(told, 0, ends), atol=1e-4)
    # ... and both grids share their centre.
    middle = [*((size - 1) / 2 for size in grid.shape), 1]
    np.testing.assert_allclose((grid.native_voxel @ middle)[:3], (np.array(stored.shape) - 1) / 2, atol=1e-9)


@given(SHAPES, SPACINGS, WANTED, st.sampled_from(ORDERS), st.integers(1, 3), st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_native_slabs_are_the_native_grid_a_few_rows_at_a_time(
    shape: tuple[int, ...], spacing: Lengths, wanted: Wanted, order: Any, labels: int, decided: int, slab: int
) -> None:
    stored, affine = stored_in(np.zeros(shape), oblique_affine(0, spacing), order)
    grid = _map(stored.shape, affine, wanted)
    there = np.random.default_rng(0).normal(size=(labels, *grid.shape)).astype(np.float32)
    expected = to_native_grid(there, grid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid_module, "_DECIDED_VOXELS", decided)
        patch.setattr(grid_module, "_SLAB_VOXELS", slab)
        slabs = list(native_slabs(there, grid))
    places = np.concatenate([np.arange(10**3)[rows] for rows, _ in slabs])
    assert places.tolist() == list(range(grid.native_shape[grid.axes[0]]))
    assert np.array_equal(to_stored_order(np.concatenate([part for _, part in slabs], axis=1), grid), expected)


@pytest.mark.parametrize("order", ORDERS)
def test_no_stored_order_is_copied_whole_for_every_slab(order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, affine = stored_in(np.ones((6, 7, 8), dtype=np.uint8), oblique_affine(0, (1.0, 1.0, 1.0)), order)
    grid = _map(labels.shape, affine, (0.6, 0.7, 0.8))
    given_to_numpy: list[bool] = []
    mix = grid_module._mix
    monkeypatch.setattr(
        grid_module, "_mix", lambda array, *rest: given_to_numpy.append(array.flags.c_contiguous) or mix(array, *rest)
    )
    to_native_grid(to_network_grid(labels, grid), grid)
    there = to_network_grid(labels.astype(np.float32), grid)
    list(native_slabs(np.asfortranarray(there[None]), grid))
    assert given_to_numpy
    assert all(given_to_numpy)


@given(st.tuples(*[st.integers(3, 9)] * 3), SPACINGS, WANTED, SEEDS, st.sampled_from(ORDERS))
@settings(max_examples=60, deadline=None)
def test_a_ramp_in_world_millimetres_stays_that_ramp(
    shape: tuple[int, ...], spacing: Lengths, wanted: Wanted, seed: int, order: Any
) -> None:
    slope = np.random.default_rng(seed).normal(size=3)
    affine = oblique_affine(seed, spacing)
    affine[:3, 3] /= 30
    stored, affine = stored_in(np.zeros(shape), affine, order)
    ramp = np.einsum("i,iabc->abc", slope, positions(stored.shape, affine)).astype(np.float32)
    grid = _map(stored.shape, affine, wanted)
    found = to_network_grid(ramp, grid)
    expected = np.einsum("i,iabc->abc", slope, positions(grid.shape, affine @ grid.native_voxel))
    inside = _inside(grid)
    assert inside.any()
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-4)
    # Back: exact wherever the network grid surrounds a native voxel.
    returned = to_native_grid(expected.astype(np.float32), grid)
    there = positions(stored.shape, np.linalg.inv(grid.native_voxel))
    held = _between(there, grid.shape)
    np.testing.assert_allclose(returned[held], ramp[held], atol=2e-4)


def _between(places: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    ends = np.array(shape).reshape(3, 1, 1, 1) - 1
    return ((places >= -1e-9) & (places <= ends + 1e-9)).all(axis=0)


def _inside(grid: GridMap) -> NDArray[np.bool_]:
    return _between(positions(grid.shape, grid.native_voxel), grid.native_shape)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("number", range(8))
def test_resampling_is_that_of_simpleitk_on_the_same_physical_grid(number: int, large: bool) -> None:
    random = np.random.default_rng(number)
    # Large volumes are resampled slab by slab.
    shape = tuple(random.integers(52, 60, 3).tolist()) if large else tuple(random.integers(6, 14, 3).tolist())
    spacing = tuple(random.uniform(0.5, 3, 3).tolist())
    array = random.normal(size=shape).astype(np.float32)
    stored, affine = stored_in(array, oblique_affine(number, spacing), ORDERS[(7 * number + 5) % 48])
    wanted = [(0.8, 1.9, None), (2.1, None, 0.7), (None, 1.3, 2.4)][number % 3]
    grid = _map(stored.shape, affine, wanted)
    network_affine = affine @ grid.native_voxel
    reference = _itk_image(np.zeros(grid.shape, dtype=np.float32), network_affine)
    resampled = SimpleITK.Resample(
        _itk_image(stored, affine), reference, SimpleITK.Transform(), SimpleITK.sitkLinear, 0.0
    )
    expected = SimpleITK.GetArrayFromImage(resampled).T
    inside = _inside(grid)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(to_network_grid(stored, grid)[inside], expected[inside], atol=1e-4)


def _itk_image(array: NDArray[np.float32], affine: NDArray[np.float64]) -> Any:
    """SimpleITK speaks LPS, and of voxels in K, J, I order."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(lengths.tolist())
    image.SetDirection((lps[:3, :3] / lengths).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


@given(SHAPES, SPACINGS, WANTED, SEEDS)
@settings(max_examples=50, deadline=None)
def test_labels_are_the_largest_share_and_ties_the_smaller_value(
    shape: tuple[int, ...], spacing: Lengths, wanted: Wanted, seed: int
) -> None:
    labels = np.random.default_rng(seed).choice([0, 2, 3, 250], shape).astype(np.uint8)
    affine = oblique_affine(seed, spacing)
    grid = _map(shape, affine, wanted)
    values = np.unique(labels)
    shares = np.stack([to_network_grid((labels == value).astype(np.float32), grid) for value in values])
    found = to_network_grid(labels, grid)
    assert found.dtype == np.uint8
    assert np.array_equal(found, values[shares.argmax(axis=0)])
    back = to_native_grid(found, grid)
    assert back.shape == shape
    assert back.dtype == np.uint8
    assert set(np.unique(back)) <= set(values)


@given(st.integers(2, 60), st.floats(-0.099, 0.099), st.floats(0.3, 4))
@settings(max_examples=100, deadline=None)
def test_a_spacing_within_tolerance_is_kept(size: int, displacement: float, own: float) -> None:
    wanted = own * (1 + displacement / size)
    grid = map_to_network((size, 1, 1), "RAS", (own, 1.0, 1.0), (wanted, None, None))
    assert grid.spacing_mm == (own, 1.0, 1.0)
    assert grid.shape == (size, 1, 1)
    ramp = np.random.default_rng(size).normal(size=(size, 1, 1)).astype(np.float32)
    assert to_network_grid(ramp, grid).tobytes() == ramp.tobytes()


@given(st.integers(1, 60), st.floats(0.3, 4), st.floats(0.3, 4))
@settings(max_examples=200, deadline=None)
def test_the_network_grid_is_as_long_as_the_volume_to_half_a_voxel(size: int, own: float, wanted: float) -> None:
    grid = map_to_network((1, size, 1), "RAS", (1.0, own, 1.0), (None, wanted, None))
    if grid.spacing_mm[1] == own:
        assert grid.shape[1] == size
    else:
        assert grid.spacing_mm[1] == wanted
        assert abs(grid.shape[1] * wanted - size * own) <= wanted / 2 + 1e-9 or grid.shape[1] == 1


@pytest.mark.parametrize("sign", [1, -1])
def test_a_spacing_beyond_tolerance_is_resampled(sign: int) -> None:
    grid = map_to_network((40, 1, 1), "RAS", (1.0, 1.0, 1.0), (1 + sign * 0.11 / 40, None, None))
    assert grid.spacing_mm[0] != 1.0


@given(SHAPES, SPACINGS, WANTED, st.floats(-1e4, 1e4, width=32))
@settings(max_examples=50, deadline=None)
def test_a_constant_volume_stays_constant(
    shape: tuple[int, ...], spacing: Lengths, wanted: Wanted, value: float
) -> None:
    grid = _map(shape, oblique_affine(1, spacing), wanted)
    there = to_network_grid(np.full(shape, value, dtype=np.float32), grid)
    assert (there == np.float32(value)).all()
    assert (to_native_grid(there, grid) == np.float32(value)).all()


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("wanted", [0.3, 1.0, 5.0])
def test_a_volume_one_voxel_thick_works(axis: int, wanted: float) -> None:
    shape = [5, 6, 7]
    shape[axis] = 1
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    grid = _map(tuple(shape), np.diag([2.0, 2.0, 2.0, 1.0]), (wanted, wanted, wanted))
    there = to_network_grid(array, grid)
    assert there.shape == grid.shape
    assert min(there.shape) >= 1
    assert to_native_grid(there, grid).shape == tuple(shape)


@pytest.mark.parametrize("wanted", [0.7, 1.4, 2.0, 2.7])
@pytest.mark.parametrize("size", [40, 41])
def test_going_and_returning_does_not_move_a_centroid(wanted: float, size: int) -> None:
    for offset in product((-1.3, 0.4), repeat=3):
        centre = (size - 1) / 2 + np.array(offset)
        places = np.indices((size,) * 3).astype(np.float64) - centre.reshape(3, 1, 1, 1)
        blob = np.exp(-0.5 * (places**2).sum(axis=0) / 16).astype(np.float32)
        grid = _map(blob.shape, np.eye(4), (wanted, wanted, wanted))
        back = to_native_grid(to_network_grid(blob, grid), grid)
        moved = [(places[axis] * back).sum() / back.sum() for axis in range(3)]
        assert np.abs(moved).max() < 0.02


def test_a_network_grid_far_beyond_the_volume_is_refused_in_one_line() -> None:
    with pytest.raises(GeometryError, match="unit of length") as caught:
        map_to_network((100, 100, 30), "RAS", (1000.0, 1000.0, 3000.0), (1.0, 1.0, None))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("orientation", ["RRS", "RA", "XYZ", ""])
def test_an_orientation_that_is_none_is_refused(orientation: str) -> None:
    with pytest.raises(GeometryError, match="orientation"):
        map_to_network((2, 2, 2), orientation, (1.0, 1.0, 1.0), KEEP)


def test_a_grid_map_returns_from_json() -> None:
    grid = map_to_network((10, 20, 30), "LSA", (1.0, 3.0, 0.5), (None, 1.0, None))
    assert GridMap.from_json(json.loads(json.dumps(grid.to_json()))) == grid
