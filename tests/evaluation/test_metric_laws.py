"""Laws that hold for every pair of masks."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from medfcn.errors import GeometryMismatchError, LabelError, SettingsError
from medfcn.evaluation import (
    assd_mm,
    confusion_matrix,
    count_voxels,
    dice,
    hausdorff_mm,
    iou,
    masd_mm,
    nsd,
    precision,
    recall,
    surface_distances,
)
from medfcn.evaluation.overlap import count_labels
from medfcn.labels import IGNORED

EDGES = st.floats(0.3, 5.0)
BOUNDARIES = st.sampled_from(["voxels", "elements"])


@st.composite
def pairs(draw, dimensions=(2, 3)):
    count = draw(st.sampled_from(dimensions))
    shape = draw(array_shapes(min_dims=count, max_dims=count, min_side=2, max_side=6))
    reference, prediction = (draw(arrays(bool, shape)) for _ in range(2))
    spacing = tuple(draw(EDGES) for _ in range(count))
    return reference, prediction, spacing


def all_scores(reference, prediction, spacing, boundary, tolerance=1.0):
    found = surface_distances(reference, prediction, spacing, boundary=boundary)
    return np.array(
        [
            dice(reference, prediction),
            iou(reference, prediction),
            found.hausdorff_mm(),
            found.hausdorff_mm(percentile=95),
            found.hausdorff_mm(percentile=95, pooled=True),
            found.assd_mm(),
            found.masd_mm(),
            found.nsd(tolerance_mm=tolerance),
        ]
    )


def assert_same(first, second):
    np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-9)


@given(pairs(), BOUNDARIES)
def test_swapping_the_masks_changes_nothing_but_precision_and_recall(pair, boundary):
    reference, prediction, spacing = pair
    forth = all_scores(reference, prediction, spacing, boundary)
    assert_same(forth, all_scores(prediction, reference, spacing, boundary))
    assert_same(precision(reference, prediction), recall(prediction, reference))


@given(pairs(), BOUNDARIES, st.randoms(use_true_random=False))
def test_axes_may_be_permuted_with_their_spacing(pair, boundary, random):
    reference, prediction, spacing = pair
    axes = list(range(reference.ndim))
    random.shuffle(axes)
    turned = [mask.transpose(axes) for mask in (reference, prediction)]
    assert_same(
        all_scores(reference, prediction, spacing, boundary),
        all_scores(*turned, [spacing[axis] for axis in axes], boundary),
    )


@given(pairs(), BOUNDARIES, st.integers(0, 2))
def test_axes_may_be_flipped(pair, boundary, axis):
    reference, prediction, spacing = pair
    axis %= reference.ndim
    flipped = [np.flip(mask, axis) for mask in (reference, prediction)]
    # Marching-cubes areas of ambiguous neighbourhoods are the same for mirror images.
    assert_same(all_scores(reference, prediction, spacing, boundary), all_scores(*flipped, spacing, boundary))


@given(pairs(), BOUNDARIES, st.lists(st.integers(0, 9), min_size=6, max_size=6))
def test_zeros_around_the_masks_change_nothing(pair, boundary, margins):
    reference, prediction, spacing = pair
    pads = [(margins[2 * axis], margins[2 * axis + 1]) for axis in range(reference.ndim)]
    padded = [np.pad(mask, pads) for mask in (reference, prediction)]
    assert_same(all_scores(reference, prediction, spacing, boundary), all_scores(*padded, spacing, boundary))


@given(pairs(), BOUNDARIES, st.floats(0.01, 100.0))
def test_distances_scale_with_the_spacing(pair, boundary, factor):
    reference, prediction, spacing = pair
    before = all_scores(reference, prediction, spacing, boundary)
    larger = [edge * factor for edge in spacing]
    after = all_scores(reference, prediction, larger, boundary, tolerance=factor)
    before[2:7] *= factor
    assert_same(before / max(1, factor), after / max(1, factor))


@given(pairs(), BOUNDARIES)
def test_a_mask_agrees_with_itself(pair, boundary):
    mask, _, spacing = pair
    if mask.any():
        assert_same(all_scores(mask, mask, spacing, boundary), [1, 1, 0, 0, 0, 0, 0, 1])


@given(pairs(), BOUNDARIES)
def test_distances_are_ordered(pair, boundary):
    reference, prediction, spacing = pair
    if reference.any() and prediction.any():
        found = surface_distances(reference, prediction, spacing, boundary=boundary)
        assert 0 <= found.assd_mm() <= found.hausdorff_mm() + 1e-9
        assert found.hausdorff_mm(percentile=50) <= found.hausdorff_mm(percentile=95) <= found.hausdorff_mm()
        assert found.nsd(tolerance_mm=found.hausdorff_mm()) == pytest.approx(1.0)


@given(pairs(), st.sampled_from([np.uint8, np.int16, np.int64, np.float32, np.float64]))
@settings(max_examples=30)
def test_the_type_of_the_numbers_changes_nothing(pair, kind):
    reference, prediction, spacing = pair
    assert_same(
        all_scores(reference, prediction, spacing, "voxels"),
        all_scores(reference.astype(kind), prediction.astype(kind), spacing, "voxels"),
    )


@given(pairs())
def test_the_memory_of_the_masks_changes_nothing(pair):
    reference, prediction, spacing = pair
    apart = np.repeat(reference, 2, axis=-1)[..., ::2]
    backwards = np.flip(np.flip(prediction, 0).copy(), 0)
    expected = all_scores(reference, prediction, spacing, "elements")
    assert_same(expected, all_scores(apart, np.asfortranarray(prediction), spacing, "elements"))
    assert_same(expected, all_scores(np.asfortranarray(reference), backwards, spacing, "elements"))


@given(pairs(dimensions=(3,)), st.floats(0, 2 * math.pi))
def test_turning_the_grid_changes_no_distance(pair, angle):
    reference, prediction, spacing = pair
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    for boundary in ("voxels", "elements"):
        assert_same(
            all_scores(reference, prediction, spacing, boundary),
            all_scores(reference, prediction, turn @ np.diag(spacing), boundary),
        )


@given(pairs(dimensions=(2, 3)), st.floats(0.05, 0.9))
def test_distances_on_a_sheared_grid_are_those_in_space(pair, shear):
    reference, prediction, spacing = pair
    grid = np.diag(spacing).astype(float)
    grid[0, 1] = shear
    found = surface_distances(reference, prediction, grid)
    points = [
        np.argwhere(mask & ~np.logical_and.reduce(list(neighbours(mask)))) @ grid.T
        for mask in (reference, prediction)
    ]
    if len(points[0]) and len(points[1]):
        steps = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
        assert_same(found.hausdorff_mm(), max(steps.min(axis=0).max(), steps.min(axis=1).max()))


def neighbours(mask):
    padded = np.pad(mask, 1)
    inner = tuple(slice(1, -1) for _ in range(mask.ndim))
    for axis in range(mask.ndim):
        for step in (1, -1):
            yield np.roll(padded, step, axis)[inner]


@given(pairs())
def test_one_empty_mask_is_infinitely_far_and_two_are_nowhere(pair):
    mask, _, spacing = pair
    nothing = np.zeros_like(mask)
    for boundary in ("voxels", "elements"):
        both = all_scores(nothing, nothing, spacing, boundary)
        assert np.isnan(both).all()
        if mask.any():
            for scores in (
                all_scores(mask, nothing, spacing, boundary),
                all_scores(nothing, mask, spacing, boundary),
            ):
                assert_same(scores, [0, 0, *[math.inf] * 5, 0])


def test_precision_has_no_value_without_a_prediction_and_recall_none_without_a_reference():
    assert math.isnan(precision([1, 0], [0, 0]))
    assert recall([1, 0], [0, 0]) == 0
    assert math.isnan(recall([0, 0], [1, 0]))
    assert precision([0, 0], [1, 0]) == 0


def test_a_tolerance_that_is_met_on_paper_is_met():
    """0.1 + 0.1 + 0.1 is more than 0.3 in floating point, and 0.2 stored as float32 is more than 0.2."""
    mask = np.zeros((3, 30), dtype=bool)
    mask[1, 5] = True
    assert nsd(mask, np.roll(mask, 3, axis=1), (0.1, 0.1), tolerance_mm=0.3, boundary="voxels") == 1
    edge = float(np.float32(0.2))
    assert nsd(mask, np.roll(mask, 5, axis=1), (edge, edge), tolerance_mm=1.0, boundary="voxels") == 1
    assert nsd(mask, np.roll(mask, 6, axis=1), (edge, edge), tolerance_mm=1.0, boundary="voxels") == 0


@pytest.mark.parametrize(
    "spacing", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, math.nan), (1.0, math.inf), 1.0, (1.0, 1.0, 1.0), None]
)
def test_a_spacing_that_cannot_be_is_refused(spacing):
    with pytest.raises((SettingsError, TypeError)):
        hausdorff_mm([[1, 0]], [[0, 1]], spacing)


def test_spacing_has_no_default():
    with pytest.raises(TypeError):
        hausdorff_mm([[1, 0]], [[0, 1]])


def test_masks_that_differ_in_shape_are_refused():
    for score in (dice, lambda a, b: hausdorff_mm(a, b, (1, 1)), lambda a, b: assd_mm(a, b, (1, 1))):
        with pytest.raises(GeometryMismatchError, match="shape"):
            score([[1, 0]], [[1], [0]])


@pytest.mark.parametrize("mask", [[2, 0], [0.5, 0], [-1, 0], [256, 0], [math.nan, 0], ["a", "b"], [1 + 1j, 0]])
def test_values_that_are_no_mask_of_one_label_are_refused(mask):
    with pytest.raises(LabelError):
        dice(mask, [1, 0])


def test_labels_beyond_those_expected_are_refused():
    mask = np.array([0, 1, 2], dtype=np.uint8)
    with pytest.raises(LabelError, match="label 2"):
        confusion_matrix(mask, mask, labels=1)
    with pytest.raises(LabelError, match="uint8"):
        confusion_matrix(mask.astype(int), mask, labels=2)


@given(arrays(np.uint8, st.integers(0, 300), elements=st.integers(0, 20)), st.integers(0, 9))
def test_the_confusion_matrix_counts_every_pair(drawn, shift):
    found = np.roll(drawn, shift)
    expected = np.zeros((21, 21), dtype=int)
    np.add.at(expected, (drawn, found), 1)
    np.testing.assert_array_equal(confusion_matrix(drawn, found, labels=20), expected)


@given(pairs())
def test_counts_add_up_to_the_volume(pair):
    reference, prediction, _ = pair
    counts = count_voxels(reference, prediction)
    assert counts.reference == reference.sum()
    assert counts.prediction == prediction.sum()
    assert counts.reference + counts.false_positives + counts.true_negatives == reference.size


@pytest.mark.parametrize("percentile", [-1, 101, math.nan])
def test_a_percentile_that_cannot_be_is_refused(percentile):
    with pytest.raises(SettingsError, match="percentile"):
        hausdorff_mm([[1]], [[1]], (1, 1), percentile=percentile)


def test_masd_and_assd_differ_where_the_surfaces_differ_in_size():
    drawn, found = np.zeros((2, 12, 12), dtype=bool)
    drawn[5, 5] = True
    found[2:9, 2:9] = True
    assert masd_mm(drawn, found, (1, 1)) != pytest.approx(assd_mm(drawn, found, (1, 1)))


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 40))
def test_ignored_voxels_count_as_if_they_were_not_there(seed: int, labels: int, length: int) -> None:
    random = np.random.default_rng(seed)
    drawn = random.choice([*range(labels + 1), IGNORED], (length, 3)).astype(np.uint8)
    found = random.integers(0, labels + 1, (length, 3)).astype(np.uint8)
    kept = drawn != IGNORED
    assert count_labels(drawn, found, labels=labels) == count_labels(drawn[kept], found[kept], labels=labels)


def test_a_prediction_ignores_nothing() -> None:
    with pytest.raises(LabelError, match="prediction: contains the label 255"):
        count_labels(np.array([0, 1], dtype=np.uint8), np.array([IGNORED, 1], dtype=np.uint8), labels=1)
