"""Slices are cut from a volume and put together again without a change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfcn.settings import View
from medfcn.slices.slicing import VIEW_AXIS, neighbours, slice_volume, stack_slices

VIEWS = st.sampled_from(sorted(VIEW_AXIS))
GRIDS = st.tuples(st.integers(1, 3), *[st.integers(1, 12)] * 3)


def _holds(grid: tuple[int, ...], view: View) -> None:
    array = np.arange(np.prod(grid), dtype=np.float32).reshape(grid)
    slices = slice_volume(array, view)
    axis = VIEW_AXIS[view]
    others = [size for place, size in enumerate(grid[1:]) if place != axis]
    assert slices.shape == (grid[1 + axis], grid[0], *others)
    assert slices.flags.c_contiguous
    assert (slices[-1] == np.take(array, grid[1 + axis] - 1, axis=1 + axis)).all()
    assert (stack_slices(slices, view) == array).all()


@given(GRIDS, VIEWS)
@settings(max_examples=100, deadline=None)
def test_stacking_slices_gives_the_volume_back(grid: tuple[int, ...], view: View) -> None:
    _holds(grid, view)


@pytest.mark.slow
def test_stacking_slices_gives_2000_random_volumes_back() -> None:
    random = np.random.default_rng(0)
    for _ in range(2000):
        for view in VIEW_AXIS:
            _holds((int(random.integers(1, 4)), *random.integers(1, 40, 3).tolist()), view)


def test_each_view_cuts_across_its_own_world_axis() -> None:
    array = np.zeros((1, 4, 5, 6))
    assert slice_volume(array, "sagittal").shape == (4, 1, 5, 6)
    assert slice_volume(array, "coronal").shape == (5, 1, 4, 6)
    assert slice_volume(array, "axial").shape == (6, 1, 4, 5)


@given(st.integers(1, 9), st.sampled_from([1, 3, 5, 7]))
@settings(deadline=None)
def test_neighbours_are_those_of_a_volume_padded_with_its_outermost_slices(count: int, context: int) -> None:
    half = context // 2
    padded = np.pad(np.arange(count), half, mode="edge")
    found = neighbours(np.arange(count), count, context)
    assert found.tolist() == [padded[index : index + context].tolist() for index in range(count)]
