"""The shape of a mask: pieces, gaps and flat ends are measured in mm, the same in every order of axes."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medfcn.inference.shapes import case_shapes
from medfcn.labels import IGNORED, LabelMap
from medfcn.slices.components import OnePart, keep_one_part
from medfcn.slices.shape import MaskShape, shapes_of
from medfcn.volumes import Volume
from tests.slices.stored_orders import ORDERS, stored_in

ONE = np.eye(2, dtype=bool)[:, 1:]
SHAPE = (40, 36, 24)
SPACING = (1.0, 1.0, 2.0)


def ball(centre: tuple[int, int, int] = (20, 18, 12), radius: float = 10.0) -> NDArray[np.bool_]:
    """A ball of this radius in mm."""
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    inside: NDArray[np.bool_] = np.linalg.norm((grid - centre) * np.array(SPACING), axis=-1) < radius
    return inside


def shape(mask: NDArray[np.bool_]) -> MaskShape:
    (found,) = shapes_of(mask.astype(np.uint8), ONE, SPACING)
    return found


def without(mask: NDArray[np.bool_], axis: int, places: slice) -> NDArray[np.bool_]:
    kept = mask.copy()
    kept[(slice(None),) * axis + (places,)] = False
    return kept


def test_a_round_mask_has_no_odd_shape_wherever_it_lies() -> None:
    for centre in ((20, 18, 12), (15, 25, 9)):
        found = shape(ball(centre))
        assert (found.removed, found.far, max(found.dips)) == (0, 0, 0)
        assert max(found.stops) < 0.1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_missing_inside_is_a_dip_across_its_axis_alone(axis: int) -> None:
    middle = (20, 18, 12)[axis]
    found = shape(without(ball(), axis, slice(middle - 1, middle)))
    assert found.dips[axis] > 0.8
    assert max(found.dips[:axis] + found.dips[axis + 1 :]) < 0.2
    thin = ball()
    thin[(slice(None),) * axis + (slice(middle - 1, middle),)] &= ball(radius=3.0).any(axis=axis, keepdims=True)
    assert shape(thin).dips[axis] > 0.7  # nearly empty is as good as empty


@pytest.mark.parametrize("end", range(6))
def test_half_a_ball_stops_at_the_end_where_it_is_cut(end: int) -> None:
    axis, is_last = divmod(end, 2)
    middle = (20, 18, 12)[axis]
    cut = without(ball(), axis, slice(middle + 1, None) if is_last else slice(None, middle))
    found = shape(cut)
    assert found.stops[end] > 0.9
    assert max(found.stops[:end] + found.stops[end + 1 :]) < 0.1


def test_the_end_of_the_volume_is_no_stop() -> None:
    cut = ball((20, 18, 0))
    assert shape(cut).stops[4] == 0
    assert max(shape(cut).stops) < 0.1
    padded = np.pad(cut, ((0, 0), (0, 0), (1, 0))).astype(np.uint8)
    assert shapes_of(padded, ONE, SPACING)[0].stops[4] > 0.9


def test_far_is_farther_than_the_largest_piece_is_wide() -> None:
    large, near, away = ball((12, 18, 12), 8.0), ball((26, 18, 12), 4.0), ball((36, 18, 12), 3.5)
    assert shape(large | near).far == 0
    both = shape(large | away)
    assert both.far == pytest.approx(away.sum() / (large.sum() + away.sum()))
    assert shape(large | near | away).far < both.far


def test_specks_and_nothing_have_no_shape() -> None:
    assert shape(np.zeros(SHAPE, dtype=bool)) == MaskShape()
    specks = np.zeros(SHAPE, dtype=bool)
    specks[::20, ::20, ::10] = True
    assert shape(specks) == MaskShape()


def test_each_label_has_its_shape_and_ignored_voxels_none() -> None:
    half = ball() & (np.arange(SHAPE[2]) > 11)
    indices = np.where(half, 2, ball() * 1).astype(np.uint8)
    indices[:, :, -1] = IGNORED
    lower, upper = shapes_of(indices, np.eye(3, dtype=bool)[:, 1:], SPACING)
    assert (lower.stops[5], upper.stops[4]) == (pytest.approx(1, abs=0.1), pytest.approx(1, abs=0.1))
    whole, core = shapes_of(indices, LabelMap.parse("whole=1+2,core=2").membership, SPACING)
    assert core == upper
    assert whole == shape(ball())


def test_a_shape_does_not_depend_on_how_a_file_orders_its_axes() -> None:
    mask: NDArray[Any] = (ball((9, 10, 14), 7) & (np.arange(SHAPE[2]) > 13) | ball((32, 28, 4), 4)).astype(np.uint8)
    labels, affine = LabelMap.parse("organ=1"), np.diag([*SPACING, 1.0])
    expected = case_shapes(OnePart(mask, {1: 0.25}), Volume(mask, affine), labels)
    assert expected[0].removed == 0.25
    assert expected[0].far > 0.05
    for order in ORDERS:
        array, place = stored_in(mask, affine, order)
        assert case_shapes(OnePart(array, {1: 0.25}), Volume(array, place), labels) == expected


def test_components_that_were_looked_for_before_give_the_same_shapes() -> None:
    indices = np.where(ball(radius=8.0), 2, 0).astype(np.uint8)
    indices[2:8, 3:9, 2:8] = 1
    indices[14:17, 20:23, 20:22] = 1
    certainty = np.where(indices > 0, 5, 0).astype(np.int8)
    certainty[14:17, 20:23, 20:22] = 127  # both pieces of the first are kept
    labels = LabelMap.parse("organ=1,lesion=2,rest=3")
    for order in ORDERS:
        array, affine = stored_in(indices, np.diag([*SPACING, 1.0]), order)
        part = keep_one_part(array, (1, 2, 3), stored_in(certainty, np.eye(4), order)[0])
        assert set(part.parts) == {1, 2}
        found = case_shapes(part, Volume(array, affine), labels)
        assert found == case_shapes(OnePart(part.indices, part.removed), Volume(array, affine), labels)
        assert found[0].far > 0
