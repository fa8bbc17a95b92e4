"""The connected parts of a mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medfcn.slices import boxes, connected
from medfcn.slices.components import (
    keep_one_part,
    keep_parts,
    keep_together,
    largest_share,
    together_shares,
)
from medfcn.slices.connected import Connected
from tests.slices.stored_orders import ORDERS, restored, stored_in


def _random_labels(seed: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).choice([0, 0, 0, 1, 2], (7, 6, 5)).astype(np.uint8)


@given(st.integers(0, 9999))
@settings(max_examples=50, deadline=None)
def test_the_largest_parts_are_those_of_scipy(seed: int) -> None:
    labels = _random_labels(seed)
    expected = labels.copy()
    for value in (1, 2):
        numbers, count = ndimage.label(labels == value)
        sizes = [int((numbers == part + 1).sum()) for part in range(count)]
        for part, size in enumerate(sizes, start=1):
            if size < max(sizes):
                expected[numbers == part] = 0
    before = labels.copy()
    assert np.array_equal(keep_one_part(labels, (1, 2)).indices, expected)
    assert np.array_equal(labels, before)
    only = keep_one_part(labels, (2,)).indices
    assert np.array_equal(only == 1, labels == 1)
    for together in (False, True):
        kept = keep_parts(labels, (1, 2), together=together).indices
        assert np.array_equal(labels, before)
        changed = labels.copy()
        assert keep_parts(changed, (1, 2), together=together, in_place=True).indices is changed
        assert np.array_equal(changed, kept)


@given(st.integers(0, 9999), st.sampled_from(ORDERS))
@settings(max_examples=50, deadline=None)
def test_what_is_kept_does_not_depend_on_the_stored_order(seed: int, order: object) -> None:
    labels = _random_labels(seed)
    stored, _ = stored_in(labels, np.eye(4), order)  # type: ignore[arg-type]
    assert np.array_equal(
        restored(keep_one_part(stored, (1, 2)).indices, order), keep_one_part(labels, (1, 2)).indices
    )  # type: ignore[arg-type]


@given(st.integers(0, 9999), st.sampled_from(ORDERS), st.integers(1, 60), st.sampled_from([0, 20, 1000]))
@settings(max_examples=50, deadline=None)
def test_parts_are_joined_across_slabs(seed: int, order: object, slab: int, kept_runs: int) -> None:
    labels, random = _random_labels(seed), np.random.default_rng(seed)
    certainty = np.where(labels > 0, random.integers(-9, 99, labels.shape), 0).astype(np.int8)
    expected = keep_one_part(labels, (1, 2), certainty)
    stored, place = (stored_in(array, np.eye(4), order)[0] for array in (labels, certainty))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connected, "_SLAB_VOXELS", slab)
        patch.setattr(connected, "_KEPT_RUNS", kept_runs)
        found = keep_one_part(stored, (1, 2), place)
        whole = Connected(stored, [(1, 2)]).of(0)
    assert np.array_equal(restored(found.indices, order), expected.indices)  # type: ignore[arg-type]
    assert (found.removed, found.disputed) == (expected.removed, expected.disputed)
    numbers, count = ndimage.label(stored > 0)
    boxes = [[(side.start, side.stop) for side in box] for box in ndimage.find_objects(numbers)]
    made = [
        [*zip(start, stop, strict=True)]
        for start, stop in zip(whole.starts.tolist(), whole.stops.tolist(), strict=True)
    ]
    assert sorted(whole.sizes) == sorted(np.bincount(numbers.reshape(-1))[1:])
    assert (len(made), sorted(made)) == (count, sorted(boxes))


@given(st.integers(0, 9999))
@settings(max_examples=50, deadline=None)
def test_pairs_are_joined_as_a_graph_is(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 60))
    pairs = [random.integers(1, count + 1, (int(random.integers(0, 30)), 2)) for _ in range(2)]
    one, other = (np.concatenate(pairs) - 1).astype(np.int32).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(count, count))
    expected = connected_components(graph, directed=False)[1]
    assert np.array_equal(connected._joined(count, pairs), expected)
    assert np.array_equal(connected._joined(count, []), np.arange(count))


def test_a_long_chain_in_any_order_is_one() -> None:
    for order in (np.arange(3000), np.arange(3000)[::-1], np.random.default_rng(0).permutation(3000)):
        chain = np.stack([order[:-1], order[1:]], axis=1) + 1
        assert not connected._joined(3000, [chain]).any()


@given(st.integers(0, 9999), st.floats(0.0, 1.0))
@settings(max_examples=50, deadline=None)
def test_a_small_mask_is_numbered_as_scipy_does_it(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    inside = random.random(random.integers(1, 9, 3)) < share
    numbers, count = connected._components_of(inside)
    expected, expected_count = ndimage.label(inside)
    assert np.array_equal(numbers, expected)
    assert count == expected_count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connected, "_FEW_RUNS", -1)
        patch.setattr(connected, "_VOXELS_IN_TIME", 1 << 30)
        assert np.array_equal(connected._components_of(inside)[0], expected)


@given(st.integers(0, 9999), st.sampled_from([3, 255]))
@settings(max_examples=30, deadline=None)
def test_boxes_are_those_of_scipy(seed: int, most: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice([0, 0, 0, 0, 1, 3, 4, 200], random.integers(1, 6, 3)).astype(np.uint8)
    found = boxes.boxes_of(labels, most)
    expected = enumerate(ndimage.find_objects(labels, max_label=most), start=1)
    assert found == {index: box for index, box in expected if box}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "_FEW_VALUES", -1)
        assert boxes.boxes_of(labels, most) == found


def test_parts_that_touch_at_an_edge_are_two() -> None:
    mask = np.zeros((3, 3, 1), dtype=bool)
    mask[0, 0] = mask[1, 1] = mask[1, 2] = True
    assert largest_share(mask) == pytest.approx(2 / 3)
    assert np.isnan(largest_share(np.zeros((2, 2, 2), dtype=bool)))


def _two_parts() -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """A larger part, a smaller one and a speck of label 1; and a lone part of label 2."""
    labels = np.zeros((20, 8, 8), dtype=np.uint8)
    labels[1:7, 1:7, 1:7] = 1
    labels[10:14, 1:6, 1:6] = 1
    labels[17, 1, 1] = 1
    labels[17:19, 4:6, 4:6] = 2
    certainty = np.where(labels > 0, 40, 0).astype(np.int8)
    return labels, certainty


def test_a_smaller_part_that_is_more_certain_than_the_largest_is_kept_beside_it() -> None:
    labels, certainty = _two_parts()
    certainty[1:7] = np.where(labels[1:7] > 0, 8, 0)  # a neighbour, misread with little certainty
    found = keep_one_part(labels, (1, 2), certainty)
    assert found.disputed == (1,)
    assert (found.indices[1:7] == labels[1:7]).all()
    assert (found.indices[10:14] == labels[10:14]).all()
    assert found.indices[17, 1, 1] == 0
    assert found.removed == {1: pytest.approx(1 / (216 + 100 + 1)), 2: 0.0}


def test_where_the_largest_part_is_the_most_certain_size_alone_would_keep_the_same() -> None:
    labels, certainty = _two_parts()
    found, by_size = keep_one_part(labels, (1, 2), certainty), keep_one_part(labels, (1, 2))
    assert found.disputed == by_size.disputed == ()
    assert np.array_equal(found.indices, by_size.indices)
    assert found.removed == by_size.removed == {1: pytest.approx(101 / 317), 2: 0.0}
    certainty[10:14] *= 2  # more certain, but far smaller: less evidence
    certainty[10:14, :, 3:] = 0
    assert keep_one_part(labels, (1, 2), certainty).disputed == ()


def _heart() -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """A chamber (2) between two pieces of its wall (1), and an island of the wall far away."""
    labels = np.zeros((20, 8, 8), dtype=np.uint8)
    labels[1:4, 1:7, 1:7] = labels[8:11, 1:7, 1:7] = 1
    labels[4:8, 1:7, 1:7] = 2
    labels[15:19, 1:7, 1:7] = 1
    return labels, np.where(labels > 0, 40, 0).astype(np.int8)


def test_of_all_labels_together_an_island_goes_and_pieces_that_neighbours_connect_stay() -> None:
    labels, certainty = _heart()
    expected = np.where(np.arange(20)[:, None, None] < 12, labels, 0)
    for given_certainty in (certainty, None):
        found = keep_together(labels, given_certainty)
        assert np.array_equal(found.indices, expected)
        assert (found.removed, found.disputed) == ({1: pytest.approx(0.4), 2: 0.0}, ())
    assert keep_parts(labels, (), certainty, together=True).removed == {1: pytest.approx(0.4), 2: 0.0}
    both = keep_parts(labels, (1,), certainty, together=True)  # its two pieces are of one size
    assert np.array_equal(both.indices, expected)
    assert both.removed == {1: pytest.approx(0.4), 2: 0.0}
    assert np.array_equal(
        keep_parts(labels, (1,), certainty).indices,
        np.where(labels == 1, 0, labels) + ((labels == 1) & (np.arange(20)[:, None, None] > 12)),
    )  # the island is the largest piece of the wall by itself
    assert np.array_equal(labels, _heart()[0])


def test_of_all_labels_together_an_island_that_is_more_certain_is_kept_and_disputed() -> None:
    labels, certainty = _heart()
    certainty[:12] = np.where(labels[:12] > 0, 4, 0)
    found = keep_together(labels, certainty)
    assert found.indices is labels
    assert (found.removed, found.disputed) == ({}, (1,))


@given(st.integers(0, 9999), st.sampled_from(ORDERS))
@settings(max_examples=50, deadline=None)
def test_one_component_of_all_labels_is_that_of_scipy_in_any_stored_order(seed: int, order: object) -> None:
    labels = _random_labels(seed)
    numbers, _ = ndimage.label(labels > 0)
    sizes = np.bincount(numbers.ravel())[1:]
    expected = np.where(np.isin(numbers, 1 + np.flatnonzero(sizes == sizes.max(initial=0))), labels, 0)
    moved, _ = stored_in(labels, np.eye(4), order)  # type: ignore[arg-type]
    found = keep_together(moved)
    assert np.array_equal(restored(found.indices, order), expected)  # type: ignore[arg-type]
    for label, share in found.removed.items():
        assert share == pytest.approx(1 - (expected == label).sum() / (labels == label).sum())
    shares = together_shares(moved, np.eye(4, dtype=bool)[:, 1:])
    is_single = (sizes == sizes.max(initial=0)).sum() == 1
    assert np.isnan(shares[2])
    for label, share in enumerate(shares[:2], start=1):
        if (labels == label).any():
            held = (expected == label).sum() / (labels == label).sum()
            assert share == pytest.approx(held if is_single else 0.0)


@given(st.integers(0, 9999), st.sampled_from(ORDERS))
@settings(max_examples=50, deadline=None)
def test_what_is_disputed_does_not_depend_on_the_stored_order(seed: int, order: object) -> None:
    labels = _random_labels(seed)
    certainty = np.random.default_rng(seed + 1).integers(-127, 127, labels.shape).astype(np.int8)
    expected = keep_one_part(labels, (1, 2), certainty)
    moved, place = (stored_in(array, np.eye(4), order)[0] for array in (labels, certainty))  # type: ignore[arg-type]
    found = keep_one_part(moved, (1, 2), place)
    assert np.array_equal(restored(found.indices, order), expected.indices)  # type: ignore[arg-type]
    assert (found.removed, found.disputed) == (expected.removed, expected.disputed)
